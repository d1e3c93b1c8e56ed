"""Notebooks open on the published results where the reader has none, say so, and write nothing."""

import nbformat
import papermill
import pytest

from selora.files import NOTEBOOKS, RESULTS, read_json, write_json
from selora.study import laboratory, published
from selora.study.laboratory import open_finished, open_study
from selora.study.profiles import load_profile
from selora.study.published import said_time
from selora.study.results import Run

RECORD = {
    "dataset": "iu-drr", "method": "lora", "seed": 0, "commit": "abc", "device": "CPU, 2 threads", "n": 100,
    "train_seconds": 110.0, "sample_seconds": 10.0, "floor": {"fid": 1.0, "kid": 0.0}, "kid": 0.25,
    "settings": {"base_model": "data/mini-sd", "base_contents": "another"},
}  # fmt: skip


@pytest.fixture
def shown(tmp_path, monkeypatch) -> list:
    """What a notebook shows; published is one run of LoRA."""
    seen = []
    monkeypatch.setattr(laboratory, "display", lambda thing: seen.append(thing.data))
    monkeypatch.setattr(laboratory, "get_ipython", lambda: type("Shell", (), {"user_ns": {"In": []}}))
    for module in (laboratory, published):
        monkeypatch.setattr(module, "PUBLISHED", tmp_path / "published")
    write_json(tmp_path / "published/quick/runs/iu-drr/lora/seed0/result.json", RECORD)
    return seen


def parameters(tmp_path, **changes) -> dict:
    return (
        dict(profile="quick", datasets="", methods="", data_root="", results=str(tmp_path / "own"), executor="local")
        | changes
    )


def test_a_notebook_that_reads_opens_on_the_published_results_until_there_are_own_ones(tmp_path, shown):
    study = open_finished(**parameters(tmp_path))
    assert study.published and study.having("lora") == ["iu-drr"] and study.finished("iu-drr") == ["lora"]
    (banner,) = shown
    for words in ("Published results.", "profile `quick`", "commit abc", "with a former base model", "make run_all"):
        assert words in banner
    own = study.named("iu-drr", "lora")
    write_json(tmp_path / "own/quick" / own.record.relative_to(study.folder), RECORD)
    assert not open_finished(**parameters(tmp_path)).published and len(shown) == 1
    assert not open_finished(**parameters(tmp_path), reads=["selora"]).published  # nor is any of SeLoRA published


def test_where_nothing_is_published_the_readers_own_results_are_opened(tmp_path, shown):
    assert not open_finished(**parameters(tmp_path, profile="smoke")).published
    assert not open_finished(**parameters(tmp_path, datasets="montgomery-drr")).published
    with pytest.raises(FileNotFoundError, match="no run of profile smoke is published: set published = False"):
        open_study(**parameters(tmp_path, profile="smoke"), published=True)
    assert shown == []


def test_a_notebook_that_makes_runs_shows_published_ones_when_asked(tmp_path, shown, capsys):
    study = open_study(**parameters(tmp_path, datasets="iu-drr"), published=True)
    table = study.run("lora", "selora")
    assert list(table.method) == ["lora"] and list(table.kid) == [0.25]
    assert "Not published: selora on iu-drr, seed 0" in capsys.readouterr().out
    assert not (tmp_path / "own").exists()


def test_the_profile_is_the_parameters_else_the_environments_else_quick(tmp_path, shown, monkeypatch):
    monkeypatch.delenv("SELORA_PROFILE", raising=False)
    assert open_study(**parameters(tmp_path, profile="")).profile.name == "quick"
    monkeypatch.setenv("SELORA_PROFILE", "smoke")
    assert open_study(**parameters(tmp_path, profile="")).profile.name == "smoke"
    assert open_study(**parameters(tmp_path, profile="mini")).profile.name == "mini"


def test_the_time_of_runs_is_what_the_published_ones_took(tmp_path, shown):
    runs = [Run(load_profile("quick"), "iu-drr", method, 0, tmp_path) for method in ("lora", "selora")]
    assert said_time(runs).startswith("2 runs to make, training and sampling: about 4 min")
    assert "CPU, 2 threads" in said_time(runs)
    assert "not known" in said_time(runs[1:])


@pytest.mark.parametrize(
    "name",
    [
        "04_lora",
        "09_lambda",
        "10_rank_maps",
        "12_table1",
        "13_samples",
        "14_audit",
        "16_budgets",
        "18_lengths",
        "19_cost",
        "20_use",
    ],
)
def test_in_a_fresh_clone_it_runs_on_the_published_results(tmp_path, name):
    """Under papermill, from the folder of notebooks as JupyterLab starts them. Without 11_controls, which looks at
    every picture of both sets, for minutes."""
    given = {"profile": "quick", "results": str(tmp_path / "results")}
    if name in ("04_lora", "09_lambda", "16_budgets", "18_lengths"):  # they make runs, unless asked not to
        given["published"] = True
    papermill.execute_notebook(
        NOTEBOOKS / f"{name}.ipynb", tmp_path / "out.ipynb", given, progress_bar=False, cwd=NOTEBOOKS
    )
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    texts = [o.data.get("text/markdown", "") for cell in cells for o in cell.get("outputs", []) if "data" in o]
    assert sum(text.startswith("> **Published results.**") for text in texts) == 1
    assert not (tmp_path / "results").exists()


def test_all_that_is_published_is_of_runs_that_are_there():
    """A record, and the settings it was made with, for every folder of a run."""
    for folder in RESULTS.glob("published/*/runs/*/*/*"):
        assert read_json(folder / "result.json")["settings"] == read_json(folder / "settings.json")
