"""Dead numbers: what is not finite ends a run, before it is kept or scored."""

import math
from collections.abc import Mapping
from itertools import chain

import torch


class NotFinite(FloatingPointError):
    """A number that could be computed and is not finite."""


def lost_look(layer: str) -> NotFinite:
    """The error of a method that looks at the networks before it trains, and meets dead numbers at a layer."""
    return NotFinite(
        f"the look at the networks before training is lost: numbers at layer {layer} are not finite. Look at the "
        "training data and at the base's weights"
    )


def dead_tensors(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """The names of tensors that hold a number that is not finite. A GPU is waited for once, not once a tensor."""
    floating = {name: t for name, t in tensors.items() if t.is_floating_point()}
    if not floating:
        return []
    home = next(iter(floating.values())).device
    finite = torch.stack([t.isfinite().all().to(home) for t in floating.values()])
    return [name for name, whole in zip(floating, finite.tolist(), strict=True) if not whole]


def dead_numbers(record: object, name: str = "") -> list[str]:
    """The numbers in a nested record that are not finite, as 'floor.kid nan'; None stands for what has no value."""
    if isinstance(record, Mapping):
        return list(chain.from_iterable(dead_numbers(v, f"{name}.{k}".lstrip(".")) for k, v in record.items()))
    if isinstance(record, list | tuple):
        return list(chain.from_iterable(dead_numbers(v, f"{name}[{i}]") for i, v in enumerate(record)))
    return [f"{name} {record}"] if isinstance(record, float) and not math.isfinite(record) else []
