"""The controls for where ranks lie: LoRA of SeLoRA's number of parameters in each network, its ranks allotted anew.

All have their ranks from the first step on and never grow, with A drawn as SeLoRA draws it and scaling 1. The ranks are
SeLoRA's own, the same shuffled among layers of one size or among all of a network, those that another method ended
with, or in proportion to a layer's size. What does not add up to SeLoRA's number is brought to it by `to_budget`.
"""

from collections.abc import Mapping, Sequence
from zlib import crc32

import torch
from torch import nn

from selora.adapters import add_lora, lora_layers
from selora.diffusion.draws import generator
from selora.methods.lora import LoRA
from selora.methods.matched import drawn, set_rank

STREAM = 16  # of draws, see `diffusion.draws`


class AllottedLoRA(LoRA):
    """Settings: allocation, one of `ALLOCATIONS`, or the method of an earlier run whose ranks are taken."""

    def attach(self, networks: Mapping[str, nn.Module]) -> None:
        """Raises ValueError for an unknown allocation, with the choices."""
        way = self.settings["allocation"]
        if way not in {**ALLOCATIONS, **self.earlier}:
            raise ValueError(f"unknown allocation '{way}': choose from {', '.join([*ALLOCATIONS, *self.earlier])}")
        # drawn for each way anew: only so could each have had the score of any other, which `analysis.budgets` tests
        draw = generator(self.seed, STREAM, crc32(way.encode()))
        for network, model in networks.items():
            add_lora(model, 1, self.seed)
            layers = lora_layers(model)
            sizes = [layer.in_features + layer.out_features for layer in layers.values()]
            grown, taken = (self.ranks(name, network, layers) for name in ("selora", way))
            wishes = taken or ALLOCATIONS[way](grown, sizes, draw)
            budget = sum(rank * size for rank, size in zip(grown, sizes, strict=True))
            for name, rank in zip(layers, to_budget(wishes, sizes, budget, draw), strict=True):
                set_rank(model, name, rank, draw, drawn(self.earlier))

    def ranks(self, method: str, network: str, layers: Sequence[str]) -> list[int]:
        """The ranks that an earlier run ended with in some layers of a network; [] where there is no such run."""
        rows = self.earlier[method].ranks if method in self.earlier else []
        found = {row["layer"]: row["rank"] for row in rows if row["network"] == network}
        return [found[layer] for layer in layers] if rows else []


def shuffled(ranks: Sequence[int], sizes: Sequence[int], draw: torch.Generator) -> list[int]:
    """The ranks in a drawn order."""
    return [ranks[i] for i in torch.randperm(len(ranks), generator=draw).tolist()]


def shuffled_alike(ranks: Sequence[int], sizes: Sequence[int], draw: torch.Generator) -> list[int]:
    """The ranks in a drawn order among the layers of each size: as many parameters, and as many of each size."""
    found = list(ranks)
    for size in sorted({*sizes}):
        places = [i for i, other in enumerate(sizes) if other == size]
        for i, rank in zip(places, shuffled([ranks[i] for i in places], [], draw), strict=True):
            found[i] = rank
    return found


def by_size(ranks: Sequence[int], sizes: Sequence[int], draw: torch.Generator) -> list[int]:
    """Ranks in proportion to the layers' sizes."""
    return list(sizes)


ALLOCATIONS = {"alike": shuffled_alike, "shuffled": shuffled, "by-size": by_size}  # of SeLoRA's ranks (layers,)


def to_budget(wishes: Sequence[float], sizes: Sequence[int], budget: int, draw: torch.Generator) -> list[int]:
    """Whole ranks in proportion to wished ones, 1 or more each, whose parameters are a budget to within half the
    smallest layer's per rank. Wishes that are whole and keep the budget are granted.

    One rank after the other goes to the layer that is furthest behind its wish among those that it still fits in: what
    scaling the wishes and rounding them gives (Webster's method), to the last parameter. Equals are drawn.

    Args:
        wishes: more than 0.
        sizes: parameters of each layer per rank, d_in + d_out.
        budget: at least one rank everywhere, `sum(sizes)`.
    """
    found, left = [1] * len(sizes), budget - sum(sizes)
    order = torch.randperm(len(sizes), generator=draw).tolist()

    def behind(i: int) -> float:
        return wishes[i] / (found[i] + 0.5)

    while fitting := [i for i in order if sizes[i] <= left]:
        first = max(fitting, key=behind)
        found[first], left = found[first] + 1, left - sizes[first]
    nearest = min(order, key=lambda i: (abs(left - sizes[i]), -behind(i)))
    found[nearest] += abs(left - sizes[nearest]) < left
    return found
