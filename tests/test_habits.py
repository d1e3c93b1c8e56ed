"""The hooks before a commit do what the repository already is: run over it, they change nothing."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from selora.files import NOTEBOOKS, REPOSITORY

HOOKS = {
    hook["id"]: hook
    for repo in yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
    for hook in repo["hooks"]
}


def hooked(name: str, *files) -> subprocess.CompletedProcess:
    """A hook's own command over some files, by this environment's copy of its tool."""
    tool, *options = shlex.split(HOOKS[name]["entry"])
    assert tool.startswith(".venv/bin/")
    place = Path(sys.executable).parent / Path(tool).name
    return subprocess.run([place, *options, *map(str, files)], capture_output=True, text=True, cwd=REPOSITORY)


def test_nbstripout_leaves_committed_notebooks_as_they_are_and_takes_outputs_out(tmp_path):
    for path in sorted(NOTEBOOKS.rglob("*.ipynb")):
        copy = tmp_path / path.name
        copy.write_bytes(path.read_bytes())
    copies = sorted(tmp_path.iterdir())
    assert len(copies) > 10 and hooked("nbstripout", *copies).returncode == 0
    assert {path.name: path.read_bytes() for path in copies} == {
        path.name: path.read_bytes() for path in NOTEBOOKS.rglob("*.ipynb")
    }
    text = copies[0].read_text()
    executed = text.replace('"outputs": []', '"outputs": [{"name": "stdout", "output_type": "stream", "text": "x"}]', 1)
    assert executed != text
    copies[0].write_text(executed)
    hooked("nbstripout", copies[0])
    assert copies[0].read_text() == text


@pytest.mark.parametrize("text", ["no end", "two ends\n\n", ""])
def test_the_hook_for_the_end_of_a_file_leaves_one_line_break(tmp_path, text):
    (tmp_path / "file.txt").write_text(text)
    assert hooked("end-of-file-fixer", tmp_path / "file.txt").returncode == (1 if text else 0)
    assert (tmp_path / "file.txt").read_text() == (f"{text.rstrip()}\n" if text else "")


def test_tracked_texts_end_as_the_hook_leaves_them():
    names = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True).stdout.split()
    kinds = (".py", ".md", ".toml", ".yaml", ".yml", ".ipynb", ".lock", "Makefile")
    texts = [REPOSITORY / n for n in names if n.endswith(kinds) and not n.startswith(("results/", "data/"))]
    odd = [path.name for path in texts if path.exists() and path.stat().st_size and not ends_well(path.read_bytes())]
    assert len(texts) > 100 and odd == []


def ends_well(content: bytes) -> bool:
    return content.endswith(b"\n") and not content.endswith(b"\n\n")


def test_the_other_hooks_are_those_of_make_lint():
    assert {"ruff", "ruff-format", "nbstripout", "end-of-file-fixer"} == set(HOOKS)
    assert all(hook["language"] == "system" for hook in HOOKS.values()), "others would need a network"
