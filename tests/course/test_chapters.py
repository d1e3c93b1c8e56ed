"""The chapters of the course: one template, no outputs, exercises whose checks tell a stub from a solution."""

import ast
import re
import sys
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import pytest

from selora.files import NOTEBOOKS

COURSE = NOTEBOOKS / "course"
CHAPTERS = sorted(COURSE.glob("[0-9]*.ipynb"))
SECTIONS = ("The question", "Your prediction", "What you should see", "What this does not show", "Exercises")
EXERCISE = ["exercise", "check", "hints", "solution"]  # the tags of its cells, in their order

# Parameters that make a chapter a matter of seconds; what its checks ask for holds all the same.
FAST = {
    "01_noise_to_radiograph": {"steps": 2, "images": 2},
    "02_lora_from_nothing": {"steps": 1, "images": 4, "batch_size": 2, "tried": [0, 4]},
    "04_selora_in_forty_lines": {"seeds": 1, "steps": 40, "other_thresholds": [1.3]},
    "05_the_real_run": {"steps": 4, "interval": 2, "images": 4, "batch_size": 2},
    "06_pruners_and_growers": {"steps": 80},
    "07_can_the_metric_tell": {"images": 14, "pool": 30, "repeats": 3},
    "08_who_wins": {"trials": 2},
    "09_auditing_a_paper": {"layers": 10, "shuffles": 20},
}

every_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def cells_of(path, tag=None):
    """A chapter's cells, or those with a tag."""
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if tag is None or tag in cell.metadata.get("tags", [])]


def words(path) -> str:
    return "\n".join(cell.source for cell in cells_of(path) if cell.cell_type == "markdown")


@every_chapter
def test_no_outputs_stable_ids_and_exactly_one_parameters_cell(path):
    cells = cells_of(path)
    assert all(not cell.outputs and cell.execution_count is None for cell in cells if cell.cell_type == "code")
    assert [cell.id for cell in cells] == [f"cell-{i:02d}" for i in range(len(cells))]
    assert len(cells_of(path, "parameters")) == 1


@every_chapter
def test_an_unknown_parameter_ends_it(path, monkeypatch):
    """Each chapter calls what raises, where the cells' sources are those that papermill leaves."""
    monkeypatch.syspath_prepend(COURSE)
    import checks

    (declared,) = (cell.source for cell in cells_of(path, "parameters"))
    assert any("refuse_unknown_parameters()" in cell.source.splitlines() for cell in cells_of(path))
    shell = SimpleNamespace(user_ns={"In": ["", declared, "# Parameters\nsteeps = 1\n"]})
    monkeypatch.setattr(checks, "get_ipython", lambda: shell)
    with pytest.raises(ValueError, match="unknown parameter steeps"):
        checks.refuse_unknown_parameters()


@every_chapter
def test_the_template(path):
    text = words(path)
    assert text.startswith(f"# {int(path.stem[:2])}. ")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert [heading for heading in headings if heading in SECTIONS] == list(SECTIONS)
    cells = cells_of(path)
    beside = [a for a, b in zip(cells, cells[1:], strict=False) if "$$" in a.source and b.cell_type == "code"]
    assert beside, "no equation stands beside its line of code"


@every_chapter
def test_each_exercise_has_its_time_its_stub_its_check_its_hints_and_its_solution(path):
    titles = re.findall(r"^### Exercise (\d) \(\d+ minutes?, (?:easy|medium|hard)\)", words(path), re.MULTILINE)
    assert titles == [str(i + 1) for i in range(len(titles))] and 3 <= len(titles) <= 5
    tags = [tag for cell in cells_of(path) for tag in cell.metadata.get("tags", []) if tag in EXERCISE]
    assert tags == EXERCISE * len(titles)
    for number, cell in enumerate(cells_of(path, "check"), start=1):
        assert re.search(rf"\bcheck_{path.stem[:2]}\.exercise_{number}\(", cell.source)
    for tag, summary in (("hints", "Hints"), ("solution", "Solution")):
        for cell in cells_of(path, tag):
            assert cell.cell_type == "markdown"
            assert cell.source.startswith(f"<details><summary>{summary}</summary>\n\n")  # else Markdown is not read
            assert cell.source.endswith("\n\n</details>")
    assert all(len(solutions(cell)) == 1 for cell in cells_of(path, "solution"))


