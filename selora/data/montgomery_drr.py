"""montgomery-drr: rendered radiographs with composed readings in the form of the Montgomery County set."""

from __future__ import annotations

from pathlib import Path

from .example import DataError, Example, check_split
from .iu_drr import read_cases, rendered_folder
from .montgomery import compose


def load(split: str, root: Path | None = None) -> list[Example]:
    """The examples of a split, in the order of the table; 'val' is empty, as in the paper. root: as in
    `rendered_folder`.

    Raises DataError where the folder or an image is missing, or a reading is empty.
    """
    check_split(split)
    folder = rendered_folder("montgomery-drr", root)
    examples = []
    for row in read_cases(folder):
        if row["split"] == split:
            path = folder / "images" / f"{row['case_id']}.webp"
            if not path.is_file():
                raise DataError(f"Image {path} is missing. Restore it with git checkout or render_radiographs.py.")
            if not row["reading"].strip():
                raise DataError(f"Case {row['case_id']} in {folder / 'cases.csv'} has an empty reading.")
            text = compose(row["sex"], int(row["age"]), row["reading"])
            findings, places = (tuple(row[column].split(";")) for column in ("findings", "places"))
            examples.append(Example(row["case_id"], path, text, findings, places))
    return examples
