"""The notebooks run on with sets that lack what the study's own have: findings, validation, more than 30 pictures."""

from dataclasses import replace
from functools import partial

import matplotlib
import nbformat
import numpy as np
import pytest
from conftest import scored_base
from PIL import Image

from selora.data.example import Example
from selora.figures.examples import by_finding, clearest
from selora.files import NOTEBOOKS
from selora.study import stages
from selora.study.laboratory import Study
from selora.study.profiles import load_profile

matplotlib.use("Agg")
KINDS = {  # of 30 pictures: the findings of the i-th, and its split
    "no findings, no validation": (lambda i: "", None),
    "one finding once": (lambda i: "nodule" if i == 3 else "", ("train", "test", "val")),
    "one class only": (lambda i: "device", ("train", "test")),
    "one finding once, in the test split": (lambda i: "scoliosis;nodule" if i == 29 else "normal", ("train", "test")),
}


def write_set(folder, kind: str):
    """Thirty pictures of noise with a table, of which eight are for testing."""
    findings, splits = KINDS[kind]
    folder.mkdir()
    rng, rows = np.random.default_rng(0), ["file_name,text,findings" + (",split" if splits else "")]
    for i in range(30):
        Image.fromarray(rng.integers(0, 256, (112, 112), dtype=np.uint8)).save(folder / f"{i}.png")
        split = "test" if i >= 22 else "val" if splits and "val" in splits and i >= 18 else "train"
        rows.append(f"{i}.png,heart {i} clear,{findings(i)}" + (f",{split}" if splits else ""))
    (folder / "metadata.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder


def execute(name: str, study: Study) -> list:
    """The code of a notebook but for its parameters and the line that opens the study; what it displays."""
    shown = []
    names = {"study": study, "display": lambda *things: shown.extend(things)}
    for cell in nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells:
        if cell.cell_type == "code" and "study = open_" not in cell.source and "tags" not in cell.metadata:
            exec(cell.source, names)
    return shown


def small_study(tmp_path, monkeypatch, kind: str, datasets: str = "imagefolder", **changes) -> Study:
    """A study of short runs of a tiny base, on a set of some kind. changes: of its profile, beyond smoke's."""
    monkeypatch.setattr(stages, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(stages, "DIVERSITY", (1, 2))
    scored_base().save_pretrained(tmp_path / "base")
    profile = load_profile("smoke", datasets=datasets, data_root=str(write_set(tmp_path / "set", kind)))
    small = {"resolution": 112, "steps": {"other": 2}, "images": 6, "sampling_steps": 1, "validation_images": 2}
    profile = replace(profile, base_model=str(tmp_path / "base"), **(small | changes))
    return Study(profile, tmp_path / "results" / "smoke")


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """A study of two short runs on a set of some kind, and on one of the study's own beside it."""
    return partial(small_study, tmp_path, monkeypatch, methods=["base", "lora"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_notebook_on_data_shows_any_set(opened, kind):
    study = opened(kind)
    execute("01_data", study)
    assert (study.folder / "figures" / "1_data_imagefolder.png").is_file()


@pytest.mark.parametrize("kind", ["no findings, no validation", "one finding once, in the test split"])
def test_runs_tables_samples_and_controls_go_on(opened, kind):
    study = opened(kind)
    for book in ("02_base", "04_lora", "11_controls", "12_table1", "13_samples"):
        execute(book, study)
    figures = {path.stem for path in (study.folder / "figures").iterdir()}
    assert {"4_lora_loss", "11_damage_imagefolder", "12_kid", "13_findings_imagefolder"} <= figures
    assert "| imagefolder |" in (study.folder / "table1.md").read_text(encoding="utf-8")


def test_several_sets_at_once_share_the_notebook_on_data(opened):
    execute("01_data", opened("no findings, no validation", "imagefolder,montgomery-drr,iu-drr"))


def made(*findings: str) -> list[Example]:
    return [Example(str(i), NOTEBOOKS, f"prompt {i}", tuple(f.split("+")) if f else ()) for i, f in enumerate(findings)]


def test_examples_are_found_for_any_set():
    assert {k: [e.id for e in v] for k, v in by_finding(made("a", "a+b", "a", "")).items()} == {
        "a": ["0", "2"],
        "b": ["1"],
    }
    assert list(by_finding(made(*8 * [""]))) == ["0", "1", "2", "3", "4", "5"]
    assert list(clearest("imagefolder", made("nodule", "", "nodule+cavity"))) == ["nodule", "cavity"]
    assert list(clearest("imagefolder", made("device", ""))) == ["0", "1"]  # of which none can be shown
