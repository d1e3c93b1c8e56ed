"""imagefolder: any folder of images with a table of their texts, in the layout that Hugging Face calls an imagefolder.

The table is `metadata.csv` or `metadata.jsonl`, in the folder that is given. Its columns:

- `file_name`: an image below the folder ('a.png', 'images/b.dcm'), in any format that `open_image` reads.
- `text`: the prompt.
- `split`, optional: train, val or test. Without it, 80 % of the images are drawn for training and 20 % for testing,
  and there is no validation.
- `patient`, `study`, optional: whose or which study's image it is; its images are kept in one split. Without `patient`
  the headers of DICOM files say who it is, and without both also which study; without these, and without splits, the
  images of one folder below are kept together, if there are at least five such that mostly hold a few.
- `findings`, optional: names out of FINDINGS, joined by ';' as in the study's own tables, or in JSON Lines also a list.

    file_name,text,split,findings
    0001.png,"Enlarged heart, clear lungs.",train,cardiomegaly
"""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from .checks import checked, file_name, grouped, same_person, warn_of_others
from .example import SPLITS, DataError, DataWarning, Example, Parts
from .findings import FINDINGS
from .folders import given_folder
from .pictures import is_file
from .studies import by_folder, by_header, is_split, warn_of_parted
from .tables import Row, read_lines, read_table
from .texts import is_placeholder, is_stand_in, plain, real_text

GET_IT = "Name the folder of your images and their metadata.csv (columns file_name and text) by SELORA_DATA."
COLUMNS, OPTIONAL = ("file_name", "text"), ("split", "findings", "patient", "study")
YES_OR_NO = {"0", "1", "10", "00", "true", "false", "yes", "no", "y", "n", "t", "f", "x"}  # 10: 1.0 without its sign


def load(root: Path | None = None) -> Parts:
    """The examples by split, in the order of the table, or as drawn with seed 42 where it names no splits.

    root: the folder; by default SELORA_DATA's, else data/raw. Raises DataError where folder, table or an image
    is missing, a row cannot be used, images leak between splits, or there is nothing to train or test on. Warns
    (DataWarning) of images that are in no row.
    """
    folder = given_folder(root, GET_IT)
    table = find_table(folder)
    rows = (read_lines if table.suffix == ".jsonl" else read_table)(table, COLUMNS, OPTIONAL)
    check_columns(rows, table)
    check_groups(rows)
    examples = [read_row(folder, row) for row in rows]
    if not any("patient" in row for row in rows):
        examples = by_header(examples)
    warn_of_others(folder, folder.rglob("*"), examples, table.name)
    parts = named_splits(rows, examples) if any("split" in row for row in rows) else drawn_splits(folder, examples)
    for needed in ("train", "test"):
        if not parts[needed]:
            raise DataError(f"{table} gives {len(examples)} images, none of them for {needed}. Add some.")
    warn_of_parted(folder, parts)
    return checked(parts)


def find_table(folder: Path) -> Path:
    """The folder's table. Raises DataError where there is none, or two."""
    tables = [path for path in (folder / "metadata.csv", folder / "metadata.jsonl") if path.is_file()]
    if not tables:
        raise DataError(f"No metadata.csv or metadata.jsonl in {folder.resolve()}. {GET_IT}")
    if len(tables) == 2:
        raise DataError(f"{tables[0]} and {tables[1]} are both there. Remove one.")
    return tables[0]


def check_columns(rows: Sequence[Row], table: Path) -> None:
    """Warn (DataWarning) of columns that are not read. Raises DataError for one that holds splits, or says of one split
    what belongs to it, where no column is called split."""
    unread = [name for name in dict.fromkeys(n for row in rows for n in row) if name not in (*COLUMNS, *OPTIONAL)]
    for name in unread if not any("split" in row for row in rows) else ():
        values = {value for row in rows if not is_placeholder(value := row.get(name, "")) or plain(value) in YES_OR_NO}
        splits = {value for value in values if is_split(value)}
        of_one = is_split(re.sub(r"^(is|in|for)(?=\W|_|[A-Z])", "", name)) and {plain(v) for v in values} <= YES_OR_NO
        if values and (len(splits) > 1 or splits == values or of_one):
            raise DataError(
                f"The column {name!r} of {table} holds {' and '.join(sorted(splits or values))}, and there is no "
                f"column 'split'. Write {', '.join(SPLITS)} in a column 'split' instead, or remove it."
            )
    if unread:
        warnings.warn(f"Columns of {table} that are not read: {', '.join(unread)}.", DataWarning, 2)


