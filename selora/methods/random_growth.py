"""The control for the Fisher scores: SeLoRA's own growth schedule, with the layers drawn at random.

At each step at which the SeLoRA run of the same data set and seed grew n layers of a network, n layers of that network
grow here. Whatever SeLoRA has beyond this is owed to which layers it chose.
"""

from collections.abc import Mapping

import pandas as pd
import torch
from torch import nn

from selora.adapters import ADAPTER, draw_row
from selora.expansion import SeLoRA
from selora.methods.lora import LoRA
from selora.training import generator


class RandomGrowth(LoRA):
    def start(self, networks: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
        self.controller = SeLoRA(networks, optimizer)
        tests = pd.read_csv(self.earlier / "expansions.csv")
        self.schedule = tests.groupby(["step", "network"]).expanded.sum()

    def after_step(self, step: int) -> list[dict]:
        if step not in self.schedule.index.get_level_values("step"):
            return []
        draw, records = generator(self.seed, 7, step), []
        for network, count in self.schedule[step].items():
            layers = {key: layer for key, layer in self.controller.layers.items() if key[0] == network}
            chosen = torch.randperm(len(layers), generator=draw)[:count].tolist()
            for i, (key, layer) in enumerate(layers.items()):
                if i in chosen:
                    self.controller.grow(key, draw_row(layer.lora_A[ADAPTER].weight, draw))
                rank = layer.lora_A[ADAPTER].weight.shape[0]
                records.append(
                    {"step": step, "network": network, "layer": key[1], "rank": rank, "expanded": i in chosen}
                )
        return records
