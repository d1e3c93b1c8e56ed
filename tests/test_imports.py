"""What is imported with what: the rules in pyproject.toml, and what only a fresh interpreter shows."""

import importlib.util
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import selora
from selora.files import REPOSITORY


def modules(package: str) -> list[str]:
    """All modules of a package and below."""
    folders = importlib.util.find_spec(package).submodule_search_locations
    return [package, *(module.name for module in pkgutil.walk_packages(folders, f"{package}."))]


@pytest.mark.parametrize("package", ["selora.figures", "selora.study.report"])
def test_figures_and_the_report_are_made_without_torch(package):
    names = modules(package)
    assert len(names) > 4
    code = (
        f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_module_is_of_a_size_to_be_read_at_once():
    root = Path(selora.__file__).parent
    lines = {path.relative_to(root): len(path.read_text().splitlines()) for path in root.rglob("*.py")}
    assert {path: count for path, count in lines.items() if count > 270} == {}
    modules = {path: count for path, count in lines.items() if len(path.parts) == 1 and path.name != "__init__.py"}
    at_the_top = [path for path, count in modules.items() if count > 5]  # the others are old names of commands
    assert len(at_the_top) <= 8


@pytest.mark.parametrize("old", ["train", "download", "publish"])
def test_old_commands_go_on_working(old):
    done = subprocess.run(
        [sys.executable, "-m", f"selora.{old}", *(["--help"] if old != "publish" else [])],
        capture_output=True, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    assert "usage: python -m selora." in done.stdout + done.stderr
