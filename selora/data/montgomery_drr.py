"""montgomery-drr: rendered radiographs with composed readings in the form of the Montgomery County set."""

from __future__ import annotations

from pathlib import Path

from .example import DataError, Parts
from .iu_drr import load_rendered
from .montgomery import compose
from .tables import Row
from .texts import real_text


def load(root: Path | None = None) -> Parts:
    """The examples by split, in the order of the table; 'val' is empty, as in the paper. root: as in
    `rendered_folder`.

    Raises DataError where the folder or an image is missing, a reading is empty, or images stand twice.
    """
    return load_rendered("montgomery-drr", ("case_id", "sex", "age", "reading"), prompt, root)


def prompt(row: Row) -> str:
    """The prompt of a row. Raises DataError for an empty reading, or an age that is no number of years."""
    reading = real_text(row["reading"], f"Case {row['case_id']} in {row.where}")
    if not row["age"].isdecimal():
        raise DataError(f"Case {row['case_id']} in {row.where} has the age {row['age']!r}. Write its years.")
    return compose(row["sex"], f"{int(row['age'])} years", reading)
