"""montgomery: the real Montgomery County set of the National Library of Medicine, read where the user keeps it."""

from __future__ import annotations

import random
import re
from pathlib import Path

from .checks import checked, warn_of_others
from .example import DataError, Example, Parts
from .folders import given_folder
from .tables import decoded
from .texts import is_file_name, is_placeholder, real_text

GET_IT = (
    "Get the Montgomery County set from the National Library of Medicine (python -m selora.data.fetch montgomery) "
    "and name the folder with MontgomerySet by SELORA_DATA."
)
LABELS = {"_0": "normal", "_1": "tuberculosis"}  # how a case's name ends
SEX = {"M": "male", "F": "female"}
HEADER = re.compile(r"\s*(?:patient\W{0,3}s?\s+)?(sex|gender|age)\s*[:=]\s*(.*?)\s*", re.I)
OTHER_LINE = re.compile(  # a header, with its colon or without
    r"([^\W\d_][\w'’./() -]{0,40}[:=](\s|$)|patient\W{0,3}s?\s+(sex|gender|age|name|id)\b"
    r"|(sex|gender)\b\W*(m|male|f|female|o|other)\W*$|age\b\W*\d+\s*[a-z]*( old)?\W*$|(m|f|(fe)?male)\W*$"
    r"|(m|f|(fe)?male)\W+\d+\W*(y|yrs?|years?)\b( old)?\W*$"
    r"|(mrn|dob|accession|id|name)\b(?!-)|patient\W*(no\b)?\W*\d+\W*$"
    # a date, a time, a number of somebody or something, a rule
    r"|\d{1,4}(?P<sign>[-/.])\d{1,2}(?P=sign)\d{1,4}\b[\d\s:.,apm]*$|\d{1,2}[:.]\d{2}([:.]\d{2})?\s*([ap]m)?$|\d{5,}\W*$"
    r"|(\d{1,2}(st|nd|rd|th|\.)? [a-z]{3,9}\.?|[a-z]{3,9}\.? \d{1,2}(st|nd|rd|th)?),? \d{4}\W*$|[\W_]{3,}$"
    # a heading, a signature
    r"|\W*(findings?|impressions?|conclusions?|(end of )?report|history|indications?|techniques?|comparisons?"
    r"|end|page \d+( of \d+)?)\W*$"
    r"|((electronically )?(signed|dictated|reported|interpreted|transcribed|verified|reviewed|approved) by|/s/)"
    r"|(dr|prof)\b\.? |.*,\s*(m\.?\s?d|ph\.?d)\.?$|([a-z]\.? ?)?[a-z'’-]+ (m\.?\s?d|ph\.?d)\.?$)",
    re.I,
)
AGE = re.compile(r"0*(\d{1,3})\s*(?:(y|yrs?|years?)|(m|mos?|months?)|(w|wks?|weeks?)|(d|days?))(?:\s+old)?\.?", re.I)
DAYS = {"years": 365, "months": 30, "weeks": 7, "days": 1}
OLDEST = 130 * DAYS["years"]


def load(root: Path | None = None) -> Parts:
    """The examples by split: 80 % train and 20 % test, drawn with seed 42; 'val' is empty, as in the paper.

    Drawn by image, as in the paper: a few patients have two images, which may fall on both sides.

    root: the folder that holds `MontgomerySet`, or that folder itself; by default SELORA_DATA's, else data/raw.
    Raises DataError where the folder is missing, an image and its reading do not come together, a line of a reading is
    not understood, or images stand twice.
    """
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
        if case[-2:] not in LABELS:
            raise DataError(f"Image {images[case]} has a name without _0 (normal) or _1 (tuberculosis) at its end.")
    examples = [
        Example(case, path, compose(*parse(readings[case])), (LABELS[case[-2:]],)) for case, path in images.items()
    ]
    warn_of_others(folder, (folder / "CXR_png").iterdir(), examples, "the set, as PNG with a reading,")
    random.Random(42).shuffle(examples)
    held_out = round(0.2 * len(examples))
    return checked({"train": examples[held_out:], "val": [], "test": examples[:held_out]})


def find(root: Path | None) -> Path:
    """The MontgomerySet folder. Raises DataError where it or one of its two parts is not there."""
    given = given_folder(root, GET_IT)
    folder = given if given.name == "MontgomerySet" else given / "MontgomerySet"
    for part in (folder, folder / "CXR_png", folder / "ClinicalReadings"):
        if not part.is_dir():
            raise DataError(f"Folder {part.resolve()} is not there. {GET_IT}")
    return folder


def parse(path: Path) -> tuple[str, str, str]:
    """Sex ('M', 'F' or 'O'), age ('27 years', '8 months') and reading of one text file; a reading of several lines
    becomes one. Raises DataError, with the line, where one of them is missing, stands twice or is not understood."""
    found, lines = {}, []
    text = decoded(path, "text", "it holds a patient's sex, age and reading", what="Reading")
    for number, line in enumerate(re.split("\r\n|\r|\n", text), start=1):
        if header := HEADER.fullmatch(line):
            name = {"gender": "sex"}.get(header[1].lower(), header[1].lower())
            if name in found:
                raise DataError(f"Line {number} of {path} tells the {name} again. Remove one.")
            found[name] = read_sex(header[2]) if name == "sex" else read_age(header[2])
            if header[2] and not found[name]:
                raise DataError(
                    f"Line {number} of {path} has the {name} {header[2]!r}, which is not understood. Write "
                    f"{'M, F or O' if name == 'sex' else 'a number above 0 with Y, M, W or D'}."
                )
        elif is_no_reading(line.strip()):
            raise DataError(f"Line {number} of {path} is no part of a reading: {line.strip()!r:.60}. Remove it.")
        elif line.strip():
            lines.append((number, line))
    for number, line in lines if len(lines) > 1 else ():  # else there is no reading at all
        if is_placeholder(line) and any(sign.isalnum() for sign in line):
            raise DataError(f"Line {number} of {path} stands for none: {line.strip()!r:.60}. Remove it.")
    for name in ("sex", "age"):
        if not found.get(name):
            raise DataError(f"Reading {path} has no {name}. Replace it with the published file.")
    reading = " ".join(line for _, line in lines).strip()
    if not reading:
        raise DataError(f"Reading {path} has no reading. Replace it with the published file.")
    return found["sex"], found["age"], real_text(reading, f"Reading {path}")


def is_no_reading(line: str) -> bool:
    """Whether a line of a reading is something else: a header, a heading, a name, a date, an age, a file's name."""
    return bool(OTHER_LINE.match(line) or AGE.fullmatch(line)) or is_file_name(line)


def read_sex(value: str) -> str:
    """'M', 'F' or 'O' of a header's value; '' where it is none of them."""
    return {"m": "M", "male": "M", "f": "F", "female": "F", "o": "O", "other": "O"}.get(value.lower(), "")


def read_age(value: str) -> str:
    """'27 years' of DICOM's '027Y', '8 months' of '008M' or '8 months'; '' where it is no age with its unit."""
    age = AGE.fullmatch(value)
    if not age:
        return ""
    unit = next(unit for unit, named in zip(DAYS, age.groups()[1:], strict=True) if named)
    number = int(age[1])
    if not number or number * DAYS[unit] > OLDEST:
        return ""
    return f"{number} {unit if number != 1 else unit[:-1]}"


def compose(sex: str, age: str, reading: str) -> str:
    """The prompt: sex, age ('27 years') and findings. A sex that is neither M nor F is left out, not guessed."""
    person = f"{SEX[sex]}, " if sex in SEX else ""
    return f"{person}{age} old, {reading}"
