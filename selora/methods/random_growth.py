"""The control for the Fisher scores: SeLoRA's own growth schedule, with the layers drawn at random.

Wherever the SeLoRA run of the same data set and seed grew a layer, here a layer drawn from those of the same network
and the same size (d_in + d_out) grows, so that both hold as many parameters after every step. What SeLoRA has beyond
this is owed to which layers it chose among those of one size.
"""

from collections import Counter
from collections.abc import Mapping

import torch
from torch import nn

from selora.adapters import ADAPTER, add_lora, draw_rows
from selora.diffusion.draws import generator
from selora.expansion import SeLoRA
from selora.methods.lora import LoRA
from selora.methods.matched import drawn

STREAM = 7  # of draws, see `diffusion.draws`


class RandomGrowth(LoRA):
    def attach(self, networks: Mapping[str, nn.Module]) -> None:
        rank = self.earlier["selora"].result["settings"]["method"]["rank"]
        for model in networks.values():
            add_lora(model, rank, self.seed)

    def start(self, networks: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
        self.controller = SeLoRA(networks, optimizer, seed=self.seed, init=drawn(self.earlier))  # SeLoRA's own first A
        tests = self.earlier["selora"].expansions
        self.tested = {test["step"] for test in tests}
        grown = [(test["step"], test["network"], test["layer"]) for test in tests if test["expanded"]]
        # how many layers SeLoRA grew, by (step, network, d_in + d_out)
        self.schedule = Counter((step, network, self.size((network, layer))) for step, network, layer in grown)

    def size(self, key: tuple[str, str]) -> int:
        layer = self.controller.layers[key]
        return layer.in_features + layer.out_features

    def after_step(self, step: int) -> list[dict]:
        if step not in self.tested:
            return []
        draw, chosen = generator(self.seed, STREAM, step), set()
        for (at, network, size), count in sorted(self.schedule.items()):
            if at == step:
                alike = [key for key in self.controller.layers if key[0] == network and self.size(key) == size]
                chosen |= {alike[i] for i in torch.randperm(len(alike), generator=draw)[:count].tolist()}
        records = []
        for key, layer in self.controller.layers.items():
            if key in chosen:
                weight = layer.lora_A[ADAPTER].weight
                self.controller.grow(key, draw_rows(weight, draw, init=self.controller.init))
            rank = layer.lora_A[ADAPTER].weight.shape[0]
            records.append({"step": step, "network": key[0], "layer": key[1], "rank": rank, "expanded": key in chosen})
        return records
