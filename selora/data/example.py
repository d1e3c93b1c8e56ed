"""What every data set yields: examples of three splits, or an error that says what to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "val", "test")


class DataError(ValueError):
    """Data that is missing or cannot be used. The message names the file or the choices, and what to do."""


@dataclass(frozen=True)
class Example:
    """One radiograph with the text it belongs to. findings: names out of FINDINGS (`findings`). places: parallel to
    them, where each is ('left base + right upper'), '' where that is not said; empty for a set that names no places."""

    id: str
    path: Path
    prompt: str
    findings: tuple[str, ...]
    places: tuple[str, ...] = ()


def check_split(split: str) -> None:
    """Raises DataError for a split that does not exist."""
    if split not in SPLITS:
        raise DataError(f"Unknown split {split!r}. Choose from: {', '.join(SPLITS)}.")
