"""A study that is made in sittings: what is kept of it between them, and that nothing is lost on the way."""

import shutil

import pytest

from selora.files import PUBLISHED
from selora.study.grid import make_runs
from selora.study.profiles import load_profile
from selora.study.report.publish import publish_begun
from selora.study.results import Run

QUICK = load_profile("quick")
RUNS = [("montgomery-drr", "selora"), ("montgomery-drr", "lora"), ("iu-drr", "base")]


@pytest.fixture
def folder(tmp_path):
    """A sitting's results: three finished runs, and one under way."""
    for dataset, method in RUNS:
        place = f"runs/{dataset}/{method}/seed0"
        shutil.copytree(PUBLISHED / "quick" / place, tmp_path / "first" / "quick" / place)
    under_way = tmp_path / "first/quick/runs/iu-drr/full/seed0"
    under_way.mkdir(parents=True)
    (under_way / "settings.json").write_text("{}")
    shutil.copytree(PUBLISHED / "quick/runs/iu-drr/full/seed0/samples", under_way / "samples")
    return tmp_path / "first" / "quick"


def contents(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_copy_of_what_is_kept_is_finished_runs_with_their_samples(folder, tmp_path):
    kept = tmp_path / "begun" / "quick"
    publish_begun(folder, kept)
    assert {path.parent.relative_to(kept).as_posix() for path in kept.glob("runs/*/*/*/settings.json")} == {
        f"runs/{dataset}/{method}/seed0" for dataset, method in RUNS
    }
    runs = [Run(QUICK, dataset, method, 0, kept.parent) for dataset, method in RUNS]
    assert make_runs(runs) == [Run(QUICK, dataset, method, 0, PUBLISHED).result() for dataset, method in RUNS]
    assert all(len(list((run.folder / "samples").iterdir())) == 20 for run in runs)
    assert not (kept / "runs/iu-drr/full").exists()
    assert (kept / "table1.csv").read_text().count("montgomery-drr,") == 2


def test_a_sitting_that_makes_nothing_keeps_the_same_files(folder, tmp_path):
    kept, again = tmp_path / "begun" / "quick", tmp_path / "again"
    publish_begun(folder, kept)
    before = contents(kept)
    shutil.copytree(kept, again / "quick")
    publish_begun(again / "quick", kept)
    assert contents(kept) == before


def test_trials_are_kept_before_any_run_is_finished_with_what_controls_read_of_them(folder, tmp_path):
    trained = shutil.copytree(folder / "runs/montgomery-drr/selora/seed0", tmp_path / "trained")
    shutil.rmtree(folder / "runs")
    names = {"trial.json", "settings.json", "ranks.csv", "expansions.csv"}
    place = "tuning/learning_rate=0.003/quick/runs/iu-drr/selora/seed1000"
    (folder / place).mkdir(parents=True)
    (folder / place / "trial.json").write_text('{"losses": {"120": 0.5}}')
    (folder / place / "checkpoint.safetensors").write_bytes(b"")
    for name in ("settings.json", "ranks.csv", "expansions.csv"):
        shutil.copyfile(trained / name, folder / place / name)
    publish_begun(folder, tmp_path / "kept")
    assert set(contents(tmp_path / "kept")) == {f"{place}/{name}" for name in names}


def test_where_no_run_is_finished_what_was_kept_stays(folder, tmp_path):
    publish_begun(folder, tmp_path / "kept")
    before = contents(tmp_path / "kept")
    shutil.rmtree(folder / "runs")
    with pytest.raises(FileNotFoundError, match="no finished run"):
        publish_begun(folder, tmp_path / "kept")
    assert contents(tmp_path / "kept") == before
