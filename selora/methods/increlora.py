"""IncreLoRA (Zhang et al. 2023): ranks start at 1 and the most important layers grow, until a budget is spent.

An adapter is B diag(g) A. A layer's importance is the sum of |W * dL/dW| over its update W = B diag(g) A, divided by
the root of its size, smoothed over steps and multiplied by its smoothed uncertainty. Each layer holds `step` ranks in
reserve, whose gates are fixed near zero while their rows and columns train already ('advance learning'); growing frees
those gates and appends a new reserve. Unlike SeLoRA's ratio, the importance says which layers matter now, not which
would gain. As in the released code the scaling is alpha by the layer's current rank, a layer grows by two ranks for a
mean of 4, and new ranks have moments, and counts of steps, of their own.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from selora.adapters import ADAPTER, add_lora, all_lora_layers, resize
from selora.diffusion.draws import generator
from selora.methods.gates import add_gates, fold_gates, orthogonality
from selora.methods.lora import LoRA
from selora.moments import carry_state, count_rows

RESERVED = 1e-5  # the reserve's gate: its output is next to nothing, its gradients are not zero
SPREAD = 0.02  # standard deviation of new entries, the released code's
STREAMS = 5, 6  # of draws, at the start and in growth, see `diffusion.draws`


class IncreLoRA(LoRA):
    """Settings: rank (the mean over both networks at the end), step (ranks that a layer grows by at a time), alpha (the
    scaling is alpha / current rank), growing (share of the steps by which the mean is reached), interval (steps between
    two growths), beta1 and beta2 (smoothing of importance and uncertainty), orthogonality (the weight of that term)."""

    divisible = False  # importance is of the whole batch's gradient: parts' would have to be summed, as large as W0

    def attach(self, networks: Mapping[str, nn.Module]) -> None:
        """Raises ValueError where there are too few growths for the budget, since a layer grows once at a time."""
        self.until = int(self.settings["growing"] * self.steps)
        self.rounds = self.until // self.settings["interval"]
        self.reserve = self.settings["step"]
        if self.rounds * self.reserve < self.settings["rank"] - 1:
            raise ValueError(
                f"increlora cannot reach a mean rank of {self.settings['rank']} in {self.rounds} growths: "
                f"choose a smaller interval than {self.settings['interval']}, or more than {self.steps} steps"
            )
        for model in networks.values():
            add_lora(model, 1 + self.reserve, self.seed)  # one active, the others in reserve
        self.networks, self.layers = networks, all_lora_layers(networks)
        draw = generator(self.seed, STREAMS[0])
        for layer in self.layers.values():
            for weight in (layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight):
                weight.data = SPREAD * torch.randn(weight.shape, generator=draw).to(weight)
        self.handles = add_gates(networks, torch.tensor([0.0] + [RESERVED] * self.reserve))
        zeros = torch.zeros(len(self.layers))
        self.importance, self.uncertainty = zeros, zeros.clone()

    def start(self, networks: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        count_rows(optimizer)
        for layer in self.layers.values():
            self.prepare(layer)

    def prepare(self, layer: nn.Module) -> None:
        """Scale a layer by its active rank, and keep its last gates where they are: a gradient of zero moves nothing
        under Adam if it always was zero."""
        gate = layer.lora_A[ADAPTER].gate
        layer.scaling[ADAPTER] = self.settings["alpha"] / (len(gate) - self.reserve)
        gate.register_hook(lambda gradient: torch.cat([gradient[: -self.reserve], 0 * gradient[-self.reserve :]]))

    @contextmanager
    def around(self, step: int) -> Iterator[None]:
        """Watch the layers' inputs and output gradients, from which dL/dW = D^T X follows, as long as ranks grow."""
        self.seen = {}
        if step > self.until:
            yield
            return
        handles = [layer.register_forward_hook(partial(self.watch, i)) for i, layer in enumerate(self.layers.values())]
        try:
            with torch.compiler.set_stance("force_eager"):  # compiled code does not see hooks
                yield
        finally:
            for handle in handles:
                handle.remove()

    def watch(self, index: int, layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(partial(self.score, index, layer, inputs[0].detach()))

    @torch.no_grad()
    def score(self, index: int, layer: nn.Module, x: torch.Tensor, gradient: torch.Tensor) -> None:
        A, B, gate = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight, layer.lora_A[ADAPTER].gate
        by_weight = gradient.flatten(0, -2).float().T @ x.flatten(0, -2).float()  # dL/dW, (d_out, d_in)
        update = layer.scaling[ADAPTER] * (B * gate) @ A
        self.seen[index] = (update * by_weight).abs().sum() / by_weight.numel() ** 0.5

    def after_step(self, step: int) -> list[dict]:
        if step > self.until:
            return []
        home = next(iter(self.seen.values())).device
        now = torch.stack([self.seen.get(i, torch.zeros((), device=home)) for i in range(len(self.layers))]).cpu()
        beta1, beta2 = self.settings["beta1"], self.settings["beta2"]
        self.importance = beta1 * self.importance + (1 - beta1) * now
        self.uncertainty = beta2 * self.uncertainty + (1 - beta2) * (now - self.importance).abs()
        if step % self.settings["interval"]:
            return []
        budget = (self.settings["rank"] - 1) * len(self.layers) // self.reserve  # times that a layer grows, in all
        nth = step // self.settings["interval"]
        count = budget * nth // self.rounds - budget * (nth - 1) // self.rounds
        scores = self.importance * self.uncertainty
        grown = set(scores.topk(min(count, len(scores))).indices.tolist())
        records = []
        for i, ((network, name), layer) in enumerate(self.layers.items()):
            if i in grown:
                self.grow(network, name, layer, generator(self.seed, STREAMS[1], step, i))
            rank = len(layer.lora_A[ADAPTER].gate) - self.reserve
            records.append(
                {"step": step, "network": network, "layer": name, "score": float(scores[i]), "rank": rank}
                | {"expanded": i in grown}
            )
        return records

    def grow(self, network: str, name: str, layer: nn.Module, draw: torch.Generator) -> None:
        lora_A, lora_B = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]
        A, B, gate = lora_A.weight, lora_B.weight, lora_A.gate
        rows = SPREAD * torch.randn(self.reserve, A.shape[1], generator=draw).to(A)
        columns = SPREAD * torch.randn(B.shape[0], self.reserve, generator=draw).to(B)
        resize(self.networks[network], name, torch.cat([A.data, rows]), torch.cat([B.data, columns], dim=1))
        lora_A.gate = nn.Parameter(torch.cat([gate.data, gate.data.new_full((self.reserve,), RESERVED)]))
        self.prepare(layer)
        for old, new in ((A, lora_A.weight), (B, lora_B.weight), (gate, lora_A.gate)):
            carry_state(self.optimizer, old, new)

    def loss(self, loss: torch.Tensor) -> torch.Tensor:
        return loss + self.settings["orthogonality"] * orthogonality(
            [(m.lora_A[ADAPTER].weight, m.lora_B[ADAPTER].weight) for m in self.layers.values()]
        )

    def settled(self, step: int) -> bool:
        return step >= self.until  # only then have ranks their mean, and all layers their last scaling

    def state(self) -> dict[str, torch.Tensor]:
        return {"importance": self.importance, "uncertainty": self.uncertainty}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        self.importance, self.uncertainty = state["importance"], state["uncertainty"]

    def finish(self, networks: Mapping[str, nn.Module], validate: Callable[[], float]) -> dict:
        fold_gates(networks, self.handles, self.reserve)
        return {}
