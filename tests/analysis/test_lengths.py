"""Runs of other lengths: where they lie, and what is said of them."""

from dataclasses import replace

import pandas as pd
import pytest

from selora.analysis.lengths import by_length, collect, curves, sentence
from selora.figures.runs import lengths_figure
from selora.files import write_json, write_text
from selora.study.beside import runs_of_lengths
from selora.study.grid import is_named
from selora.study.profiles import load_profile
from selora.study.results import Run

KID = {  # by steps, of seeds 0, 1, 2
    300: {"lora": [0.20, 0.22, 0.24], "selora": [0.26, 0.25, 0.27]},
    1200: {"lora": [0.15, 0.16, 0.14], "selora": [0.13, 0.17, 0.12]},
}


@pytest.fixture
def profile():
    return replace(load_profile("mini", datasets="iu-drr", methods="lora,selora"), lengths={"iu-drr": [300]})


def write_records(runs: list[Run]) -> None:
    for run in runs:
        kid = KID[run.profile.steps_of(run.dataset)][run.method][run.seed]
        found = {"dataset": run.dataset, "method": run.method, "seed": run.seed, "kid": kid}
        write_json(run.record, found | {"best_val_loss": None})


def whole(profile, results) -> list[Run]:
    return [Run(profile, "iu-drr", method, seed, results) for method in ("lora", "selora") for seed in range(3)]


def test_shorter_runs_are_of_three_seeds_in_folders_and_with_settings_of_their_own(profile, tmp_path):
    runs = runs_of_lengths(profile, tmp_path)
    assert {(run.method, run.seed) for run in runs} == {(m, s) for m in ("lora", "selora") for s in (0, 1, 2)}
    assert all(run.folder.is_relative_to(tmp_path / "mini/lengths/steps=300") for run in runs)
    settings = profile.run_settings("iu-drr", "lora")
    assert runs[0].profile.run_settings("iu-drr", "lora") == settings | {"steps": 300}
    assert replace(profile, lengths={}).run_settings("iu-drr", "lora") == settings  # finished runs stay finished
    assert runs_of_lengths(replace(profile, datasets=["montgomery-drr"]), tmp_path) == []


def test_what_a_cluster_can_be_told_by_names_is_no_run_of_another_length(tmp_path):
    profile = load_profile("mini")
    assert is_named(Run(profile, "iu-drr", "lora", 0)) and is_named(Run(profile, "iu-drr", "selora@1.2", 0))
    assert not any(is_named(run) for run in runs_of_lengths(profile, tmp_path))


def test_scores_by_length_are_those_of_the_records(profile, tmp_path):
    write_records([*runs_of_lengths(profile, tmp_path), *whole(profile, tmp_path)])
    table = by_length(collect(profile, tmp_path)).set_index(["steps", "method"])
    assert set(table.score) == {"KID x 1000"}  # there is no validation loss in these records
    assert table["mean"].to_dict() == pytest.approx(
        {(300, "lora"): 220, (300, "selora"): 260, (1200, "lora"): 150, (1200, "selora"): 140}
    )
    assert table["sd"][300, "lora"] == pytest.approx(20)
    assert list(table.place) == [1, 2, 2, 1] and set(table.seeds) == {3}
    assert table["less LoRA"][1200, "selora"] == pytest.approx(-10)
    assert list(table.worse) == ["", "3 of 3", "", "1 of 3"]


def test_the_sentence_says_whether_the_order_changes_and_claims_no_proof(profile, tmp_path):
    write_records([*runs_of_lengths(profile, tmp_path), *whole(profile, tmp_path)])
    runs = collect(profile, tmp_path)
    words = sentence(by_length(runs))
    assert words.startswith(
        "On iu-drr, by KID x 1000, the order changes with length: after 300 steps lora (220), selora (260); "
        "after 1200 steps selora (140), lora (150). SeLoRA gains on LoRA with training: +40 after 300 steps and -10"
    )
    assert "too few for an interval" in words
    worse = runs.assign(kid=runs.kid + 0.1 * (runs.method == "selora") * (runs.steps == 1200))
    assert "the order of methods is the same at every length" in sentence(by_length(worse))
    assert "SeLoRA loses to LoRA with training: +40 after 300 steps and +90 after 1200" in sentence(by_length(worse))
    assert "cannot be told" in sentence(by_length(runs[runs.steps == 300]))
    assert "cannot be told" in sentence(by_length(runs[runs.method == "lora"]))


def test_the_picture_has_a_curve_for_each_seed_and_a_point_for_each_run(profile, tmp_path):
    runs = whole(profile, tmp_path)
    write_records([*runs_of_lengths(profile, tmp_path)[:1], *runs])
    for run in runs:
        write_text(run.folder / "history.csv", "step,epoch,train_loss,val_loss\n1,1,0.9,\n2,1,0.8,0.7\n3,2,0.8,0.6\n")
    found = curves(profile, tmp_path, "iu-drr")
    assert len(found) == 12 and list(found.val_loss.unique()) == [0.7, 0.6]
    left, right = lengths_figure(found, collect(profile, tmp_path), "iu-drr").axes
    assert len(left.lines) == 6 and sum(len(points.get_offsets()) for points in right.collections) == 7


def test_without_runs_there_are_no_rows(profile, tmp_path):
    assert by_length(collect(profile, tmp_path)).empty
    assert isinstance(curves(profile, tmp_path, "iu-drr"), pd.DataFrame)


@pytest.mark.parametrize("lengths", [{"iu-drr": [300, 0]}, {"elsewhere": [3]}])
def test_a_length_of_no_steps_or_of_an_unknown_set_is_refused(lengths):
    with pytest.raises(ValueError, match="elsewhere|lengths of iu-drr is 0, but must be"):
        replace(load_profile("mini"), lengths=lengths)