def solutions(cell) -> list[str]:
    """The pieces of Python in a Markdown cell."""
    return re.findall(r"^```python\n(.*?)^```$", cell.source, re.MULTILINE | re.DOTALL)


def run(source: str, name: str, space: dict):
    """Execute a cell; the value of its last expression, as a notebook shows it."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), space)
    return eval(compile(ast.Expression(last.value), name, "eval"), space) if last else None


def run_chapter(path, parameters: dict, space: dict, monkeypatch):
    """Execute a chapter's cells one after the other, with other parameters than its own; yields each and its value."""
    monkeypatch.setattr(sys, "path", [*sys.path])  # a chapter adds its folder
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    for cell in cells_of(path):
        if cell.cell_type == "code":
            value = run(cell.source, f"{path.name}, {cell.id}", space)
            if "parameters" in cell.metadata.get("tags", []):
                assert parameters.keys() <= space.keys()
                space |= parameters
            yield cell, value


@every_chapter
def test_checks_say_not_yet_to_the_stubs_and_yes_to_the_solutions(path, monkeypatch, tmp_path, capsys):
    """The whole chapter with its stubs, then each solution with its check, in one namespace and any folder."""
    monkeypatch.chdir(tmp_path)
    space, stubs = {}, []
    for cell, value in run_chapter(path, FAST.get(path.stem, {}), space, monkeypatch):
        if "check" in cell.metadata.get("tags", []):
            stubs.append((value, capsys.readouterr().out.splitlines()[-1][:9]))
    assert stubs == [(False, "not yet: ")] * len(stubs)
    solved = []
    for solution, check in zip(cells_of(path, "solution"), cells_of(path, "check"), strict=True):
        run(solutions(solution)[0], f"{path.name}, {solution.id}", space)
        solved.append((run(check.source, f"{path.name}, {check.id}", space), capsys.readouterr().out.splitlines()[-1]))
    assert solved == [(True, "yes")] * len(solved)
    assert list(tmp_path.iterdir()) == []


def test_three_ways_agree_on_other_numbers_too(monkeypatch):
    """Chapter 3 with more ranks, samples and outputs, as a reader may change them; its own cells assert 1e-6."""
    changed = {
        "W0": [[0.1, 0.2, -0.3, 1.0], [0.0, -1.0, 0.5, 0.2], [2.0, 0.1, 0.1, -0.7]],
        "A": [[0.3, -0.2, 0.9, 0.4], [-1.1, 0.5, 0.2, 0.0]],
        "B": [[0.2, -0.4], [0.0, 0.7], [-0.3, 0.1]],
        "K": [[0.6, 0.1, -0.8, 0.3]],
        "x": [[1.0, 0.0, 2.0, -1.0], [0.3, -0.6, 0.1, 0.9], [-1.2, 0.8, 0.4, 0.2]],
        "target": [[1.0, 0.0, -1.0], [0.5, 0.5, 2.0], [-2.0, 1.0, 0.0]],
    }
    path, space, ratios = COURSE / "03_one_expansion.ipynb", {}, {}
    for cell, _ in run_chapter(path, changed, space, monkeypatch):
        if "exercise" in cell.metadata.get("tags", []):
            break
        ratios = space.get("ratios", ratios)
    assert set(space["information"].index[space["information"]["by selora.fisher"].isna()]) == {
        f"K[{i}]" for i in range(4)
    }
    assert (ratios.iloc[:, 0] > 1).all() and (ratios.iloc[:, 1] < 1).all() and len(ratios) == 4
