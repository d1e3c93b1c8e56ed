"""A part of a split: for trainings on few images."""

from __future__ import annotations

import random
from collections.abc import Sequence

from .checks import grouped
from .example import DataError, Example


def few_of(examples: Sequence[Example], count: int) -> list[Example]:
    """The first `count` of some examples, in an order that is drawn once and for all: a larger part begins with each
    smaller one. Studies stay whole; where the next one does not fit, the part is as much smaller.

    Raises DataError where there are fewer.
    """
    if count > len(examples):
        raise DataError(
            f"{count} training images are asked for, and there are {len(examples)}. Lower the profile's train_images "
            "or utility, or add images."
        )
    studies = grouped(examples, lambda example: example.study or example.id)
    random.Random(0).shuffle(studies)
    part = []
    for study in studies:
        if len(part) + len(study) > count:
            break
        part += study
    return part
