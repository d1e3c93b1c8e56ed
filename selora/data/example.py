"""What every data set yields: examples of three splits, or an error that says what to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "val", "test")


class Printable(Exception):
    """What can be printed whatever a file is called: bytes that are no text stand as \\udcff."""

    def __str__(self) -> str:
        return super().__str__().encode(errors="backslashreplace").decode()


class DataError(Printable, ValueError):
    """Data that is missing or cannot be used. The message names the file or the choices, and what to do."""


class DataWarning(Printable, UserWarning):
    """Data that is used with a reservation, or left out. The message names it and says why."""


@dataclass(frozen=True)
class Example:
    """One radiograph with the text it belongs to. findings: names out of FINDINGS (`findings`). places: parallel to
    them, where each is ('left base + right upper'), '' where that is not said; empty for a set that names no places.
    study: what its pictures have in common (a study, a report or a patient) and may stand in one split alone; '' where
    that is not known."""

    id: str
    path: Path
    prompt: str
    findings: tuple[str, ...]
    places: tuple[str, ...] = ()
    study: str = ""


Parts = dict[str, list[Example]]  # a data set by split
