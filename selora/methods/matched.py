"""The control for size: LoRA with as many parameters as SeLoRA ended with, spread as evenly over the layers as can be.

One whole rank everywhere would be off by as much as a fifth. So each network mixes two neighbouring ranks: drawn layers
get the higher one, until the network has SeLoRA's number to within half its smallest layer.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from selora.adapters import add_lora, draw_rows, lora_layers, lora_pair, resize
from selora.diffusion.draws import generator
from selora.diffusion.method import Earlier
from selora.methods.lora import LoRA

STREAM = 9  # of draws, see `diffusion.draws`


class MatchedLoRA(LoRA):
    def attach(self, networks: Mapping[str, nn.Module]) -> None:
        draw = generator(self.seed, STREAM)
        for network, model in networks.items():
            add_lora(model, 1, self.seed)
            layers = lora_layers(model)
            sizes = [layer.in_features + layer.out_features for layer in layers.values()]
            mixed = neighbouring_ranks(sizes, self.earlier["selora"].result[f"{network}_params"], draw)
            for rank, name in zip(mixed, layers, strict=True):
                set_rank(model, name, rank, draw, drawn(self.earlier))


def neighbouring_ranks(sizes: Sequence[int], wanted: int, draw: torch.Generator) -> list[int]:
    """A rank for each layer, all the same or one more, so that the layers have `wanted` parameters or nearly so.

    Args:
        sizes: parameters of each layer per rank.
    """
    lower = max(1, wanted // sum(sizes))
    left, found = wanted - lower * sum(sizes), [lower] * len(sizes)
    for i in torch.randperm(len(sizes), generator=draw).tolist():
        if sizes[i] <= left:
            left, found[i] = left - sizes[i], lower + 1
    others = [i for i, rank in enumerate(found) if rank == lower]
    if others:
        nearest = min(others, key=lambda i: abs(left - sizes[i]))
        found[nearest] += abs(left - sizes[nearest]) < abs(left)
    return found


def set_rank(model: nn.Module, name: str, rank: int, draw: torch.Generator, init: str) -> None:
    """Give a LoRA layer that is not trained yet another rank: its A is drawn anew, its B zero."""
    A, B = (side.weight.data for side in lora_pair(model.get_submodule(name)))
    resize(model, name, draw_rows(A, draw, rank, init), B.new_zeros(len(B), rank))


def drawn(earlier: Mapping[str, Earlier]) -> str:
    """How the SeLoRA run that a control builds on drew its A, which the control draws alike: growth is not to be
    confounded with gain."""
    return earlier["selora"].result["settings"]["method"]["init"]
