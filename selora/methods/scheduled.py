"""Growth on the schedule of a finished SeLoRA run, by other choices of layers: what its controls and other criteria
share. After every test both hold as many parameters, and they start from the same draw of A."""

from collections import Counter
from collections.abc import Mapping

import torch
from torch import nn

from selora.adapters import add_lora
from selora.expansion import SeLoRA
from selora.methods.lora import LoRA
from selora.methods.matched import drawn


class ScheduledGrowth(LoRA):
    def attach(self, networks: Mapping[str, nn.Module]) -> None:
        rank = self.earlier["selora"].result["settings"]["method"]["rank"]
        for model in networks.values():
            add_lora(model, rank, self.seed)

    def start(self, networks: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
        self.controller = self.control(networks, optimizer)
        tests = self.earlier["selora"].expansions
        self.tested = {test["step"] for test in tests}
        grown = [(test["step"], test["network"], test["layer"]) for test in tests if test["expanded"]]
        # how many layers SeLoRA grew, by (step, network, d_in + d_out)
        self.schedule = Counter((step, network, self.size((network, layer))) for step, network, layer in grown)

    def control(self, networks: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> SeLoRA:
        """What grows the layers; it draws SeLoRA's own first A."""
        return SeLoRA(networks, optimizer, seed=self.seed, init=drawn(self.earlier))

    def size(self, key: tuple[str, str]) -> int:
        """Parameters of a layer, named (network, layer), per rank."""
        layer = self.controller.layers[key]
        return layer.in_features + layer.out_features
