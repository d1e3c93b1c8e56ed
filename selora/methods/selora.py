"""SeLoRA: LoRA whose ranks start at 1 and grow where the Fisher information says so (Algorithm 1 of the paper)."""

from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from torch import nn

from selora.adapters import lora_pair
from selora.expansion import SeLoRA
from selora.methods.lora import LoRA


class SelfExpandingLoRA(LoRA):
    def start(self, networks: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
        how = {name: self.settings[name] for name in ("threshold", "interval", "init")}
        self.controller = SeLoRA(networks, optimizer, seed=self.seed, **how)  # which draws the first A

    def around(self, step: int) -> AbstractContextManager:
        if step % self.controller.interval == 0:
            norms = torch.stack(
                [lora_pair(layer)[1].weight.detach().norm() for layer in self.controller.layers.values()]
            )
            self.b_norms = dict(zip(self.controller.layers, norms.tolist(), strict=True))
        return self.controller.probe(step)

    def after_step(self, step: int) -> list[dict]:
        """The controller's records, with the norm that B had in the test: what the FI-Ratio falls with."""
        records = self.controller.expand(step)
        return [record | {"b_norm": self.b_norms[record["network"], record["layer"]]} for record in records]
