"""Committed notebooks are clean, take the same parameters, and refuse unknown ones."""

from dataclasses import replace

import nbformat
import papermill
import pytest

from selora.files import NOTEBOOKS
from selora.methods import METHODS
from selora.study.laboratory import Study
from selora.study.notebooks import METHODS_OF, check_parameters, numbered, run_notebooks
from selora.study.profiles import load_profile

BOOKS = sorted(NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_no_outputs_and_exactly_one_parameters_cell(path):
    book = nbformat.read(path, as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in book.cells) == 1
    assert book.cells[0].cell_type == "markdown"


def test_all_notebooks_of_a_run_take_the_same_parameters():
    run = [path for path in BOOKS if path.stem != "download"]
    known = {path.stem: sorted(papermill.inspect_notebook(path)) for path in run}
    assert len({tuple(names) for names in known.values()}) == 1, known


def test_methods_choose_the_notebooks():
    stems = [path.stem for path in numbered(["base", "lora"])]
    assert stems == ["01_data", "02_base", "04_lora", "11_controls", "12_table1", "13_samples", "14_audit"]
    assert "08_further" in [path.stem for path in numbered(["base", "eva"])]
    assert set(METHODS_OF) < {path.stem for path in BOOKS}


def test_every_method_has_a_notebook():
    assert set().union(*METHODS_OF.values()) == set(METHODS)


def test_a_notebooks_title_has_its_number():
    for path in BOOKS:
        title = nbformat.read(path, as_version=4).cells[0].source.splitlines()[0]
        number = path.stem.partition("_")[0]
        assert title.startswith(f"# {int(number)}. ") if number.isdigit() else title.startswith("# "), path.stem


def test_which_runs_the_ablation_and_one_seed_mean(monkeypatch, tmp_path):
    """Thresholds on the first seed and on the data sets named; SeLoRA's own threshold is run already."""
    profile = replace(
        load_profile("smoke"),
        seeds=[3, 4],
        one_seed=["eva"],
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
    study.run("sora", "eva")
    named = [(run.method, run.seed) for run in runs if run.dataset == "iu-drr"]
    assert named == [("sora", 3), ("sora", 4), ("eva", 3)]
    settings = profile.run_settings("iu-drr", "lora")
    assert not {"one_seed", "ablation", "ablation_datasets"} & set(settings)
    with pytest.raises(ValueError, match="unknown method 'evva'"):
        replace(profile, one_seed=["evva"])


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


def test_a_failing_notebook_is_named_with_its_error_and_ends_the_rest(tmp_path):
    cells = ['folder = ""', "1 / 0"]
    for name in ("1_fails", "2_never"):
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
        book.cells[0].metadata["tags"] = ["parameters"]
        book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(book, tmp_path / f"{name}.ipynb")
    books = sorted(tmp_path.glob("*.ipynb"))
    with pytest.raises(ValueError, match="1_fails.ipynb has no parameter profile: it has folder"):
        run_notebooks(books, {"profile": "smoke"}, tmp_path / "out")
    with pytest.raises(RuntimeError, match="1_fails.ipynb failed with ZeroDivisionError: division by zero"):
        run_notebooks(books, {"folder": "x"}, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out" / "notebooks").iterdir()] == ["1_fails.ipynb"]
