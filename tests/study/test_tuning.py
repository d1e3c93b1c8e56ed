"""Tuning: which trials are trained how far, by losses that are made up; and for real, on a set of twenty pictures."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import scored_base
from PIL import Image

from selora.diffusion.finite import NotFinite
from selora.files import read_json
from selora.methods import METHODS
from selora.study import stages, trials, tuning
from selora.study.profiles import load_profile
from selora.study.tuning import beyond, grid, lines, table, tune, tune_method


@pytest.fixture
def made_up(monkeypatch):
    """The trainings asked for, as (rate, steps); the loss of a trial is least at a rate, and infinite above another."""
    asked, settings = [], {"best": 3e-3, "dies": 1.0, "killed": None}

    class Parts:
        networks = {}

    def train(run, own, prepared, steps):
        rate = own["method"]["learning_rate"]
        if settings["killed"] == (rate, steps):
            raise KeyboardInterrupt
        asked.append((rate, steps))
        if rate >= settings["dies"]:
            raise NotFinite("the loss is nan")
        return {"history": [{"val_loss": 1 / steps + abs(math.log(rate / settings["best"]))}]}

    monkeypatch.setattr(trials, "settings_of", lambda run: run.profile.run_settings(run.dataset, run.method))
    monkeypatch.setattr(trials, "prepare_training", lambda run, own, earlier: Parts())
    monkeypatch.setattr(trials, "train_method", train)
    return asked, settings


def profile(methods: str = "lora"):
    return replace(load_profile("smoke", datasets="iu-drr", methods=methods), steps={"iu-drr": 50})


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_four_trials(method):
    found = grid(method)
    assert len(found) == len({tuple(values.items()) for values in found}) == 4
    assert all(set(values) <= {*METHODS[method][1], "learning_rate"} for values in found)


def test_all_go_to_a_fifth_and_the_best_two_to_the_end(made_up, tmp_path):
    asked, settings = made_up
    trials = tune_method(profile(), "lora", tmp_path, {})
    assert asked == [(1e-3, 10), (3e-3, 10), (1e-2, 10), (3e-2, 10), (3e-3, 50), (1e-3, 50)]
    assert trials[0].values == {"learning_rate": 3e-3}


@pytest.mark.parametrize(("best", "further"), [(2e-3 / 3, 3e-4), (9e-2, 9e-2)])
def test_a_best_one_at_an_end_has_one_more_beyond_it(made_up, tmp_path, best, further):
    asked, settings = made_up
    settings["best"] = best
    trials = tune_method(profile(), "lora", tmp_path, {})
    assert asked[-1] == (further, 50) and len(asked) == 7
    assert trials[0].values["learning_rate"] == min((further, 1e-3, 3e-2), key=lambda r: abs(math.log(r / best)))


def test_beyond_keeps_the_scaling():
    tried = [{"learning_rate": rate, "alpha": alpha} for rate in (1e-2, 3e-2) for alpha in (2, 8)]
    assert beyond(tried, tried[1]) == {"learning_rate": 3e-3, "alpha": 8}


def test_a_killed_tuning_goes_on_and_a_done_one_is_read(made_up, tmp_path):
    asked, settings = made_up
    settings["killed"] = (3e-3, 50)
    with pytest.raises(KeyboardInterrupt):
        tune(profile(), tmp_path)
    settings["killed"] = None
    tune(profile(), tmp_path)
    assert len(asked) == len(set(asked)) == 6
    before = (tmp_path / "smoke" / "tuning.csv").read_text()
    tune(profile(), tmp_path)
    assert len(asked) == 6 and (tmp_path / "smoke" / "tuning.csv").read_text() == before
    with pytest.raises(ValueError, match="other settings"):
        tune(replace(profile(), batch_size=2), tmp_path)


def test_a_trial_whose_numbers_die_is_recorded_and_not_chosen(made_up, tmp_path):
    asked, settings = made_up
    settings.update(best=3e-2, dies=3e-2)
    found = table({"lora": tune_method(profile(), "lora", tmp_path, {})})
    assert found[found.val_loss.isna()].learning_rate.tolist() == [3e-2]
    assert found[found.chosen].learning_rate.tolist() == [1e-2]


def test_the_lines_are_a_profile_s_own(made_up, tmp_path):
    text = lines(profile("lora,selora"), tune(profile("lora,selora"), tmp_path))
    found = yaml.safe_load(text)["method_settings"]
    assert found["lora"] == {"learning_rate": 3e-3}
    assert found["selora"] == profile().method_settings["selora"] | {"learning_rate": 3e-3}
    assert replace(profile(), method_settings=found).run_settings("iu-drr", "lora")["method"]["learning_rate"] == 3e-3
    assert "# 0.0200, 1.1186 at 0.001" in text


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A profile of five steps on twenty pictures of noise, with a tiny base."""
    scored_base().save_pretrained(tmp_path / "base")
    rng, rows = np.random.default_rng(0), ["file_name,text,split"]
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (112, 112), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,heart {i} clear,{'train' if i < 8 else 'val' if i < 14 else 'test'}")
    (tmp_path / "metadata.csv").write_text("\n".join(rows), encoding="utf-8")
    monkeypatch.setattr(stages, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(tuning, "DATASET", "imagefolder")
    return replace(
        load_profile("smoke", datasets="imagefolder", methods="selora,lora-matched", data_root=str(tmp_path)),
        base_model=str(tmp_path / "base"),
        resolution=112,
        steps={"other": 5},
        method_settings={"selora": {"threshold": 1.0, "interval": 2}},
    )


def test_for_real_the_choice_has_the_loss_of_a_whole_run_and_controls_build_on_it(small, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "RATES", (1e-3, 3e-3))
    chosen = tune(small, tmp_path / "results")
    found = pd.read_csv(tmp_path / "results" / "smoke" / "tuning.csv")
    assert (tmp_path / "results" / "smoke" / "figures" / "tuning.png").exists()
    assert set(found.steps) == {1, 5} and found.chosen.sum() == 2
    best = chosen["selora"][0]
    matched = read_json(chosen["lora-matched"][0].record)
    for network in ("unet_params", "text_encoder_params"):
        assert matched[network] == pytest.approx(read_json(best.record)[network], rel=0.05)
    again = replace(best.run, results=tmp_path / "again")  # in one go, not stopped at the first step
    settings = trials.settings_of(again)
    whole = stages.train_method(again, settings, stages.prepare_training(again, settings, {}))
    assert whole["history"][-1]["val_loss"] == best.losses[5]
