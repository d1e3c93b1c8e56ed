"""montgomery: the real Montgomery County set of the National Library of Medicine, read where the user keeps it."""

from __future__ import annotations

import random
import re
from pathlib import Path

from .example import DataError, Example, check_split
from .folders import given_folder

GET_IT = (
    "Get the Montgomery County set from the National Library of Medicine (python -m selora.data.fetch montgomery) "
    "and name the folder with MontgomerySet by SELORA_DATA."
)
SEX = {"M": "male", "F": "female"}


def load(split: str, root: Path | None = None) -> list[Example]:
    """The examples of a split: 80 % train and 20 % test, drawn with seed 42; 'val' is empty, as in the paper.

    Drawn by image, as in the paper: a few patients have two images, which may fall on both sides.

    root: the folder that holds `MontgomerySet`, or that folder itself; by default SELORA_DATA's, else data/raw.
    Raises DataError where the folder is missing, or an image and its reading do not come together.
    """
    check_split(split)
    folder = find(root)
    images = {p.stem: p for p in sorted((folder / "CXR_png").glob("*.png"))}
    readings = {p.stem: p for p in sorted((folder / "ClinicalReadings").glob("*.txt"))}
    if not images:
        raise DataError(f"No images in {folder / 'CXR_png'}. {GET_IT}")
    for case, path in sorted({**images, **readings}.items()):
        if case not in readings:
            missing = folder / "ClinicalReadings" / f"{case}.txt"
            raise DataError(f"Image {path} has no reading. Restore {missing}, or remove the image.")
        if case not in images:
            raise DataError(f"Reading {path} has no image. Restore {folder / 'CXR_png' / case}.png, or remove it.")
    examples = [
        Example(case, path, compose(*parse(readings[case])), ("normal",) if case.endswith("_0") else ("tuberculosis",))
        for case, path in images.items()
    ]
    random.Random(42).shuffle(examples)
    held_out = round(0.2 * len(examples))
    return {"train": examples[held_out:], "val": [], "test": examples[:held_out]}[split]


def find(root: Path | None) -> Path:
    """The MontgomerySet folder. Raises DataError where it or one of its two parts is not there."""
    given = given_folder(root, GET_IT)
    folder = given if given.name == "MontgomerySet" else given / "MontgomerySet"
    for part in (folder, folder / "CXR_png", folder / "ClinicalReadings"):
        if not part.is_dir():
            raise DataError(f"Folder {part.resolve()} is not there. {GET_IT}")
    return folder


def parse(path: Path) -> tuple[str, int, str]:
    """Sex ('M', 'F' or 'O'), age in years and reading of one text file; a reading of several lines becomes one.
    Raises DataError where one of them is missing."""
    text = path.read_text(encoding="utf-8", errors="replace")
    sex = re.search(r"Sex:[ \t]*([MFO])\b", text)
    age = re.search(r"Age:[ \t]*(\d+)", text)
    reading = " ".join(line.strip() for line in text.splitlines() if not re.match(r"\s*Patient's (Sex|Age)", line))
    for name, value in (("sex", sex), ("age", age), ("reading", reading.strip())):
        if not value:
            raise DataError(f"Reading {path} has no {name}. Replace it with the published file.")
    return sex[1], int(age[1]), re.sub(r"\s+", " ", reading).strip()


def compose(sex: str, age: int, reading: str) -> str:
    """The prompt: sex, age and findings. A sex that is neither M nor F is left out, not guessed."""
    person = f"{SEX[sex]}, " if sex in SEX else ""
    return f"{person}{age} years old, {reading}"
