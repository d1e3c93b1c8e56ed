"""SoRA (Ding et al. 2023): gated LoRA of a high rank whose gates a proximal step drives to zero.

After each step of the optimizer every gate g becomes sign(g) max(|g| - t, 0), the proximal operator of t |g|; ranks
whose gate ends at zero are dropped. The study's runs are far shorter than those of the original, so t is set by the
run's length: a gate that gets no gradient closes at the same share of every run.
"""

from collections.abc import Callable, Mapping

import torch
from torch import nn

from selora.adapters import ADAPTER, all_lora_layers
from selora.methods.gates import add_gates, fold_gates
from selora.methods.lora import LoRA

START = 0.5  # of every gate


class SoRA(LoRA):
    """Settings: rank (at the start), closing (share of the steps at which a gate without gradient has closed)."""

    def attach(self, networks: Mapping[str, nn.Module]) -> None:
        super().attach(networks)
        self.networks = networks
        self.handles = add_gates(networks, torch.full((self.settings["rank"],), START))

    def after_step(self, step: int) -> list[dict]:
        for layer in all_lora_layers(self.networks).values():
            gate = layer.lora_A[ADAPTER].gate
            gate.data = nn.functional.softshrink(gate.data, START / (self.settings["closing"] * self.steps))
        return []

    def settled(self, step: int) -> bool:
        return step >= self.settings["closing"] * self.steps

    def finish(self, networks: Mapping[str, nn.Module], validate: Callable[[], float]) -> dict:
        fold_gates(networks, self.handles)
        return {}
