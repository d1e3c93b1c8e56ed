"""SeLoRA: LoRA whose ranks start at 1 and grow where the Fisher information says so (Algorithm 1 of the paper)."""

from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from torch import nn

from selora.expansion import SeLoRA
from selora.methods.lora import LoRA


class SelfExpandingLoRA(LoRA):
    def start(self, networks: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
        how = {name: self.settings[name] for name in ("threshold", "interval", "init")}
        self.controller = SeLoRA(networks, optimizer, seed=self.seed, **how)  # which draws the first A

    def around(self, step: int) -> AbstractContextManager:
        return self.controller.probe(step)

    def after_step(self, step: int) -> list[dict]:
        return self.controller.expand(step)
