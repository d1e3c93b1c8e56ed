"""Where the data sets lie, what findings they name, and the names that others import from here."""

from __future__ import annotations

import os
from pathlib import Path

from .example import SPLITS, DataError, Example, check_split
from .pictures import open_image

__all__ = ["FINDINGS", "RAW", "RENDERED", "SPLITS", "DataError", "Example", "check_split", "given_folder",
           "named_root", "open_image"]  # fmt: skip

RENDERED = Path(__file__).resolve().parents[2] / "data"  # the rendered sets come with the repository
RAW = RENDERED / "raw"  # what is fetched; not tracked
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
