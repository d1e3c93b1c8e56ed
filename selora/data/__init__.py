"""The data sets of the study. Adding one is one file with a `load` and one line here."""

from __future__ import annotations

import warnings
from pathlib import Path

from . import imagefolder, iu_drr, iu_xray, montgomery, montgomery_drr
from .common import FINDINGS
from .example import SPLITS, DataError, DataWarning, Example
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
           "load_splits", "open_image"]  # fmt: skip


def load_examples(name: str, split: str, root: Path | None = None) -> list[Example]:
    """The examples of one split of a data set. root: where the set is kept, each set has a default.

    Raises DataError for an unknown data set or split, listing the choices, and for data that cannot be used.
    """
    if name not in DATASETS:
        raise DataError(f"Unknown data set {name!r}. Choose from: {', '.join(DATASETS)}.")
    return DATASETS[name](split, root)


def load_splits(name: str, root: Path | None = None) -> tuple[dict[str, list[Example]], list[str]]:
    """The examples of all splits of a data set, and what there is to say of it: what was left out and why, and what was
    read with a reservation. Raises DataError as `load_examples`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        parts = {split: load_examples(name, split, root) for split in SPLITS}
    said = [str(warning.message) for warning in caught if issubclass(warning.category, DataWarning)]
    return parts, list(dict.fromkeys(said))
