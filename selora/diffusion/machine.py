"""One run over several processes (`accelerate launch -m selora.study ...`): each takes its share of every batch, sums
are taken over all. A single process is its own share, and nothing here costs it anything."""

from collections.abc import Iterable
from datetime import timedelta

import torch
from accelerate import PartialState
from accelerate.utils import reduce

PATIENCE = timedelta(hours=6)  # for the others while the main process scores; NCCL's own is ten minutes


def state() -> PartialState:
    """Which process this is, of how many, on which device: a CUDA device if there is one, else the CPU."""
    return PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


def pieces(count: int, accumulation: int) -> list[slice]:
    """The slices of a batch of `count` samples that this process puts through the networks, one after the other.

    All processes' slices are of one size, so that a mean of their means is the batch's.

    Raises:
        ValueError: for a batch that cannot be cut so.
    """
    this = state()
    size, rest = divmod(count, this.num_processes * accumulation)
    if rest:
        raise ValueError(
            f"a batch of {count} cannot be cut into {this.num_processes} processes x {accumulation} equal parts: "
            "choose a batch_size that both divide"
        )
    starts = range(this.process_index * accumulation * size, (this.process_index + 1) * accumulation * size, size)
    return [slice(start, start + size) for start in starts]


def average(tensors: Iterable[torch.Tensor]) -> None:
    """Replace tensors of one type and device by their mean over all processes, in one exchange."""
    if state().num_processes > 1:
        tensors = list(tensors)
        flat = reduce(torch.cat([t.flatten() for t in tensors]), "mean")
        for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))
