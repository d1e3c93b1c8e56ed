"""In it: the data sets of the study, and how their pictures, texts and findings are read; no torch.
May enter: a data set, one file with a `load` and one line here, or what several of them read by.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from . import imagefolder, iu_drr, iu_xray, montgomery, montgomery_drr
from .example import SPLITS, DataError, DataWarning, Example, Parts
from .findings import FINDINGS
from .pictures import open_image

DATASETS = {
    "iu-drr": iu_drr.load,
    "montgomery-drr": montgomery_drr.load,
    "montgomery": montgomery.load,
    "iu-xray": iu_xray.load,
    "iu-xray-released": iu_xray.load_released,
    "imagefolder": imagefolder.load,
}

NOT_SHIPPED = tuple(name for name in DATASETS if not name.endswith("-drr"))  # the real sets, and the user's own

__all__ = ["DATASETS", "FINDINGS", "NOT_SHIPPED", "SPLITS", "DataError", "DataWarning", "Example", "load_examples",
           "load_parts", "load_splits", "open_image"]  # fmt: skip


def load_examples(name: str, split: str, root: Path | None = None) -> list[Example]:
    """The examples of one split of a data set. root: where the set is kept, each set has a default.

    Raises DataError for an unknown data set or split, listing the choices, and for data that cannot be used.
    """
    if split not in SPLITS:
        raise DataError(f"Unknown split {split!r}. Choose from: {', '.join(SPLITS)}.")
    return load_parts(name, root)[split]


def load_parts(name: str, root: Path | None = None) -> Parts:
    """The examples of all splits of a data set, read and checked once. Raises DataError as `load_examples`, and for a
    file or folder that the system does not let read."""
    if name not in DATASETS:
        raise DataError(f"Unknown data set {name!r}. Choose from: {', '.join(DATASETS)}.")
    try:
        parts = DATASETS[name](root)
    except OSError as error:
        what = f"{error.filename or 'a file of it'} cannot be read ({error.strerror or error})"
        raise DataError(f"Data set {name!r}: {what}. Make it readable, or copy it anew.") from error
    if odd := parts.keys() - set(SPLITS):
        raise DataError(f"Data set {name!r} has the splits {', '.join(sorted(odd))}. Choose from: {', '.join(SPLITS)}.")
    return {split: parts.get(split, []) for split in SPLITS}  # in one order, whatever a set is drawn in


def load_splits(name: str, root: Path | None = None) -> tuple[Parts, list[str]]:
    """`load_parts`, and what there is to say of the set: what was left out and why, and what was read with a
    reservation."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        parts = load_parts(name, root)
    said = [str(warning.message) for warning in caught if issubclass(warning.category, DataWarning)]
    return parts, list(dict.fromkeys(said))
