"""The control for the Fisher scores: SeLoRA's own growth schedule, with the layers drawn at random.

Wherever the SeLoRA run of the same data set and seed grew a layer, here a layer drawn from those of the same network
and the same size (d_in + d_out) grows, so that both hold as many parameters after every step. What SeLoRA has beyond
this is owed to which layers it chose among those of one size.
"""

import torch

from selora.adapters import ADAPTER, draw_rows
from selora.diffusion.draws import generator
from selora.methods.scheduled import ScheduledGrowth

STREAM = 7  # of draws, see `diffusion.draws`


class RandomGrowth(ScheduledGrowth):
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
