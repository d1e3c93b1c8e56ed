"""Pictures with controls, and what they replay: records of runs, held against other runs' records."""

import os
from itertools import product

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from selora.figures.replays import ranks_at, replay, replayed, resampled_kid
from selora.files import PUBLISHED
from selora.study import touch as module
from selora.study.laboratory import Study
from selora.study.profiles import load_profile
from selora.study.report.comparison import redrawn
from selora.study.touch import FRONT_ENDS, nobody_in_front, same_noise, touch

matplotlib.use("Agg")
QUICK = Study(load_profile("quick"), PUBLISHED / "quick", published=True)


def recorded(method: str) -> pd.DataFrame:
    return QUICK.named("montgomery-drr", method).table("expansions")


def test_a_replay_of_a_runs_own_settings_is_the_run():
    tests = recorded("selora")
    table = replayed(tests, 1.1, 40).set_index(["step", "network"])
    grown = tests.groupby(["step", "network"])
    assert table.share.to_dict() == pytest.approx(grown.expanded.mean().to_dict())
    assert table["rank"].to_dict() == pytest.approx(grown["rank"].mean().to_dict())


@pytest.mark.parametrize("threshold", [1.0, 1.3])
def test_the_first_test_is_exact_at_any_threshold(threshold):
    """Another run, which had that threshold from the start, let the same layers grow there."""
    other = recorded(f"selora@{threshold}")
    first = other[other.step == other.step.min()].groupby("network").expanded.mean()
    found = replayed(recorded("selora"), threshold, 40)
    assert found[found.step == 40].set_index("network").share.to_dict() == pytest.approx(first.to_dict())


def test_another_interval_leaves_tests_out():
    assert list(replayed(recorded("selora"), 1.1, 80).step.unique()) == [80, 160, 240]


def test_only_what_is_exact_is_filled():
    tests = recorded("selora")
    for interval, exact in ((40, 1), (80, 0)):
        _, right = replay(tests, (1.1, 40), 1.3, interval, "").axes
        filled = [line for line in right.lines if line.get_markerfacecolor() != "white"]
        assert [len(line.get_xdata()) for line in filled] == [exact] * 2


def test_ranks_at_the_step_of_the_scored_weights_are_those_of_the_run():
    run = QUICK.named("montgomery-drr", "selora")
    found = ranks_at(QUICK.expansions("montgomery-drr"), run.result()["best_step"])
    keys = ["network", "layer", "kind", "rank"]
    pd.testing.assert_frame_equal(found[keys].sort_values(keys, ignore_index=True), run.table("ranks").sort_values(
        keys, ignore_index=True)[keys])  # fmt: skip
    start = ranks_at(QUICK.expansions("montgomery-drr"), 0)
    assert set(start["rank"]) == {1} and len(start) == len(found)


def test_draws_are_of_the_seeds_or_the_prompts_that_were_run():
    draws = {0: [0.1, 0.2, 0.3], 1: [0.4, 0.5, 0.9]}
    runs = pd.DataFrame(
        [{"method": "lora", "seed": s, "kid": s + 1.0, "bootstrap": {"kid": d}} for s, d in draws.items()]
        + [{"method": "full", "seed": 0, "kid": 7.0, "bootstrap": {"kid": [7.5, 8.0, 8.5]}}]
    )
    by_prompts = redrawn(runs, "kid", "prompts", 3)
    assert by_prompts.lora.tolist() == pytest.approx([0.25, 0.35, 0.6]) and by_prompts.full.tolist() == [7.5, 8.0, 8.5]
    by_seeds = redrawn(runs, "kid", "seeds", 40)
    assert set(by_seeds.lora) == {1.0, 1.5, 2.0} and set(by_seeds.full) == {7.0}
    both = redrawn(runs, "kid", "seeds and prompts", 60).lora.round(9)
    possible = [np.mean([draws[a][i], draws[b][i]]) for a, b in product(draws, repeat=2) for i in range(3)]
    assert set(both) == {round(p, 9) for p in possible}


def test_how_often_a_method_is_the_best_is_counted():
    draws = pd.DataFrame({"lora": [0.1, 0.3, 0.3, 0.3], "selora": [0.2, 0.2, 0.2, 0.2]})
    _, right = resampled_kid(draws, draws.mean(), 0, "").axes
    assert [bar.get_width() for bar in right.patches] == [75, 25]  # SeLoRA first: the better mean


@pytest.fixture
def shown(monkeypatch):
    for name in FRONT_ENDS:
        monkeypatch.delenv(name, raising=False)
    seen = []
    monkeypatch.setattr(module, "display", seen.append)
    return seen


class Saves:
    """What `touch` needs of a study."""

    def save(self, figure: object, name: str) -> str:
        return f"{name}: {figure}"


CHOICES = {"λ": ([1.0, 1.1, 1.2], 1.1), "drawn": (["seeds", "prompts"], "seeds")}


def test_without_a_front_end_there_is_one_still_picture(shown):
    touch(Saves(), "9_replay", lambda λ, drawn: f"{λ} {drawn}", CHOICES)
    assert shown == ["9_replay: 1.1 seeds"]


def test_in_a_front_end_every_choice_has_a_control_that_draws_anew(shown, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "notebooks/09_lambda.ipynb")
    drawn = []

    def draw(**values) -> Figure:
        drawn.append(values)
        return Figure()

    touch(Saves(), "9_replay", draw, CHOICES)
    (box,) = [one for one in shown if hasattr(one, "children")]
    slider, words, _ = box.children
    assert slider.options == (1.0, 1.1, 1.2) and slider.value == 1.1 and words.value == "seeds"
    slider.value = 1.2
    assert drawn[-1] == {"λ": 1.2, "drawn": "seeds"}
    words.value = "prompts"
    assert drawn[-1] == {"λ": 1.2, "drawn": "prompts"}


def test_kernels_started_here_show_still_pictures(shown, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "notebooks/run_all.ipynb")
    monkeypatch.setenv("TQDM_DISABLE", "0")
    nobody_in_front()
    assert not set(FRONT_ENDS) & set(os.environ) and os.environ["TQDM_DISABLE"] == "1"


def test_published_samples_of_one_prompt_stand_beside_their_reference(monkeypatch, shown):
    figures = []
    monkeypatch.setattr(Study, "save", lambda self, figure, name: figures.append(figure))
    same_noise(QUICK, "montgomery-drr", "13_same_noise")
    titles = [axis.get_title(loc="left") for axis in figures[0].axes]
    assert titles == ["reference, rendered", "base", "full", "lora", "dylora", "adalora", "selora"]


def test_where_there_are_no_samples_that_is_said(tmp_path, capsys):
    same_noise(Study(load_profile("quick"), tmp_path / "quick"), "montgomery-drr", "13_same_noise")
    assert "no samples are here" in capsys.readouterr().out
