"""What every data set yields, and how an image becomes a training picture."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from selora.files import RAW

SPLITS = ("train", "val", "test")
FINDINGS = (
    "normal",
    "cardiomegaly",
    "opacity",
    "nodule",
    "calcified granuloma",
    "pleural effusion",
    "atelectasis",
    "hyperinflation",
    "hypoinflation",
    "scarring",
    "scoliosis",
    "device",
    "cavity",
    "miliary nodules",
    "tuberculosis",
)


class DataError(ValueError):
    """Data that is missing or cannot be used. The message names the file or the choices, and what to do."""


@dataclass(frozen=True)
class Example:
    """One radiograph with the text it belongs to. findings: names out of FINDINGS. places: parallel to them, where each
    is ('left base + right upper'), '' where that is not said; empty for a set that names no places."""

    id: str
    path: Path
    prompt: str
    findings: tuple[str, ...]
    places: tuple[str, ...] = ()


def open_image(path: Path, size: int) -> Image.Image:
    """Reads a radiograph as the paper does: shortest side resized to `size` pixels, centre crop, RGB of 8 bits.

    Any format of Pillow, any mode, turned as its EXIF data says; and DICOM, by its ending (.dcm, .dicom) or its
    preamble. 16-bit images are scaled from their own range. Raises DataError for a missing, corrupt or truncated file.
    """
    try:
        image = (read_dicom if is_dicom(path) else read_picture)(path)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"Image {path} is missing. Restore it, or take its case out of the set.") from None
    # Pillow raises SyntaxError for some broken PNG files
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"Image {path} cannot be read ({error}). Replace it with an intact copy.") from error
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def is_dicom(path: Path) -> bool:
    """Whether a file's ending or its preamble says DICOM. Raises FileNotFoundError where it is missing."""
    with Path(path).open("rb") as file:
        return Path(path).suffix.lower() in (".dcm", ".dicom") or file.read(132)[128:] == b"DICM"


def read_dicom(path: Path) -> Image.Image:
    """`pictures.read`; imported only here, since pydicom is needed for DICOM alone."""
    from . import pictures

    return pictures.read(path)


def read_picture(path: Path) -> Image.Image:
    """A picture in RGB of 8 bits, its whole size. Raises what Pillow raises."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
        image = Image.fromarray(to_8_bits(np.asarray(image, dtype=np.float32)))
    if image.has_transparency_data:  # what lies under a transparent pixel is arbitrary; around a radiograph is black
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return image.convert("L").convert("RGB")  # WebP knows no grey: its channels may differ by one level


def to_8_bits(values: np.ndarray) -> np.ndarray:
    """Values of any range, scaled so that the least is 0 and the greatest 255, as uint8."""
    values = np.asarray(values, dtype=np.float32)
    return np.uint8(np.rint((values - values.min()) / (float(np.ptp(values)) or 1.0) * 255))


def named_root(root: Path | str | None) -> Path | str | None:
    """The folder of the real sets that was named: `root`, else what the environment variable SELORA_DATA names."""
    return root or os.environ.get("SELORA_DATA")


def given_folder(root: Path | None, get_it: str) -> Path:
    """The folder of the real sets: `named_root`, else data/raw.

    Raises DataError, which ends with `get_it`, where it is not there.
    """
    folder = Path(named_root(root) or RAW)
    if not folder.is_dir():
        raise DataError(f"Folder {folder.resolve()} is not there. {get_it}")
    return folder


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


def check_split(split: str) -> None:
    """Raises DataError for a split that does not exist."""
    if split not in SPLITS:
        raise DataError(f"Unknown split {split!r}. Choose from: {', '.join(SPLITS)}.")
