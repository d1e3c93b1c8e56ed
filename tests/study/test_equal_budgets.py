"""Equal budgets from end to end, with a tiny base: runs that read two others, and the notebook."""

from dataclasses import replace

import matplotlib
import pandas as pd
import pytest
from test_odd_sets import execute, small_study

matplotlib.use("Agg")
METHODS = ["lora", "selora", "lora-matched", "ranks-selora", "ranks-shuffled", "ranks-increlora", "ranks-gora"]


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of runs of five steps."""
    return small_study(
        tmp_path,
        monkeypatch,
        "one finding once",
        methods=METHODS,
        seeds=[1],
        fewer={"ranks-gora": {"other": 0}},
        method_settings={"selora": {"threshold": 1.5, "interval": 2}, "increlora": {"interval": 2, "growing": 1.0}},
        steps={"other": 5},
    )


def test_runs_at_one_budget_and_their_notebook(study):
    study.run("lora-matched")
    *_, tests, sentence = execute("16_budgets", study)
    assert sentence.data.startswith("On imagefolder, at SeLoRA's number of parameters (to ")
    assert list(tests.score) == ["validation loss", "KID x 1000"] and set(tests.ways) == {4}
    assert (study.folder / "figures" / "16_budgets_imagefolder.png").is_file()
    own = [study.named("imagefolder", method, 1) for method in ("selora", "increlora", "ranks-selora")]
    pd.testing.assert_frame_equal(own[0].table("ranks"), own[2].table("ranks"))
    grown = own[0].result()
    assert own[0].table("ranks")["rank"].nunique() > 1
    for method in ("ranks-selora", "ranks-shuffled", "ranks-increlora"):
        result = study.named("imagefolder", method, 1).result()
        for size in ("unet_params", "text_encoder_params"):
            assert result[size] == pytest.approx(grown[size], rel=0 if method == "ranks-selora" else 0.01)
        assert result["best_val_loss"] > 0
    needs = result["settings"]["needs"]  # of IncreLoRA's ranks
    assert needs == {run.method: run.result()["settings"]["method"] for run in own[:2]}
    assert not study.having("ranks-gora")


def test_without_such_runs_the_notebook_says_so_and_shows_nothing(study, capsys):
    assert execute("16_budgets", replace(study, profile=replace(study.profile, methods=["lora"]))) == []
    assert "no finished run of ranks-selora, so nothing follows" in capsys.readouterr().out
