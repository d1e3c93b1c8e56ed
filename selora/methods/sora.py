"""SoRA (Ding et al. 2023): gated LoRA of a high rank whose gates a proximal step drives to zero.

After each step of the optimizer every gate g becomes sign(g) max(|g| - rate * sparsity, 0), the proximal operator of
sparsity * |g|; ranks whose gate ends at zero are dropped.
"""

from collections.abc import Callable, Mapping

import torch
from torch import nn

from selora.adapters import ADAPTER
from selora.methods.gates import add_gates, fold_gates, layers
from selora.methods.lora import LoRA


class SoRA(LoRA):
    """Settings: rank (at the start), sparsity (weight of the gates' L1 norm)."""

    def attach(self, networks: Mapping[str, nn.Module]) -> None:
        super().attach(networks)
        self.networks = networks
        self.handles = add_gates(networks, torch.ones(self.settings["rank"]))

    def start(self, networks: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
        self.threshold = optimizer.param_groups[0]["lr"] * self.settings["sparsity"]

    def after_step(self, step: int) -> list[dict]:
        for layer in layers(self.networks).values():
            gate = layer.lora_A[ADAPTER].gate
            gate.data = nn.functional.softshrink(gate.data, self.threshold)
        return []

    def finish(self, networks: Mapping[str, nn.Module], validate: Callable[[], float]) -> dict:
        fold_gates(networks, self.handles)
        return {}
