"""result.json holds numbers or None, and is not written where a figure that could be computed is dead."""

import pytest

from selora.diffusion.finite import NotFinite
from selora.study.profiles import load_profile
from selora.study.records import record
from selora.study.results import Run

TRAINED = {"own": {}, "best_step": None, "best_loss": None}
COSTS = {"train_seconds": 1.0}


def measured(**changes) -> dict:
    return {"fid": 1.0, "kid": 0.0, "unet_mean_rank": None, "findings": [], "floor": {"kid": 0.1}} | changes


def test_a_set_without_findings_has_none_and_that_is_fine(tmp_path):
    run = Run(load_profile("smoke"), "iu-drr", "lora", 0, tmp_path)
    record(run, {}, TRAINED, measured(), {}, COSTS)
    assert run.done and run.result()["findings"] == [] and run.result()["unet_mean_rank"] is None


@pytest.mark.parametrize(
    ("scores", "own", "named"),
    [
        (measured(kid=float("nan")), {}, "kid nan"),
        (measured(floor={"kid": float("-inf")}), {}, "floor.kid -inf"),
        (measured(findings=[{"finding": "nodule", "auroc": float("nan")}]), {}, r"findings\[0\].auroc nan"),
        (measured(), {"loss_by_rank": [0.1, float("inf")]}, r"loss_by_rank\[1\] inf"),
    ],
)
def test_a_dead_figure_is_named_and_the_run_is_not_done(tmp_path, scores, own, named):
    run = Run(load_profile("smoke"), "iu-drr", "lora", 0, tmp_path)
    with pytest.raises(NotFinite, match=named):
        record(run, {}, TRAINED | {"own": own}, scores, {}, COSTS)
    assert not run.done
