"""DyLoRA (Valipour et al. 2023): one adapter trained to work at every rank up to r, then cut to its best one.

In each step a rank b is drawn, and only the first b rows of A and columns of B take part, scaled by alpha / b. The
layers are plain PEFT LoRA layers: a hook on `lora_A` cuts and scales what it returns.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from selora.adapters import ADAPTER, all_lora_layers, resize
from selora.diffusion.draws import generator
from selora.methods.lora import LoRA

STREAM = 4  # of draws, see `diffusion.draws`


class DyLoRA(LoRA):
    """Settings: rank (the largest; alpha is the same), newest_only (train just the b-th row and column)."""

    def attach(self, networks: Mapping[str, nn.Module]) -> None:
        super().attach(networks)
        self.cut_to, layers = None, all_lora_layers(networks).values()
        self.handles = [layer.lora_A[ADAPTER].register_forward_hook(self.cut) for layer in layers]

    def cut(self, _, inputs: tuple[torch.Tensor], hidden: torch.Tensor) -> torch.Tensor:
        """A x (..., r) with all but the first b entries zero, times alpha / b; as it is where no rank is set."""
        if self.cut_to is None:
            return hidden
        kept = torch.arange(hidden.shape[-1], device=hidden.device) < self.cut_to
        return hidden * kept * (self.settings["rank"] / self.cut_to)

    def start(self, networks: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
        if self.settings["newest_only"]:
            for layer in all_lora_layers(networks).values():
                layer.lora_A[ADAPTER].weight.register_hook(lambda gradient: self.newest(gradient, 0))
                layer.lora_B[ADAPTER].weight.register_hook(lambda gradient: self.newest(gradient, 1))

    def newest(self, gradient: torch.Tensor, axis: int) -> torch.Tensor:
        """A gradient with all but the b-th row (axis 0) or column (axis 1) zero; momentum still moves the others."""
        only = torch.zeros(gradient.shape[axis], device=gradient.device)
        only[self.cut_to - 1] = 1
        return gradient * (only[:, None] if axis == 0 else only)

    @contextmanager
    def around(self, step: int) -> Iterator[None]:
        self.cut_to = int(torch.randint(1, self.settings["rank"] + 1, (), generator=generator(self.seed, STREAM, step)))
        try:
            yield
        finally:
            self.cut_to = None

    def finish(self, networks: Mapping[str, nn.Module], validate: Callable[[], float]) -> dict:
        """Measure the loss at every rank and cut to the best; alpha / b goes into B, so that scaling stays 1."""
        losses = {}
        for rank in range(1, self.settings["rank"] + 1):
            self.cut_to = rank
            losses[rank] = validate()
        best = min(losses, key=losses.get)
        for handle in self.handles:
            handle.remove()
        for (network, name), layer in all_lora_layers(networks).items():
            A, B = layer.lora_A[ADAPTER].weight.data, layer.lora_B[ADAPTER].weight.data
            resize(networks[network], name, A[:best], B[:, :best] * (self.settings["rank"] / best))
        return {"best_rank": best, "loss_by_rank": losses}