def check_groups(rows: Sequence[Row]) -> None:
    """Raises DataError where a column `patient` or `study` is there and not filled, or with what stands for many; or a
    study has two patients."""
    for column in ("patient", "study"):
        for row in rows if any(column in row for row in rows) else ():
            name, whose = row.get(column, ""), f"Image {row['file_name']} in {row.where} has"
            if is_placeholder(name):
                raise DataError(f"{whose} no {column}. Add it, or remove the column.")
            if is_stand_in(name):
                raise DataError(f"{whose} the {column} {name!r}, which may stand for many. Name each, or none at all.")
            if re.fullmatch(r"\d([.,]\d+)?[eE]\+\d+", name):
                raise DataError(
                    f"{whose} the {column} {name!r}, which a spreadsheet shortened. Save the column as text."
                )
    patients = {}
    for row in rows:
        if "patient" in row and "study" in row:
            study, patient = same_person(row["study"]), same_person(row["patient"])
            if patients.setdefault(study, patient) != patient:
                raise DataError(f"Study {row['study']} in {row.where} has another patient than before. Name one.")


def read_row(folder: Path, row: Row) -> Example:
    """The example of one row. Raises DataError as `load`."""
    given = row["file_name"]
    name = PurePosixPath(given)  # by which './a.png' is 'a.png'
    if not name.parts or name.is_absolute() or ".." in name.parts:
        raise DataError(f"{row.where} has file_name {given!r}, which is no path below its folder. Put the image there.")
    path = folder / name
    if not is_file(path):
        raise DataError(f"Image {path}, listed in {row.where}, is missing. Restore it, or remove its row.")
    findings = tuple(finding.strip() for finding in row["findings"].split(";")) if row.get("findings") else ()
    for finding in findings:
        if finding not in FINDINGS:
            raise DataError(f"Image {name} in {row.where} has finding {finding!r}. Choose from: {', '.join(FINDINGS)}.")
    text = real_text(row["text"], f"Image {name} in {row.where}")
    # the id names the sample's file; a dot may be part of the name, as in DICOM's 1.2.840.10008
    short = file_name(re.sub(r"\.[A-Za-z]+$", "", str(name)).replace("/", "_"))
    study = row.get("patient") or row.get("study") or ""
    return Example(short, path, text, tuple(dict.fromkeys(findings)), study=same_person(study))


def named_splits(rows: Sequence[Row], examples: Sequence[Example]) -> Parts:
    """The examples as the column `split` says. Raises DataError for an unknown split."""
    parts = {split: [] for split in SPLITS}
    for row, example in zip(rows, examples, strict=True):
        if row.get("split") not in parts:
            raise DataError(
                f"Image {row['file_name']} in {row.where} has split {row.get('split')!r}. Choose from: "
                f"{', '.join(SPLITS)}."
            )
        parts[row["split"]].append(example)
    return parts


def drawn_splits(folder: Path, examples: Sequence[Example]) -> Parts:
    """80 % to train and 20 % to test, whatever the order of the table; of patients, studies or folders where they are
    known. Raises DataError where folders are called after splits, or there are too few of what is drawn. Warns
    (DataWarning) of a name that more than a fifth of the images have, which may stand for many."""
    if not any(example.study for example in examples):
        examples = by_folder(folder, examples)
    drawn = grouped(sorted(examples, key=lambda example: example.id), lambda e: (e.study, "" if e.study else e.id))
    random.Random(42).shuffle(drawn)
    held_out = round(0.2 * len(drawn))
    if not held_out and any(example.study for example in examples):
        raise DataError(
            f"The {len(examples)} images are of {len(drawn)} patients or studies by their names, such as "
            f"{examples[0].study!r}; a test set needs 3. If a name stands for many, name each, or add the column split."
        )
    largest = max(drawn, key=len, default=examples)
    if held_out and largest[0].study and len(largest) > 0.2 * len(examples):
        named = (
            f"{len(largest)} of {len(examples)} images have the name {largest[0].study!r} as patient, study or folder"
        )
        warnings.warn(f"{named}, and are kept in one split. If it stands for many, name each.", DataWarning, 2)
    train, test = ([example for group in part for example in group] for part in (drawn[held_out:], drawn[:held_out]))
    return {"train": train, "val": [], "test": test}
