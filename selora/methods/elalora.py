"""ElaLoRA (Chang et al. 2025): ranks are moved from layer to layer, pruned and grown at once, their number kept.

An adapter is B diag(g) A, g zero at first, held near orthogonal. A rank scores as in AdaLoRA: sensitivity |w dL/dw|
times its uncertainty, both smoothed, of its gate and the means of its row and column. In each round every layer offers
its `candidates` least important ranks, as long as one is left to it. Of all these the b least important are pruned, and
the layers of the b most important grow by a rank, a random direction away from those they have, behind a closed gate.
b falls from `share` of the layers to none (cubic). As in the released code, the scaling is alpha / the first rank, and
in shares of a run the first round comes after 15 %, the last 25 % before the end, 24 in all. What becomes of the
optimizer's state of a layer that changes cannot be found there; here old ranks keep theirs, new ones start at zero.
"""

from collections import Counter
from collections.abc import Callable, Mapping

import torch
from torch import nn

from selora.adapters import ADAPTER, add_lora, all_lora_layers, lora_pair, resize
from selora.diffusion.draws import generator
from selora.methods.adalora import draw_short
from selora.methods.gates import add_gates, fold_gates, orthogonality
from selora.methods.lora import LoRA
from selora.moments import carry_state, resized

STREAMS = 13, 14  # of draws, at the start and in growth, see `diffusion.draws`
BETA = 0.85  # of both smoothings
CLOSED = 1e-13  # the gate of a new rank


class ElaLoRA(LoRA):
    """Settings: rank (the mean, kept), alpha (the scaling is alpha / rank), candidates (of a layer in a round), share
    (of the layers that lose a rank in the first round), warmup and final (shares of the steps before the first round
    and after the last), rounds (in all), orthogonality (the weight of that term)."""

    divisible = False  # importance is of the whole batch's gradient

    def attach(self, networks: Mapping[str, nn.Module]) -> None:
        s = self.settings
        for model in networks.values():
            add_lora(model, s["rank"], self.seed, alpha=s["alpha"])
        self.networks, self.layers = networks, all_lora_layers(networks)
        draw = generator(self.seed, STREAMS[0])
        for layer in self.layers.values():
            draw_short(*(side.weight for side in lora_pair(layer)), draw)
        self.scaling, self.handles = s["alpha"] / s["rank"], add_gates(networks, torch.zeros(s["rank"]))
        self.first, self.last = int(s["warmup"] * self.steps), self.steps - int(s["final"] * self.steps)
        self.interval = max(1, (self.last - self.first) // s["rounds"])
        self.smooth: dict[str, torch.Tensor] = {}  # sensitivities and uncertainties, by network, layer and part

    def start(self, networks: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        for layer in self.layers.values():
            layer.scaling[ADAPTER] = self.scaling  # whatever the rank

    def loss(self, loss: torch.Tensor) -> torch.Tensor:
        return loss + self.settings["orthogonality"] * orthogonality(
            [tuple(side.weight for side in lora_pair(layer)) for layer in self.layers.values()]
        )

    def settled(self, step: int) -> bool:
        return step >= self.last

    def parts(self, key: tuple[str, str]) -> dict[str, nn.Parameter]:
        """A layer's parameters by name; ranks lie along the first axis, of B along the second."""
        lora_A, lora_B = lora_pair(self.layers[key])
        return {"A": lora_A.weight, "B": lora_B.weight, "gate": lora_A.gate}

    @torch.no_grad()
    def after_step(self, step: int) -> list[dict]:
        if step >= self.last:
            return []
        for key in self.layers:
            for part, p in self.parts(key).items():
                mean, spread = (f"{'/'.join(key)}/{part}/{kind}" for kind in ("mean", "spread"))
                now = (p * p.grad).abs()
                self.smooth[mean] = BETA * self.smooth.get(mean, torch.zeros_like(p)) + (1 - BETA) * now
                away = (now - self.smooth[mean]).abs()
                self.smooth[spread] = BETA * self.smooth.get(spread, torch.zeros_like(p)) + (1 - BETA) * away
        if step <= self.first or (step - self.first) % self.interval:
            return []
        progress = (step - self.first) / (self.last - self.first)
        return self.move(step, round(self.settings["share"] * len(self.layers) * (1 - progress**3)))

    def scores(self, key: tuple[str, str]) -> torch.Tensor:
        """The importance of each of a layer's ranks, (r,)."""
        found = {}
        for part in ("A", "B", "gate"):
            mean, spread = (self.smooth[f"{'/'.join(key)}/{part}/{kind}"] for kind in ("mean", "spread"))
            found[part] = mean * spread
        return found["gate"] + found["A"].mean(dim=1) + found["B"].mean(dim=0)

    def move(self, step: int, count: int) -> list[dict]:
        """Prune the `count` least important of all layers' candidates, and grow the layers of the most important."""
        offered = []  # (score, layer, rank)
        for key in self.layers:
            scores = self.scores(key)
            least = scores.sort().indices[: min(self.settings["candidates"], len(scores) - 1)].tolist()
            offered += [(scores[i].item(), key, i) for i in least]
        offered.sort(key=lambda candidate: candidate[0])
        won = Counter(key for _, key, _ in offered[max(0, len(offered) - count) :])
        records = []
        for key in self.layers:
            gone = {i for _, other, i in offered[:count] if other == key}
            if gone or won[key]:
                self.change(step, key, gone, won[key])
            row = {"step": step, "network": key[0], "layer": key[1], "rank": len(self.parts(key)["gate"])}
            records.append(row | {"expanded": won[key] > len(gone)})
        return records

    def change(self, step: int, key: tuple[str, str], gone: set[int], more: int) -> None:
        """Take some of a layer's ranks away and give it `more` new ones."""
        layer, old = self.layers[key], self.parts(key)
        kept = [i for i in range(len(old["gate"])) if i not in gone]
        draw = generator(self.seed, STREAMS[1], step, list(self.layers).index(key))
        rows, columns = away_from(old["A"][kept], more, draw), away_from(old["B"].T[kept], more, draw).T
        A, B = torch.cat([old["A"][kept], rows]), torch.cat([old["B"][:, kept], columns], dim=1)
        resize(self.networks[key[0]], key[1], A, B)
        closed = old["gate"].new_full((more,), CLOSED)
        layer.lora_A[ADAPTER].gate = nn.Parameter(torch.cat([old["gate"][kept], closed]))
        layer.scaling[ADAPTER] = self.scaling
        for part, new in self.parts(key).items():
            axis = int(part == "B")
            carry_state(self.optimizer, old[part], new, kept, axis)
            for kind in ("mean", "spread"):
                name = f"{'/'.join(key)}/{part}/{kind}"
                self.smooth[name] = resized(self.smooth[name], new.shape, kept, axis)

    def state(self) -> dict[str, torch.Tensor]:
        return self.smooth

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        device = next(iter(self.layers.values())).lora_A[ADAPTER].weight.device
        self.smooth = {name: tensor.to(device) for name, tensor in state.items()}

    def finish(self, networks: Mapping[str, nn.Module], validate: Callable[[], float]) -> dict:
        fold_gates(networks, self.handles)
        return {}


def away_from(rows: torch.Tensor, count: int, draw: torch.Generator) -> torch.Tensor:
    """Rows (count, d) of length 1, each random, less what lies along the rows (r, d) and those drawn before it."""
    first = len(rows)
    for _ in range(count):
        new = torch.randn(rows.shape[1], generator=draw).to(rows)
        new = new - rows.T @ (rows @ new)
        rows = torch.cat([rows, (new / new.norm())[None]])
    return rows[first:]
