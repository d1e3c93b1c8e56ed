"""iu-drr: rendered radiographs, each belonging to one real IU X-Ray report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from selora.files import DATA

from . import iu_reports
from .checks import checked
from .example import SPLITS, DataError, Example, Parts
from .tables import Row, read_table


def load(root: Path | None = None) -> Parts:
    """The examples by split, in the order of the table. root: as in `rendered_folder`. The prompt is the report's
    findings text.

    Raises DataError where the folder, an image or a report is missing, or images stand twice.
    """
    return load_rendered("iu-drr", ("report_id",), lambda row: iu_reports.prompt(row["report_id"]), root)


def load_rendered(name: str, columns: tuple[str, ...], prompt: Callable[[Row], str], root: Path | None) -> Parts:
    """The examples of a rendered set by split. columns: those that the prompt is made of; the first names the case.

    Raises DataError as the sets' `load`.
    """
    folder = rendered_folder(name, root)
    parts = {split: [] for split in SPLITS}
    for row in read_cases(folder, (*columns, "findings", "places")):
        path = folder / "images" / f"{row[columns[0]]}.webp"
        if not path.is_file():
            raise DataError(f"Image {path} is missing. Restore it with git checkout or render_radiographs.py.")
        findings, places = (tuple(row[column].split(";")) for column in ("findings", "places"))
        parts[row["split"]].append(Example(row[columns[0]], path, prompt(row), findings, places))
    return checked(parts)


def rendered_folder(name: str, root: Path | None) -> Path:
    """The folder of a rendered set: below `root` if it is there, else in the repository, since the same root serves the
    real sets."""
    if root and not Path(root).is_dir():
        raise DataError(f"Data folder {Path(root).resolve()} is not there.")
    given = Path(root or DATA) / name
    return given if given.is_dir() else DATA / name


def read_cases(folder: Path, columns: tuple[str, ...] = ()) -> list[Row]:
    """The rows of a rendered set's table, whose first column is the case's id. Raises DataError where the table is
    missing, names an unknown split, or does not match the images one to one."""
    table = folder / "cases.csv"
    if not table.is_file():
        raise DataError(f"Table {table} is missing. Give the folder that holds {folder.name}, or restore it with git.")
    rows = read_table(table, (*columns, "split"))
    listed = {next(iter(row.values())): row["split"] for row in rows}
    for case, split in listed.items():
        if split not in SPLITS:
            raise DataError(f"Case {case} in {table} has split {split!r}. Choose from: {', '.join(SPLITS)}.")
    for path in sorted((folder / "images").glob("*")):
        if path.stem not in listed:
            raise DataError(f"Image {path} has no case in {table}. Add its row, or remove the image.")
    return rows
