"""Committed notebooks are clean, take the same parameters, and refuse unknown ones."""

from dataclasses import replace
from pathlib import Path

import nbformat
import papermill
import pytest

from selora.files import NOTEBOOKS, write_text
from selora.methods import METHODS
from selora.study import fingerprints, notebooks
from selora.study.fingerprints import hash_inputs
from selora.study.laboratory import Study
from selora.study.notebooks import (
    METHODS_OF,
    numbered,
    run_notebooks,
    said_threads,
    seconds_left,
    usual_seconds,
)
from selora.study.parameters import check_parameters
from selora.study.profiles import load_profile

BOOKS = sorted(NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_no_outputs_and_exactly_one_parameters_cell(path):
    book = nbformat.read(path, as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in book.cells) == 1
    title, *_ = book.cells[0].source.splitlines()
    assert book.cells[0].cell_type == "markdown" and title.startswith("# ")
    assert "$" not in title, "the site's contents show titles where there is no mathematics"


def test_all_notebooks_of_a_run_take_the_same_parameters():
    run = [path for path in BOOKS if path.stem != "download"]
    known = {path.stem: {*papermill.inspect_notebook(path)} for path in run}
    assert len({frozenset(names - {"published"}) for names in known.values()}) == 1, known
    assert {stem for stem, names in known.items() if "published" in names} == {*METHODS_OF} - {"10_rank_maps"}


def test_methods_choose_the_notebooks():
    stems = [path.stem for path in numbered(["base", "lora"])]
    always = ["11_controls", "12_table1", "13_samples", "14_audit", "15_elsewhere", "17_criteria", "19_cost", "20_use"]
    assert stems == sorted(["01_data", "02_base", "04_lora", *always, "18_lengths"])
    assert "08_further" in [path.stem for path in numbered(["base", "eva"])]
    assert "16_budgets" in [path.stem for path in numbered(["ranks-gora"])]
    assert set(METHODS_OF) < {path.stem for path in BOOKS}


def test_every_method_has_a_notebook():
    assert set().union(*METHODS_OF.values()) == set(METHODS)


def test_a_notebooks_title_has_its_number():
    for path in BOOKS:
        title = nbformat.read(path, as_version=4).cells[0].source.splitlines()[0]
        number = path.stem.partition("_")[0]
        assert title.startswith(f"# {int(number)}. ") if number.isdigit() else title.startswith("# "), path.stem


def test_which_runs_the_ablation_and_fewer_seeds_mean(monkeypatch, tmp_path):
    """Thresholds on the first seed and on the data sets named; SeLoRA's own threshold is run already."""
    profile = replace(
        load_profile("smoke"),
        seeds=[3, 4],
        fewer={"eva": {"other": 1}, "gora": {"iu-drr": 0}},
        ablation=[1.0, 1.1, 1.5],
        ablation_datasets=["montgomery-drr"],
        method_settings={"selora": {"threshold": 1.1}},
    )
    runs = []
    monkeypatch.setattr(Study, "make", lambda self, wanted: runs.extend(wanted))
    study = Study(profile, tmp_path / "smoke")
    study.run_ablation()
    named = [(run.dataset, run.method, run.seed) for run in runs]
    assert named == [("montgomery-drr", "selora@1.0", 3), ("montgomery-drr", "selora@1.5", 3)]
    runs.clear()
    study.run("sora", "eva", "gora")
    named = {name: [(run.method, run.seed) for run in runs if run.dataset == name] for name in profile.datasets}
    assert named["iu-drr"] == [("sora", 3), ("sora", 4), ("eva", 3)]
    assert named["montgomery-drr"] == [("sora", 3), ("sora", 4), ("eva", 3), ("gora", 3), ("gora", 4)]
    settings = profile.run_settings("iu-drr", "lora")
    assert not {"fewer", "ablation", "ablation_datasets"} & set(settings)
    with pytest.raises(ValueError, match="unknown method 'evva'"):
        replace(profile, fewer={"evva": {"iu-drr": 1}})


def test_an_unknown_parameter_is_named_with_the_choices():
    declared = 'profile = "quick"  # which\nseeds = ""'
    check_parameters(["", declared, '# Parameters\nprofile = "smoke"\n', "x = 1"])
    with pytest.raises(ValueError, match="unknown parameter profil: choose from profile, seeds"):
        check_parameters(["", declared, '# Parameters\nprofil = "smoke"\n'])


def test_an_unknown_parameter_fails_under_papermill(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="unknown parameter profil"):
        papermill.execute_notebook(
            NOTEBOOKS / "run_all.ipynb", tmp_path / "out.ipynb", {"profil": "smoke"}, progress_bar=False
        )


def write_book(path: Path, *cells: str) -> Path:
    """A notebook of code cells, the first of which holds its parameters."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    book.cells[0].metadata["tags"] = ["parameters"]
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, path)
    return path


WAITS = """
import os, time
from pathlib import Path
here, there = Path(folder, "{own}"), Path(folder, "{other}")
here.write_text(os.environ["OMP_NUM_THREADS"])
while not there.exists():
    time.sleep(0.1)
"""


def test_on_cores_notebooks_run_side_by_side_with_one_thread_each(tmp_path, monkeypatch):
    """Each of the two waits for what the other writes: one after the other they would never end."""
    monkeypatch.setattr(notebooks, "at_once", lambda jobs: min(2, jobs))
    books = [
        write_book(tmp_path / "1_a.ipynb", 'folder = ""\nexecutor = ""', WAITS.format(own="a", other="b")),
        write_book(tmp_path / "2_b.ipynb", 'folder = ""\nexecutor = ""', WAITS.format(own="b", other="a")),
    ]
    run_notebooks(books, {"folder": str(tmp_path), "executor": "cores"}, tmp_path / "out")
    assert [(tmp_path / name).read_text() for name in "ab"] == ["1", "1"]
    assert sorted(path.name for path in (tmp_path / "out/notebooks").iterdir()) == ["1_a.ipynb", "2_b.ipynb"]


def test_on_cores_a_failing_notebook_is_named_and_ends_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "at_once", lambda jobs: min(2, jobs))
    books = [
        write_book(tmp_path / "1_waits.ipynb", 'folder = ""\nexecutor = ""', WAITS.format(own="a", other="never")),
        write_book(tmp_path / "2_fails.ipynb", 'folder = ""\nexecutor = ""', "1 / 0"),
    ]
    with pytest.raises(RuntimeError, match="2_fails.ipynb failed with ZeroDivisionError: division by zero"):
        run_notebooks(books, {"folder": str(tmp_path), "executor": "cores"}, tmp_path / "out")


def test_a_failing_notebook_is_named_with_its_error_and_ends_the_rest(tmp_path):
    books = [write_book(tmp_path / f"{name}.ipynb", 'folder = ""', "1 / 0") for name in ("1_fails", "2_never")]
    with pytest.raises(ValueError, match="1_fails.ipynb has no parameter profile: it has folder"):
        run_notebooks(books, {"profile": "smoke"}, tmp_path / "out")
    with pytest.raises(RuntimeError, match="1_fails.ipynb failed with ZeroDivisionError: division by zero"):
        run_notebooks(books, {"folder": "x"}, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out" / "notebooks").iterdir()] == ["1_fails.ipynb"]


def test_nothing_is_executed_where_there_is_nothing_to_make(tmp_path, monkeypatch, capsys):
    """Again it is once an input, a parameter, a notebook, or a file that was left is another."""
    book, executed = tmp_path / "1_book.ipynb", []
    book.write_text("{}", encoding="utf-8")
    folder = tmp_path / "smoke"
    table = folder / "table1.csv"

    def execute(notebooks, parameters, folder):
        executed.append(parameters)
        write_text(table, "kid")
        write_text(folder / "runs/iu-drr/lora/seed0/result.json", "{}")

    monkeypatch.setattr(notebooks, "execute", execute)

    def count(parameters=None, inputs="a") -> int:
        run_notebooks([book], parameters or {"profile": "smoke"}, folder, inputs)
        write_text(folder / "index.html", str(len(executed)))  # as run_all does in the end
        return len(executed)

    assert [count(), count()] == [1, 1]
    assert "Nothing to make" in capsys.readouterr().out
    assert [count(inputs="b"), count(inputs="b")] == [2, 2]
    assert [count({"profile": "mini"}, "b"), count({"profile": "mini"}, "b"), count(inputs="b")] == [3, 3, 4]
    table.unlink()
    assert [count(inputs="b"), count(inputs="b")] == [5, 5]
    write_text(folder / "runs/iu-drr/lora/seed0/result.json", '{"kid": 1}')
    assert [count(inputs="b"), count(inputs="b")] == [6, 6]
    book.write_text('{"cells": []}', encoding="utf-8")
    assert [count(inputs="b"), count(inputs="b")] == [7, 7]
    assert [count(inputs=""), count(inputs="")] == [8, 9]


def test_a_study_that_failed_is_executed_again(tmp_path, monkeypatch):
    def execute(*args):
        raise RuntimeError("lost its kernel")

    monkeypatch.setattr(notebooks, "execute", execute)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="lost its kernel"):
            run_notebooks([], {}, tmp_path / "smoke", "a")


def test_what_a_study_reads_is_its_profile_its_models_its_data_and_the_code(monkeypatch):
    profile = load_profile("smoke", datasets="montgomery-drr")
    first = hash_inputs(profile)
    assert hash_inputs(profile) == first != hash_inputs(replace(profile, seeds=[1]))
    monkeypatch.setattr(fingerprints, "hash_examples", lambda *args: "other data")
    assert hash_inputs(profile) != first


def test_the_time_left_is_scaled_by_what_was_measured():
    usual = {"1_a": 10.0, "2_b": 30.0, "3_c": 50.0}
    assert seconds_left({}, ["2_b"], usual) is None
    assert seconds_left({"1_a": 20.0}, ["2_b", "3_c"], usual) == 160
    assert seconds_left({"1_a": 5.0, "2_b": 15.0}, ["3_c", "4_new"], usual) == 40  # a new one counts as the mean, 30
    assert {"03_full", "07_selora"} <= set(usual_seconds())


@pytest.mark.parametrize(("given", "words"), [("1", "with 1 threads"), (None, "with up to ")])
def test_threads_are_named_with_how_to_set_them(monkeypatch, given, words):
    monkeypatch.setenv("OMP_NUM_THREADS", given) if given else monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert words in said_threads(1) and "OMP_NUM_THREADS=1 make run_all" in said_threads(1)
    assert "3 notebooks at a time" in said_threads(3)
