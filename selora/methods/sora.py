"""SoRA (Ding et al. 2023): gated LoRA of a high rank whose gates a proximal step drives to zero.

To the loss comes an L1 term, `penalty` times the mean |g| of all gates; after each step every gate becomes
sign(g) max(|g| - t, 0), the proximal operator of t |g|; ranks whose gate ends at zero are dropped. As in the released
code gates are drawn from N(0, 1), the scaling is 16 / 8, and gates have a learning rate of their own. There t is 3e-4
in 14,000 steps, 4.3 deviations of a gate in all, at a learning rate of 8e-4. Runs are far shorter here, so t is 4.3 by
the number of steps, and the gates' learning rate keeps its ratio to it.
"""

from collections.abc import Callable, Mapping

import torch
from torch import nn

from selora.adapters import ADAPTER, add_lora, all_lora_layers
from selora.diffusion.draws import generator
from selora.methods.gates import add_gates, fold_gates
from selora.methods.lora import LoRA

STREAM = 11  # of draws, see `diffusion.draws`


class SoRA(LoRA):
    """Settings: rank (at the start), alpha (the scaling is alpha / rank), penalty (weight of the L1 term), shrinkage
    (what a gate without gradient loses over the run), rate (the gates' learning rate by the threshold)."""

    def attach(self, networks: Mapping[str, nn.Module]) -> None:
        for model in networks.values():
            add_lora(model, self.settings["rank"], self.seed, alpha=self.settings["alpha"])
        self.networks, draw = networks, generator(self.seed, STREAM)
        self.threshold = self.settings["shrinkage"] / self.steps
        self.handles = add_gates(networks, torch.ones(self.settings["rank"]))
        for gate in self.gates():
            gate.data = torch.randn(gate.shape, generator=draw).to(gate)

    def gates(self) -> list[nn.Parameter]:
        """All gates, (rank,) each."""
        return [layer.lora_A[ADAPTER].gate for layer in all_lora_layers(self.networks).values()]

    def start(self, networks: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
        """Give the gates their own learning rate."""
        gates = set(self.gates())
        (group,) = optimizer.param_groups
        group["params"] = [p for p in group["params"] if p not in gates]
        optimizer.add_param_group({"params": self.gates(), "lr": self.settings["rate"] * self.threshold})

    def loss(self, loss: torch.Tensor) -> torch.Tensor:
        return loss + self.settings["penalty"] * torch.cat(self.gates()).abs().mean()

    def after_step(self, step: int) -> list[dict]:
        for gate in self.gates():
            gate.data = nn.functional.softshrink(gate.data, self.threshold)
        return []

    def finish(self, networks: Mapping[str, nn.Module], validate: Callable[[], float]) -> dict:
        fold_gates(networks, self.handles)
        return {}
