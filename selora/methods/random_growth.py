"""The control for the Fisher scores: SeLoRA's own growth schedule, with the layers drawn at random.

Wherever the SeLoRA run of the same data set and seed grew a layer, here a layer drawn from those of the same network
and the same size (d_in + d_out) grows, so that both hold as many parameters after every step. What SeLoRA has beyond
this is owed to which layers it chose among those of one size.
"""

import json
from collections.abc import Mapping

import pandas as pd
import torch
from torch import nn

from selora.adapters import ADAPTER, add_lora, draw_row
from selora.diffusion.loop import generator
from selora.expansion import SeLoRA
from selora.methods.lora import LoRA


class RandomGrowth(LoRA):
    def attach(self, networks: Mapping[str, nn.Module]) -> None:
        settings = json.loads((self.earlier / "result.json").read_text())["settings"]["method"]
        for model in networks.values():
            add_lora(model, settings["rank"], self.seed)

    def start(self, networks: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
        self.controller = SeLoRA(networks, optimizer)
        tests = pd.read_csv(self.earlier / "expansions.csv")
        self.tested = set(tests.step)
        grown = tests[tests.expanded].itertuples()
        # (step, network, d_in + d_out) of each layer that SeLoRA grew
        self.schedule = pd.Series([(t.step, t.network, self.size((t.network, t.layer))) for t in grown]).value_counts()

    def size(self, key: tuple[str, str]) -> int:
        layer = self.controller.layers[key]
        return layer.in_features + layer.out_features

    def after_step(self, step: int) -> list[dict]:
        if step not in self.tested:
            return []
        draw, chosen = generator(self.seed, 7, step), set()
        for (at, network, size), count in sorted(self.schedule.items()):
            if at == step:
                alike = [key for key in self.controller.layers if key[0] == network and self.size(key) == size]
                chosen |= {alike[i] for i in torch.randperm(len(alike), generator=draw)[:count].tolist()}
        records = []
        for key, layer in self.controller.layers.items():
            if key in chosen:
                self.controller.grow(key, draw_row(layer.lora_A[ADAPTER].weight, draw))
            rank = layer.lora_A[ADAPTER].weight.shape[0]
            records.append({"step": step, "network": key[0], "layer": key[1], "rank": rank, "expanded": key in chosen})
        return records
