"""The recipes of CONTRIBUTING.md, followed to the letter in a copy of the repository."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from selora.files import REPOSITORY

TEXT = (REPOSITORY / "CONTRIBUTING.md").read_text()


def follow(repository: Path) -> None:
    """Write each file that a block of code names in its first line, or put the block below the line it names."""
    blocks = re.findall(r"```python\n# ([\w/]+\.py)(?:, below ([^\n]+))?\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(blocks) == TEXT.count("```python") == 8
    for name, below, code in blocks:
        file = repository / name
        if not below:
            assert not file.exists(), name
            file.write_text(code)
        else:
            before, line, after = re.split(rf"^({re.escape(below)}.*\n)", file.read_text(), maxsplit=1, flags=re.M)
            file.write_text(before + line + code + after)


def write_clinic(folder: Path) -> None:
    """A toy data set as the recipe describes it: noise with a bright or a dark middle, and no validation images."""
    rng = np.random.default_rng(0)
    cases = [(f"case{i}", "train" if i < 8 else "test", i % 2) for i in range(16)]
    (folder / "images").mkdir(parents=True)
    for name, _, bright in cases:
        pixels = rng.integers(60, 120, (64, 64), dtype=np.uint8)
        pixels[16:48, 16:48] += np.uint8(100 * bright)
        Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
    rows = [(name, split, f"A {('dark', 'bright')[b]} chest.", ("normal", "opacity")[b]) for name, split, b in cases]
    pd.DataFrame(rows, columns=["id", "split", "text", "findings"]).to_csv(folder / "cases.csv", index=False)


def test_a_method_a_data_set_and_a_metric_by_the_recipes_make_a_run(tmp_path):
    shutil.copytree(REPOSITORY / "selora", tmp_path / "selora", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (REPOSITORY / "notebooks", *(REPOSITORY / "data").glob("mini-*")):
        link = tmp_path / folder.relative_to(REPOSITORY)
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(folder)
    follow(tmp_path)
    write_clinic(tmp_path / "data" / "raw" / "clinic")

    command = re.search(r"^\.venv/bin/python (-m selora\.study .+)$", TEXT, flags=re.M)[1]
    done = subprocess.run([sys.executable, *shlex.split(command)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "results" / "smoke" / "runs" / "clinic" / "bitfit" / "seed0"
    result = json.loads((run / "result.json").read_text())
    assert result["n"] == 8 and (run / "biases.safetensors").exists()
    assert 0 < result["unet_params"] < 20_000  # of 2.8 million in those layers
    assert result["energy"] > 0 and {"energy"} <= result["floor"].keys() & result["ceiling"].keys()
