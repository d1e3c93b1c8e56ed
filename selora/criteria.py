"""What else the growth of layers could be decided by than the paper's FI-Ratio (Eq. 5), behind the same controller.

All is made of one matrix for each sample and layer, the gradient of the sample's own loss by the layer's weight, g_n =
s D_n^T X_n (d_out, d_in), which an ordinary backward pass shows (`selora.fisher`): the gradient by A is B^T g_n, by B
g_n A^T, by a candidate's column of B g_n K^T. With a = sum_n |g_n A^T|^2, b = sum_n |B^T g_n|^2, q = sum_n |g_n K^T|^2
the paper's ratio is 1 + q / (a + b). Each class says what its gain is; the ratio of the drawn K is recorded beside it.
None needs a forward or backward pass of its own.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from operator import methodcaller
from typing import TypeAlias

import torch
from accelerate.utils import broadcast, reduce
from peft.tuners.lora import Linear as LoraLinear
from torch.utils._pytree import tree_map_only

from selora.adapters import adapter_of, lora_pair, row_variance
from selora.expansion import SeLoRA
from selora.fisher import Gradients, column_of, fi_ratio, last_rows, row_squares, score, total, weight_gradients
from selora.probe import Key

# From a step to how many parameters the adapters of some networks, together, may hold after its test.
Target: TypeAlias = Callable[[int], Mapping[tuple[str, ...], int]]


class Criterion(SeLoRA):
    """SeLoRA by another gain than the FI-Ratio; the class itself has the FI-Ratio still, for `window` and `target`.

    Args:
        window: steps up to each test, it included, whose scores are summed; each of them costs a probe.
        target: how large adapters may be after a test; with it, layers grow in order of gain as long as they fit, and
            `threshold` is of no account. It is no part of a saved state.
        others: as of `SeLoRA`. A gain is compared with `threshold`: of ratios as usual; `null-corrected` and `signal`
            are 1 for gradients without structure or signal.

    Raises ValueError as `SeLoRA` does, and for a window that is not within the interval.
    """

    by_weight = False  # whether g_n is needed beside the gradients of A and B

    def __init__(self, *args, window: int = 1, target: Target | None = None, **kwargs):
        self.window, self.target = window, target
        super().__init__(*args, **kwargs)
        if not 1 <= window <= self.interval:
            raise ValueError(f"window is {window}: choose a number of steps from 1 to the interval, {self.interval}")
        self.sizes = {key: layer.in_features + layer.out_features for key, layer in self.layers.items()}  # of a rank

    def own(self, key: Key, gradients: list[Gradients], samples: int) -> torch.Tensor | None:
        """What a criterion sums, beside the scores, over parts, steps and processes: of the gradients by sample of B^T,
        of A, and g_n where `by_weight` asks. They are those of a part's mean loss: a sample's own is `samples` times
        as large. None for nothing.
        """

    def shape(self, layer: LoraLinear) -> tuple[int, ...]:
        """The shape of `own`, for a layer that no gradient reached."""
        return ()

    def gain(self, scores: Mapping[Key, Sequence[float]]) -> dict[Key, float]:
        """What the tested layers are judged by, of their scores (a + b, q); the same in all processes."""
        return {key: fi_ratio(*found) for key, found in scores.items()}

    def _forget(self) -> None:
        super()._forget()
        self._own: dict[Key, torch.Tensor] = {}
        self._norms: dict[Key, tuple[torch.Tensor, torch.Tensor]] = {}  # |A|^2, |B|^2 in the test
        self._kept: dict[Key, list[tuple[int, Gradients]]] = {}  # g_n of parts, with their samples

    def probe(self, step: int, batch_size: int | None = None) -> AbstractContextManager[None]:  # type: ignore[override]
        """As `SeLoRA.probe`; the steps of a window are read as parts of the batch of the test that they lead to."""
        test = -(-step // self.interval) * self.interval
        return super().probe(test if test - step < self.window else step, batch_size)

    def _measure(self, key: Key, layer: LoraLinear, x: torch.Tensor, d: torch.Tensor) -> list[Gradients]:
        A, B = (side.weight.detach() for side in lora_pair(layer))
        self._norms[key] = (A.square().sum(), B.square().sum())  # now: the optimizer's step may come before `_settle`
        found = super()._measure(key, layer, x, d)
        return [*found, weight_gradients(x, d, layer.scaling[adapter_of(layer)])] if self.by_weight else found

    def _settle(self, gradients: dict[Key, list[Gradients]], samples: int) -> None:
        super()._settle({key: found[:2] for key, found in gradients.items()}, samples)
        for key, found in gradients.items():
            if (own := self.own(key, found, samples)) is not None:
                self._own[key] = self._own.get(key, 0) + own

    def _shared(self) -> dict[Key, torch.Tensor]:
        """What `own` summed for each layer, over all processes."""
        blank = {key: self._rows[key].new_zeros(self.shape(layer)) for key, layer in self.layers.items()}
        return {key: reduce(self._own.get(key, zeros), "sum") for key, zeros in blank.items()}

    def decide(self, scores: Mapping[Key, Sequence[float]]) -> set[Key]:
        self.gains = self.gain(scores)
        if self.target is None:
            return {key for key, gain in self.gains.items() if gain >= self.threshold}
        chosen = set()
        for networks, most in self.target(self._step).items():
            inside = {key: gain for key, gain in self.gains.items() if key[0] in networks}
            chosen |= spend(inside, self.sizes, most - self.held(networks))
        return chosen

    def held(self, networks: Iterable[str]) -> int:
        """How many parameters the adapters of some networks hold."""
        ranks = {key: layer.r[adapter_of(layer)] for key, layer in self.layers.items() if key[0] in networks}
        return sum(rank * self.sizes[key] for key, rank in ranks.items())

    def expand(self, step: int) -> list[dict]:
        """As `SeLoRA.expand`, with the `gain` in each record; nothing in a window before its test."""
        if self._step is not None and self._step - self.window < step < self._step:
            return []
        return [record | {"gain": self.gains[record["network"], record["layer"]]} for record in super().expand(step)]

    def _settings(self) -> dict:
        return super()._settings() | {"criterion": type(self).__name__, "window": self.window}

    def state_dict(self) -> dict:
        state = super().state_dict()  # which ends the parts there are
        return state | tree_map_only(torch.Tensor, torch.Tensor.cpu, {"own": self._own, "kept": self._kept})

    def load_state_dict(self, state: Mapping) -> None:
        super().load_state_dict(state)
        for key, row in self._rows.items():
            for mine, saved in ((self._own, state["own"]), (self._kept, state["kept"])):
                if key in saved:
                    mine[key] = tree_map_only(torch.Tensor, methodcaller("to", row.device), saved[key])


class Expected(Criterion):
    """1 + E[q] / (a + b), the mean over draws of K: its entries are independent, of mean 0 and one variance v, so
    E|g_n K^T|^2 = sum_ij (g_n)_ij^2 E[K_j^2] = v |g_n|^2 (Frobenius). The row that is added is drawn as ever."""

    by_weight = True

    def own(self, key, gradients, samples):
        return samples**2 * row_squares(gradients[2]).sum()

    def gain(self, scores):
        whole, v = self._shared(), {key: row_variance(row.shape[1], self.init) for key, row in self._rows.items()}
        return {key: fi_ratio(original, v[key] * whole[key].item()) for key, (original, _) in scores.items()}


class Aligned(Criterion):
    """The FI-Ratio of the row that serves the batch best: the leading right singular direction of the mean gradient,
    argmax of |sum_n g_n K^T| over K as long as a drawn one is in the root mean square. A layer grows by that row.

    A test holds the layers' inputs and gradients until `expand`, and a mean gradient as large as each weight.
    """

    by_weight = True

    def own(self, key, gradients, samples):
        self._kept.setdefault(key, []).append((samples, gradients[2]))
        return samples * total(gradients[2])

    def shape(self, layer):
        return (layer.out_features, layer.in_features)

    def gain(self, scores):
        for key, mean in self._shared().items():
            if key in scores and mean.any() and mean.isfinite().all():  # else the drawn row stays
                length = (row_variance(mean.shape[1], self.init) * mean.shape[1]) ** 0.5
                row = length * torch.linalg.svd(mean, full_matrices=False)[2][:1]
                self._rows[key] = broadcast(row.to(self._rows[key]))  # an SVD may differ from device to device
        squares = torch.tensor([self._square(key) for key in scores], dtype=torch.float64)
        found = reduce(squares.to(next(iter(self._rows.values())).device), "sum").tolist()
        return {key: fi_ratio(scores[key][0], candidate) for key, candidate in zip(scores, found, strict=True)}

    def _square(self, key: Key) -> float:  # q of the row, of this process's samples
        return sum((N**2 * column_of(g, self._rows[key]).square().sum()).item() for N, g in self._kept.get(key, []))


class Invariant(Criterion):
    """1 + (q / |K|^2) / r (a / |A|^2 + b / |B|^2): one number for A, B and for c A, B / c, which are one model.

    There a becomes c^2 a and b becomes b / c^2, so a / |A|^2 and b / |B|^2 stay, while q / (a + b) does not. It is the
    FI-Ratio in the balanced one of these forms, |A| = |B|, with a K as long as A's rows are there; b / |B|^2 counts as
    0 while B is zero.
    """

    def own(self, key, gradients, samples):
        of_B, of_A = (row_squares(part) for part in gradients[:2])
        pairs = zip((of_B[:-1].sum(), of_A.sum()), self._norms[key], strict=True)
        return samples**2 * len(of_A) * sum(torch.where(norm > 0, part / norm, norm) for part, norm in pairs)

    def gain(self, scores):
        own, lengths = self._shared(), {key: row.square().sum().item() for key, row in self._rows.items()}
        return {key: fi_ratio(own[key].item(), candidate / lengths[key]) for key, (_, candidate) in scores.items()}


class NullCorrected(Invariant):
    """(ratio - 1) / (null - 1): how far the ratio is above what the weights' norms alone would give. 1 under the null.

    The null is that g_n prefers no direction, of either side: E|g_n u|^2 = |g_n|^2 |u|^2 / d_in for a fixed row u, and
    |g_n|^2 |u|^2 / d_out for a column. Then q is to a + b as |K|^2 / d_in to |A|^2 / d_in + |B|^2 / d_out, and null =
    1 + |K|^2 / (|A|^2 + |B|^2 d_in / d_out): 1 + 1 / r while B is zero, then falling as A's gradient joins. What is
    above 1 is divided, not the whole: at high ranks both ratios go to 1 whatever the gradients are.
    """

    def own(self, key, gradients, samples):
        (A, B), layer = self._norms[key], self.layers[key]
        return samples**2 * score(gradients[:2])[0] / (A + B * layer.in_features / layer.out_features)

    def gain(self, scores):
        return {key: ratio - 1 for key, ratio in super().gain(scores).items()}


class Signal(Criterion):
    """|m|^2 / (S / N), of the candidate column's N gradients g_n K^T: their mean m, their variance S = sum |g_n K^T -
    m|^2 / (N - 1). 1 in the mean where samples agree on nothing (E|m|^2 = E[S] / N), whatever norms and ranks are."""

    def own(self, key, gradients, samples):
        columns = last_rows(gradients[0])  # (N, d_out)
        return torch.cat([columns.new_tensor([len(columns)]), samples * columns.sum(dim=0)])

    def shape(self, layer):
        return (1 + layer.out_features,)

    def gain(self, scores):
        gains, shared = {}, self._shared()
        for key, (_, squares) in scores.items():
            N, mean = shared[key][0].item(), shared[key][1:].square().sum().item() / max(shared[key][0].item(), 1)
            if N == 1:
                raise ValueError("signal needs 2 samples in a test, to tell it from noise: raise the batch or `window`")
            gains[key] = fi_ratio(max(squares - mean, 0), (N - 1) * mean) - 1  # mean = N |m|^2; the rest is (N - 1) S
        return gains


class Budgeted(Criterion):
    """q / (d_in + d_out), the Fisher information that a rank adds per parameter, under a total number of parameters:
    at each test the best layers of all networks grow, as long as they fit.

    Args:
        budget: parameters of all adapters together in the end, given out in equal parts over as many `tests`.

    Raises ValueError without a budget (or target), and for one that is less than there is, or for no test.
    """

    def __init__(self, *args, budget: int | None = None, tests: int = 10, **kwargs):
        self.budget, self.tests = budget, tests
        super().__init__(*args, **kwargs)
        if self.target is None:
            start = self.held(self.networks)
            if budget is None or budget < start or tests < 1:
                raise ValueError(f"budget is {budget} in {tests} tests: choose at least {start}, what there is, and 1")
            every, more = tuple(self.networks), budget - start
            self.target = lambda step: {every: start + more * min(step // self.interval, tests) // tests}

    def gain(self, scores):
        return {key: candidate / self.sizes[key] for key, (_, candidate) in scores.items()}

    def _settings(self) -> dict:
        return super()._settings() | {"budget": self.budget, "tests": self.tests}


CRITERIA: dict[str, type[Criterion]] = {
    "ratio": Criterion, "expected": Expected, "aligned": Aligned, "null-corrected": NullCorrected,
    "invariant": Invariant, "signal": Signal, "budgeted": Budgeted,
}  # fmt: skip


def spend(gains: Mapping[Key, float], sizes: Mapping[Key, int], left: int) -> set[Key]:
    """The layers of the largest gains, each if it fits into what is left of the parameters; of nan, none."""
    chosen = set()
    for key in sorted((key for key in gains if not math.isnan(gains[key])), key=lambda key: -gains[key]):
        if sizes[key] <= left:
            chosen.add(key)
            left -= sizes[key]
    return chosen
