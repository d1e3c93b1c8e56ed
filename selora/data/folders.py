"""Where a real data set is kept: a folder that was named, else data/raw."""

from __future__ import annotations

import os
from pathlib import Path

from selora.files import RAW

from .example import DataError


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
