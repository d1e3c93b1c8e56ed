"""Tables of text, CSV and JSON Lines, read strictly: what cannot be read surely is refused with its line."""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import json
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .example import DataError, DataWarning
from .texts import plain

BYTE_ORDER_MARKS = {  # UTF-32's first: it begins as UTF-16's does
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
DELIMITERS = ",;\t|"
SYNONYMS = {"patient": ("subject", "mrn", "pid"), "study": ("studyinstance", "exam", "accession")}
ALIKE = 0.75  # difflib's ratio of names that one slip of the pen tells apart


class Row(dict):
    """The cells of a row by the names of the columns, all texts. where: its line and file, for messages."""

    where = ""


def read_table(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> list[Row]:
    """The rows of a CSV file in UTF-8, or in UTF-16 with its mark; without those that are empty. Cells are stripped.

    columns: those that it must have. optional: others that mean something here, none of which may be misspelt.

    Raises DataError, with the line, for a file that is missing, no such text or no strict CSV; for a row that has too
    many or too few cells, or seems to hold others; for a column that is missing, double or nearly one of these. Warns
    (DataWarning) of another separator than the comma, and of a column that is used though its name differs in case,
    spaces or signs.
    """
    lines = list(io.StringIO(decoded(path, "CSV", f"it needs the columns {', '.join(columns)}"), newline=""))
    head = next((line for line in lines if line.strip(DELIMITERS + ' "\r\n')), "")
    head = head[: csv.field_size_limit()]  # more in one line is refused where it is read
    split_by = {d: next(csv.reader([head], delimiter=d, skipinitialspace=True), []) for d in DELIMITERS}
    known = {plain(name) for name in (*columns, *optional)}
    delimiter = max(DELIMITERS, key=lambda d: len(known & {plain(name) for name in split_by[d]}))
    if delimiter != ",":
        warnings.warn(f"Table {path} is read with {delimiter!r} between its columns.", DataWarning, 2)
    records = [(start, cells) for start, cells in parse(path, lines, delimiter) if any(cells)]
    if not records:
        raise DataError(f"Table {path} is empty. It needs the columns {', '.join(columns)}.")
    header = records[0][1]
    if re.match(r"sep=|#", header[0]):
        raise DataError(f"Table {path} begins with {header[0]!r}, which names no column. Remove that line.")
    names = settle(tuple(header), columns, optional, f"Table {path}")
    for column in columns:
        if column not in names:
            raise DataError(f"Table {path} has no column {column!r}, only {', '.join(header):.300}. Add it.")
    rows, key = [], names.index(columns[0])
    for start, cells in records[1:]:
        whose = f"The row of {cells[min(key, len(cells) - 1)]} in line {start} of {path}"
        if any(cells[len(names) :]):
            raise DataError(f"{whose} has too many cells. Put text with commas in quotes.")
        if any(names[len(cells) :]):
            raise DataError(f"{whose} has {len(cells)} of {len(names)} cells. Add what is missing, if only commas.")
        row = Row((name, cell) for name, cell in zip(names, cells, strict=False) if name)
        row.where = f"line {start} of {path}"
        rows.append(row)
    unnamed = [i for i, name in enumerate(names) if not name and any(any(cells[i : i + 1]) for _, cells in records[1:])]
    if unnamed:
        warnings.warn(f"Column {unnamed[0] + 1} of {path} has no name: it is not read.", DataWarning, 2)
    check_swallowed(rows, columns[0], key, len(names), delimiter)
    return rows


def parse(path: Path, lines: list[str], delimiter: str) -> list[tuple[int, list[str]]]:
    """The stripped cells of each record, and its first line. Raises DataError for what is no strict CSV. Warns
    (DataWarning) of cells without quotes that begin with a blank: they may be the rest of a text with a comma."""
    records, start, loose = [], 0, []
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
    try:
        for cells in reader:
            raw = "".join(lines[start : reader.line_num])
            if '\\"' in raw or raw.count('"') % 2:
                raise csv.Error("a quote sign that is neither doubled nor closed")
            if re.search(rf'{re.escape(delimiter)} +[^\s"]', re.sub('"[^"]*"', '""', raw)):
                loose.append(start + 1)
            records.append((start + 1, [cell.strip() for cell in cells]))
            start = reader.line_num
    except csv.Error as error:
        raise DataError(
            f"Table {path} cannot be read from line {start + 1} on ({error}). Close every quoted text, and write a "
            'quote sign inside one twice: "".'
        ) from error
    header = next((number for number, cells in records if any(cells)), 0)
    if loose and header not in loose:  # else all is written so
        said = f"a cell without quotes begins with a blank in {len(loose)} lines, first in line {loose[0]}"
        what = "If that is the rest of a text with a comma, put the text in quotes."
        warnings.warn(f"Table {path}: {said}. {what}", DataWarning, 3)
    return records


def check_swallowed(rows: list[Row], key: str, place: int, width: int, delimiter: str) -> None:
    """Raise DataError where a quoted text of several lines holds what looks like rows: it was not closed in its own.

    key, place: the column, and which of the `width` it is, whose cells look alike, as names of files do.
    """

    def looks(cell: str) -> set[str]:
        return {re.sub(r"\d+", "0", cell), Path(cell).suffix} - {""}

    known = set().union(*(looks(row[key]) for row in rows))
    for row in rows:
        for line in (line for cell in row.values() for line in cell.splitlines()[1:]):
            cells = [cell.strip(' "') for cell in line.split(delimiter)]
            if len(cells) >= width > 1 and looks(cells[place]) & known:
                raise DataError(f"The row in {row.where} seems to hold others ({line[:40]!r}). Close its quoted text.")


def read_lines(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> list[Row]:
    """The rows of a JSON Lines file by the rules of `read_table`: one object a line.

    A list of texts becomes one text, joined by ';', and a whole number of an optional column its digits; null is
    nothing. Raises DataError also for a line that is no object with `columns`, and for other values.
    """
    rows, settled = [], {}
    text = decoded(path, "JSON", "it needs one object a line")
    # split at line ends alone: texts may hold other signs that Python takes for one
    for number, line in enumerate(re.split("\r\n|\r|\n", text), start=1):
        where = f"line {number} of {path}"
        if not line.strip():
            continue
        try:
            pairs = json.loads(line, object_pairs_hook=Pairs, parse_constant=refuse_constant)
        except (ValueError, RecursionError) as error:
            raise DataError(f"L{where[1:]} is no JSON in UTF-8 ({error}). Write one object per line.") from error
        given = tuple(name for name, _ in pairs) if isinstance(pairs, Pairs) else ()
        if given not in settled:
            settled[given] = settle(given, columns, optional, f"Table {path}")
        cells = dict(zip(settled[given], (value for _, value in pairs), strict=True)) if given else {}
        if any(cells.get(name) is None for name in columns):
            raise DataError(f"L{where[1:]} is no object with {' and '.join(columns)}. Add what is missing.")
        known = (*columns, *optional)
        row = Row((n, cell_of(cells[n], n, where, n in columns) if n in known else str(cells[n])) for n in cells if n)
        row.where = where
        rows.append(row)
    return rows


class Pairs(list):
    """An object's names and values as they stand, since a name may stand twice."""


def refuse_constant(name: str) -> None:
    """Raise ValueError for NaN and Infinity, which Python's JSON knows and JSON does not."""
    raise ValueError(f"{name} is no JSON")


def cell_of(value: object, name: str, where: str, text_only: bool) -> str:
    """A value of JSON as a text. Raises DataError for what is none."""
    if isinstance(value, list) and not isinstance(value, Pairs) and not text_only:
        if all(isinstance(part, str) and ";" not in part for part in value):
            return ";".join(part.strip() for part in value)
    elif isinstance(value, str) or value is None:
        return (value or "").strip()
    elif type(value) is int and not text_only:
        return str(value)
    raise DataError(f"L{where[1:]} has as {name} {value!r:.60}, which is no text. Put it in quotes.")


def decoded(path: Path, kind: str, needs: str, what: str = "Table") -> str:
    """A text file in UTF-8, or in UTF-16 or UTF-32 with its byte order mark. Raises DataError where it is missing or
    none. what, kind, needs: what it is, should be written as and hold, for the messages."""
    try:
        content = path.read_bytes()
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise DataError(f"{what} {path} is missing. Restore it; {needs}.") from None
        raise DataError(f"{what} {path} cannot be read ({error.strerror}).") from error
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
        if "\0" in text:
            raise ValueError("it holds zero bytes")
    except ValueError as error:
        raise DataError(f"{what} {path} cannot be read ({error}): it is no {kind} in UTF-8. Save it so.") from error
    return text


def settle(names: tuple[str, ...], columns: Sequence[str], optional: Sequence[str], whose: str) -> list[str]:
    """The names to use for those of a header. Raises DataError for one that stands twice, or nearly is one that is
    looked for; warns (DataWarning) of one that is used though it is not written so."""
    known = {plain(name): name for name in (*columns, *optional)}
    used = [known.get(plain(name), name.strip()) for name in names]
    counts = Counter(name.casefold() for name in used)
    for given, name in zip(names, used, strict=True):
        if name and counts[name.casefold()] > 1:
            raise DataError(f"{whose} has the column {name!r:.60} more than once. Rename or remove one.")
        if given != name and plain(given) in known:
            warnings.warn(f"{whose}: its column {given!r} is read as {name!r}.", DataWarning, 3)
    for name in used:
        for looked_for in optional:
            if looked_for not in used and name not in known.values() and near(plain(name), plain(looked_for)):
                raise DataError(
                    f"{whose} has a column {name!r}, which is nearly {looked_for!r}. Rename it, to {looked_for!r} if "
                    "that is meant, or remove it."
                )
    return used


def near(name: str, looked_for: str) -> bool:
    """Whether one name may be meant by another: a slip of the pen, a plural, a synonym, or what a number of it would be
    called."""
    stems = (looked_for.rstrip("s"), *SYNONYMS.get(looked_for, ()))
    found = [re.fullmatch(rf"(?:data|dataset|image|img)?{stem}s?(.*)", name) for stem in stems]
    if any(found):
        number = r"\d*|s?(uids?|ids?|no|nr|num|number|key|name|labels?|list)"
        return any(re.fullmatch(number, rest[1]) for rest in found if rest)
    return difflib.SequenceMatcher(None, name, looked_for).ratio() >= ALIKE
