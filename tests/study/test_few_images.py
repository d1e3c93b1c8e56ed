"""Runs on few images, and notebook 20 from end to end, with a tiny base on a set of thirty pictures."""

from dataclasses import replace

import matplotlib
import pandas as pd
import pytest
from test_odd_sets import execute, small_study

from selora.data import load_examples
from selora.data.subset import few_of
from selora.study import few_images, stages
from selora.study.few_images import few_image_runs, pictures_of
from selora.study.fingerprints import settings_of
from selora.study.profiles import load_profile

matplotlib.use("Agg")
N = 8


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study that asks for LoRA on N of the set's 22 training pictures."""
    monkeypatch.setattr(few_images, "DATASET", "imagefolder")
    return small_study(tmp_path, monkeypatch, "one class only", methods=["base", "lora"], utility={"lora": [N]})


def test_few_images_are_part_of_a_runs_identity_and_all_of_them_are_not():
    profile = load_profile("smoke")
    assert not {"train_images", "utility"} & set(profile.run_settings("iu-drr", "lora"))
    few = replace(profile, train_images=N).run_settings("iu-drr", "lora")
    assert few == profile.run_settings("iu-drr", "lora") | {"train_images": N}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": 5}, "profile smoke: train_images is 5, but must be 6 or more"),
        ({"train_images": 8.0}, "train_images is 8.0, but must be of the kind int | None"),
        ({"utility": {"lora": []}}, r"utility of lora is \[\], but must name numbers of images, each 6 or more"),
        ({"utility": {"lora": [50, 5]}}, r"utility of lora is \[50, 5\], but must"),
        ({"utility": {"lohra": [50]}}, "unknown method 'lohra'"),
    ],
)
def test_numbers_that_cannot_be_scored_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(load_profile("smoke"), **changes)


def test_the_runs_are_those_of_the_profile_in_folders_of_their_own(tmp_path):
    mini = load_profile("mini")
    runs = few_image_runs(mini, tmp_path)
    assert [*runs] == [(method, n) for method in ("lora", "selora") for n in (50, 100, 400)]
    assert len({run.folder for run in runs.values()}) == 6 and {run.seed for run in runs.values()} == {mini.seeds[0]}
    assert all(run.profile == replace(mini, train_images=n) for (_, n), run in runs.items())
    assert runs["lora", 50].folder == tmp_path / "mini/utility/n=50/mini/runs/iu-drr/lora/seed0"
    assert few_image_runs(replace(mini, datasets=["montgomery-drr"]), tmp_path) == {}
    assert [*few_image_runs(replace(mini, methods=["selora"], utility={"lora": [50]}), tmp_path)] == []
    assert few_image_runs(load_profile("quick"), tmp_path) == {}


def test_a_training_on_few_images_sees_them_alone(study):
    (run,) = few_image_runs(study.profile, study.folder.parent).values()
    found = stages.prepare_training(run, settings_of(run), {}).examples
    splits = {name: load_examples("imagefolder", name, study.profile.data_root) for name in ("train", "test")}
    assert found["train"] == few_of(splits["train"], N) and len(found["train"]) == N
    assert found["test"] == splits["test"] and not {e.id for e in found["test"]} & {e.id for e in found["train"]}


def test_notebook_20_makes_its_runs_once_and_ends_in_two_sentences(study, capsys):
    *_, utility, copies = execute("20_use", study)
    assert "cannot be told: no finding is frequent enough" in utility.data  # all pictures have the same one
    assert copies.data.startswith("Of pictures made for prompts of the test split, ")
    table = pd.read_csv(study.folder / "copies.csv").fillna({"prompts": ""})
    assert set(table.method) == {"lora", "references held out", "copies with noise", "autoencoder's copies"}
    assert set(table.space) == {"efficientnet-lite0", "mini-clip", "pixels"}
    assert dict(zip(table.prompts, table.pictures, strict=True))["training"] == N
    assert {path.name for path in (study.folder / "figures").iterdir()} == {"20_copies.png", "20_nearest.png"}
    assert "1 run to make" in capsys.readouterr().out

    (run,) = few_image_runs(study.profile, study.folder.parent).values()
    assert run.result()["settings"]["train_images"] == N
    chosen = few_of(load_examples("imagefolder", "train", study.profile.data_root), N)
    made = sorted((run.folder / "pictures").iterdir())
    assert [path.stem for path in made] == sorted(e.id for e in chosen)
    before, times = made[0].read_bytes(), [path.stat().st_mtime_ns for path in made]
    pictures_of(run, chosen)
    assert [path.stat().st_mtime_ns for path in made] == times
    made[0].unlink()
    pictures_of(run, chosen)
    assert made[0].read_bytes() == before

    shown = execute("20_use", replace(study, published=True))  # as published: the tables and sentences alone
    assert [thing.data for thing in shown if getattr(thing, "data", None) == copies.data] == [copies.data]


def test_weights_that_cannot_be_read_are_named(study):
    run = replace(next(iter(few_image_runs(study.profile, study.folder.parent).values())), method="qlora")
    with pytest.raises(ValueError, match="weights of qlora are in a format that is not read here: take it out of the"):
        pictures_of(run, load_examples("imagefolder", "train", study.profile.data_root)[:N])


def test_a_profile_that_asks_for_none_says_so_and_shows_nothing(study, capsys):
    assert execute("20_use", replace(study, profile=replace(study.profile, utility={}))) == []
    assert "Profile smoke asks for no run on few images" in capsys.readouterr().out
    assert not study.folder.exists()
