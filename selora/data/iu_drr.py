"""iu-drr: rendered radiographs, each belonging to one real IU X-Ray report."""

from __future__ import annotations

import csv
from pathlib import Path

from . import reports
from .common import RENDERED, DataError, Example, check_split


def load(split: str, root: Path | None = None) -> list[Example]:
    """The examples of a split, in the order of the table. root: as in `rendered_folder`. The prompt is the report's
    findings text.

    Raises DataError where the folder, an image or a report is missing.
    """
    check_split(split)
    folder = rendered_folder("iu-drr", root)
    examples = []
    for row in read_cases(folder):
        if row["split"] == split:
            path = folder / "images" / f"{row['report_id']}.webp"
            if not path.is_file():
                raise DataError(f"Image {path} is missing. Restore it with git checkout or render_radiographs.py.")
            text = reports.prompt(row["report_id"])
            examples.append(Example(row["report_id"], path, text, tuple(row["findings"].split(";"))))
    return examples


def rendered_folder(name: str, root: Path | None) -> Path:
    """The folder of a rendered set: below `root` if it is there, else in the repository, since the same root serves the
    real sets."""
    given = Path(root or RENDERED) / name
    return given if given.is_dir() else RENDERED / name


def read_cases(folder: Path) -> list[dict[str, str]]:
    """The rows of a rendered set's table. Raises DataError where it is missing."""
    table = folder / "cases.csv"
    if not table.is_file():
        raise DataError(f"Table {table} is missing. Give the folder that holds {folder.name}, or restore it with git.")
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
