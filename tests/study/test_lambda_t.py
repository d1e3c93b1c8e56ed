"""Thresholds by intervals, from end to end with a tiny base: trainings, their tables, and notebook 19."""

from dataclasses import replace

import matplotlib
import pandas as pd
import pytest
from conftest import scored_base
from test_odd_sets import execute, small_study, write_set

from selora.files import WEIGHTS, write_json
from selora.study import sensitivity, trials
from selora.study.profiles import load_profile
from selora.study.sensitivity import FILES, grid, make_grid, read_grid, why_not

matplotlib.use("Agg")


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of trainings of five steps."""
    return small_study(
        tmp_path,
        monkeypatch,
        "one finding once",
        methods=["lora", "selora"],
        seeds=[1],
        sensitivity={"threshold": [1.0, 9.0], "interval": [2, 4]},
        method_settings={"selora": {"threshold": 1.0, "interval": 2}},
        steps={"other": 5},
    )


def test_the_grid_has_every_pair_and_its_own_settings(study):
    found = grid(study.profile, study.folder.parent)
    pairs = [(trial.values["threshold"], trial.values["interval"]) for trial in found]
    assert pairs == [(1.0, 2), (1.0, 4), (9.0, 2), (9.0, 4)]
    for trial in found:
        settings = trial.run.profile.run_settings("imagefolder", "selora")["method"]
        assert (settings["threshold"], settings["interval"]) == (trial.values["threshold"], trial.values["interval"])
    assert len({trial.run.folder for trial in found}) == 4 and {trial.run.seed for trial in found} == {1}


def test_a_grid_makes_no_run_of_the_study_stale(study):
    own, other = study.profile, replace(study.profile, sensitivity={})
    assert own.run_settings("imagefolder", "selora") == other.run_settings("imagefolder", "selora")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threshold": [1.1]}, "must give values of threshold and of interval"),
        ({"threshold": [1.1], "interval": []}, "must give values of threshold and of interval"),
        ({"threshold": [1.1], "interval": [40], "rank": [1]}, "must give values of threshold and of interval"),
        ({"threshold": [1.1], "interval": [2.5]}, "an interval of sensitivity is 2.5, but must be a number of steps"),
        ({"threshold": [1.1], "interval": [0]}, "an interval of sensitivity is 0, but must be a number of steps"),
    ],
)
def test_values_that_cannot_work_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        replace(load_profile("smoke"), sensitivity=values)


def test_tables_curves_and_what_is_done_is_read(study, monkeypatch):
    table, curves = make_grid(study.profile, study.folder.parent)
    parameters = table.set_index(["threshold", "interval"]).parameters
    layers = sensitivity.layer_sizes(grid(study.profile, study.folder.parent)[0].run.folder / WEIGHTS)
    start = sum(layers.values())
    # at 1 every layer grows at every test, at 9 few do; the weights are those of the end or of a step before
    assert parameters[1.0, 2] in (start, 2 * start, 3 * start) and set(parameters[9.0] < 1.5 * start) == {True}
    events = table.set_index(["threshold", "interval"]).events
    assert events[1.0].to_dict() == {2: 2 * len(layers), 4: len(layers)} and set(events[9.0] < len(layers) / 2) == {
        True
    }
    trial = grid(study.profile, study.folder.parent)[2]
    added = [layers[row["network"], row["layer"]] for row in trial.run.rows("expansions") if row["expanded"]]
    assert len(added) == events[9.0, 2]
    few = curves[(curves.threshold == 9.0) & (curves.interval == 2)]
    assert few.parameters.iloc[-1] == start + sum(added)
    drawn = curves[(curves.threshold == 1.0) & (curves.interval == 2)]
    assert list(zip(drawn.step, drawn.parameters / start, strict=True)) == [(0, 1), (2, 2), (4, 3), (5, 3)]
    monkeypatch.setattr(trials, "train_method", None)  # nothing is trained again
    again = make_grid(study.profile, study.folder.parent)
    kept = read_grid(study.folder)
    for one, other, read in zip((table, curves), again, kept, strict=True):
        pd.testing.assert_frame_equal(one, other)
        pd.testing.assert_frame_equal(one, read, check_dtype=False, rtol=1e-5)


def test_layers_have_the_sizes_that_the_base_has(study):
    study.profile.sensitivity.update(threshold=[1.0], interval=[4])
    table, _ = make_grid(study.profile, study.folder.parent)
    (trial,) = grid(study.profile, study.folder.parent)
    pipe = scored_base()
    found = sensitivity.layer_sizes(trial.run.folder / WEIGHTS)
    for (network, name), size in found.items():
        layer = getattr(pipe, network).get_submodule(name)
        assert size == layer.in_features + layer.out_features
    ranks = trial.run.table("ranks").set_index(["network", "layer"])["rank"]
    assert table.parameters[0] == sum(rank * found[key] for key, rank in ranks.items())


def test_a_training_that_died_keeps_its_place(study):
    """Records of trainings that grew nothing, as they would have been left."""
    for place, trial in enumerate(grid(study.profile, study.folder.parent)):
        dead = place == 2
        losses = {"5": None if dead else 0.5}
        write_json(trial.record, {"losses": losses, "unet_params": 30, "text_encoder_params": 10})
        if not dead:
            pd.DataFrame({"step": [5], "val_loss": [0.5]}).to_csv(trial.run.folder / "history.csv")
    table, curves = make_grid(study.profile, study.folder.parent)
    assert table.val_loss.isna().to_list() == [False, False, True, False] and set(table.parameters) == {40}
    assert curves.empty and list(curves) == ["threshold", "interval", "step", "parameters"]


def test_why_there_is_no_grid_is_said(study, tmp_path):
    assert "names no thresholds and intervals" in why_not(replace(study.profile, sensitivity={}))
    bare = write_set(tmp_path / "bare", "one class only")
    assert "imagefolder has no validation images" in why_not(replace(study.profile, data_root=str(bare)))
    with pytest.raises(ValueError, match="names no thresholds and intervals"):
        make_grid(replace(study.profile, sensitivity={}), tmp_path)


def test_the_notebook_measures_trains_and_answers(study):
    study.profile.sensitivity["threshold"] = [1.0]
    study.run("selora")
    *_, cost, growth = execute("19_cost", study)
    assert cost.data.startswith("A step of selora with a probe takes ") and "(final ones)" in cost.data
    assert growth.data.startswith(
        "Over 2 pairs of lambda and t on imagefolder, seed 1, the least validation loss moves"
    )
    assert "fewer than two were run" in growth.data
    figures = {path.stem for path in (study.folder / "figures").iterdir()}
    assert {"19_cost", "19_lambda_t", "19_growth"} <= figures
    costs = pd.read_csv(study.folder / "cost.csv").set_index("method")
    run = study.named("imagefolder", "selora", 1)
    assert costs.parameters.selora == sum(run.result()[f"{network}_params"] for network in ("unet", "text_encoder"))
    assert costs.file_mb.selora == pytest.approx((run.folder / WEIGHTS).stat().st_size / 2**20, rel=1e-4)
    assert costs.ranks.to_dict() == {"lora": "first", "selora": "final"} and costs.probe.isna().to_dict()["lora"]


def test_published_the_notebook_measures_and_trains_nothing(study, capsys):
    shown = execute("19_cost", replace(study, published=True))
    said = capsys.readouterr().out
    assert shown == [] and "cost.csv is not among the published results" in said and FILES[0] in said
    assert not study.folder.exists()
