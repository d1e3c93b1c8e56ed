"""imagefolder: any folder of images with a table of their texts, in the layout that Hugging Face calls an imagefolder.

The table is `metadata.csv` or `metadata.jsonl`, in the folder that is given. Its columns:

- `file_name`: an image below the folder ('a.png', 'images/b.dcm'), in any format that `open_image` reads.
- `text`: the prompt.
- `split`, optional: train, val or test. Without it, 80 % of the images are drawn for training and 20 % for testing,
  and there is no validation. Give it where one patient has several images.
- `findings`, optional: names out of FINDINGS, joined by ';' as in the study's own tables, or in JSON Lines also a list.

    file_name,text,split,findings
    0001.png,"Enlarged heart, clear lungs.",train,cardiomegaly
"""

from __future__ import annotations

import json
import random
import re
from codecs import BOM_UTF8
from pathlib import Path

from .example import SPLITS, DataError, Example, check_split
from .findings import FINDINGS
from .folders import given_folder
from .tables import read_table

GET_IT = "Name the folder of your images and their metadata.csv (columns file_name and text) by SELORA_DATA."


def load(split: str, root: Path | None = None) -> list[Example]:
    """The examples of a split, in the order of the table, or as drawn with seed 42 where it names no splits.

    root: the folder; by default SELORA_DATA's, else data/raw. Raises DataError where folder, table or an image
    is missing, a row cannot be used, or there is nothing to train or test on.
    """
    check_split(split)
    folder = given_folder(root, GET_IT)
    table = find_table(folder)
    rows = read_lines(table) if table.suffix == ".jsonl" else read_table(table, ("file_name", "text"))
    examples = [read_row(folder, table, row) for row in rows]
    by_id = {}
    for example in examples:
        other = by_id.setdefault(example.id, example)
        if other is not example:
            raise DataError(f"{table} names {other.path} and {example.path}, both {example.id} for short. Rename one.")
    parts = named_splits(table, rows, examples) if any("split" in row for row in rows) else drawn_splits(examples)
    for needed in ("train", "test"):
        if not parts[needed]:
            raise DataError(f"{table} gives {len(examples)} images, none of them for {needed}. Add some.")
    return parts[split]


def find_table(folder: Path) -> Path:
    """The folder's table. Raises DataError where there is none, or two."""
    tables = [path for path in (folder / "metadata.csv", folder / "metadata.jsonl") if path.is_file()]
    if not tables:
        raise DataError(f"No metadata.csv or metadata.jsonl in {folder.resolve()}. {GET_IT}")
    if len(tables) == 2:
        raise DataError(f"{tables[0]} and {tables[1]} are both there. Remove one.")
    return tables[0]


def read_lines(path: Path) -> list[dict]:
    """The rows of a JSON Lines file. Raises DataError for a line that is no object with file_name and text."""
    rows = []
    # split at line feeds alone: texts may hold other signs that Python takes for the end of a line
    for number, line in enumerate(path.read_bytes().removeprefix(BOM_UTF8).split(b"\n"), start=1):
        try:
            row = json.loads(line.decode()) if line.strip() else None
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise DataError(
                f"Line {number} of {path} is no JSON in UTF-8 ({error}). Write one object per line."
            ) from error
        if row is not None:
            if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("file_name", "text")):
                raise DataError(f"Line {number} of {path} is no object with file_name and text. Add what is missing.")
            rows.append(row)
    return rows


def read_row(folder: Path, table: Path, row: dict) -> Example:
    """The example of one row. Raises DataError as `load`."""
    name, text = row["file_name"], re.sub(r"\s+", " ", row["text"]).strip()
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(f"{table} has file_name {name!r}, which is no path below its folder. Put the image there.")
    path = folder / name
    if not path.is_file():
        raise DataError(f"Image {path}, listed in {table}, is missing. Restore it, or remove its row.")
    if not text:
        raise DataError(f"Image {name} in {table} has no text. Add it, or remove the row.")
    named = row.get("findings") or ()
    findings = tuple(str(n).strip() for n in (named if isinstance(named, (list, tuple)) else str(named).split(";")))
    for finding in findings:
        if finding not in FINDINGS:
            raise DataError(f"Image {name} in {table} has finding {finding!r}. Choose from: {', '.join(FINDINGS)}.")
    # the id names the sample's file; a dot may be part of the name, as in DICOM's 1.2.840.10008
    return Example(re.sub(r"\.[A-Za-z]+$", "", name).replace("/", "_"), path, text, findings)


def named_splits(table: Path, rows: list[dict], examples: list[Example]) -> dict[str, list[Example]]:
    """The examples as the column `split` says. Raises DataError for an unknown split."""
    parts = {split: [] for split in SPLITS}
    for row, example in zip(rows, examples, strict=True):
        if str(row.get("split")) not in parts:
            raise DataError(
                f"Image {row['file_name']} in {table} has split {row.get('split')!r}. Choose from: {', '.join(SPLITS)}."
            )
        parts[row["split"]].append(example)
    return parts


def drawn_splits(examples: list[Example]) -> dict[str, list[Example]]:
    """80 % to train and 20 % to test, whatever the order of the table."""
    drawn = sorted(examples, key=lambda example: example.id)
    random.Random(42).shuffle(drawn)
    held_out = round(0.2 * len(drawn))
    return {"train": drawn[held_out:], "val": [], "test": drawn[:held_out]}
