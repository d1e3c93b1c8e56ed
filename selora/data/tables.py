"""The tables of data sets: CSV files whose mistakes are named."""

from __future__ import annotations

import csv
from pathlib import Path

from .example import DataError


def read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV file in UTF-8, a cell that is not there as ''.

    Raises DataError where the file is missing, is no such table, or lacks one of `columns`.
    """
    if not path.is_file():
        raise DataError(f"Table {path} is missing. Restore it; it needs the columns {', '.join(columns)}.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            rows, header = list(reader), reader.fieldnames or []
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"Table {path} cannot be read ({error}). Save it as CSV in UTF-8.") from error
    for column in columns:
        if column not in header:
            raise DataError(f"Table {path} has no column {column!r}, only {', '.join(header)}. Add it.")
    for row in rows:
        if None in row:  # what is past the last column
            raise DataError(
                f"The row of {row[header[0]]} in {path} has too many cells. Put text with commas in quotes."
            )
    return rows
