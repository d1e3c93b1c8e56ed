"""Growth by other criteria than the paper's FI-Ratio, at as many parameters: those of `selora.criteria`.

At each test of the SeLoRA run of the same data set and seed, each network may grow to the size that it had there. The
layers of the largest gain grow first, each by one rank, as long as they fit; what is left over, less than a layer, goes
to the next test. The candidates K are SeLoRA's own (but for `aligned`, which finds its own), and so is the first A: the
paper's ratio under this rule makes SeLoRA's run again, bit for bit. What an arm has beyond it is owed to the criterion.
"""

from collections.abc import Mapping

import torch
from accelerate.utils import reduce
from torch import nn

from selora.criteria import CRITERIA, Criterion
from selora.methods.matched import drawn
from selora.methods.scheduled import ScheduledGrowth
from selora.methods.selora import SelfExpandingLoRA


class CriterionGrowth(ScheduledGrowth, SelfExpandingLoRA):
    """Settings: criterion (a name in `selora.criteria.CRITERIA`), and window (steps whose scores are summed for a test,
    at most those from one test to the next)."""

    def control(self, networks: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> Criterion:
        """Raises ValueError for an unknown criterion, with the choices."""
        criterion, own = self.settings["criterion"], self.earlier["selora"].result["settings"]["method"]
        if criterion not in CRITERIA:
            raise ValueError(f"unknown criterion '{criterion}': choose from {', '.join(CRITERIA)}")
        if criterion == "aligned" and self.settings["window"] > 1:
            raise ValueError("aligned keeps each sample's gradients, which no checkpoint holds: set its window to 1")
        window = min(self.settings["window"], own["interval"])
        how = {"interval": own["interval"], "window": window, "target": self.target}
        return CRITERIA[criterion](networks, optimizer, seed=self.seed, init=drawn(self.earlier), **how)

    def target(self, step: int) -> dict[tuple[str, ...], int]:
        """How many parameters SeLoRA's adapters held after the test of a step, by network."""
        rank, found = self.earlier["selora"].result["settings"]["method"]["rank"], {}
        for network in self.controller.networks:
            start = rank * sum(self.size(key) for key in self.controller.layers if key[0] == network)
            grown = [size * n for (at, net, size), n in self.schedule.items() if net == network and at <= step]
            found[(network,)] = start + sum(grown)
        return found

    def state(self) -> dict[str, torch.Tensor]:
        """The sums of a window that is not at its end: all processes' in equal shares, since one of them writes."""
        saved, layers = self.controller.state_dict(), self.controller.layers
        if saved["step"] is None:
            return {}
        state = {"step": torch.tensor(saved["step"])}
        for key, layer in layers.items():
            blank = {"scores": (2,), "own": self.controller.shape(layer), "called": ()}
            found = saved | {"called": {name: torch.ones(()) for name in saved["called"]}}
            for part, shape in blank.items():
                share = found[part].get(key, torch.zeros(shape)).to(layer.weight.device)
                state["/".join((part, *key))] = reduce(share, "mean").cpu()
        return state

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        if state:
            layers = self.controller.layers
            sums = {part: {key: state["/".join((part, *key))] for key in layers} for part in ("scores", "own")}
            called = [key for key in layers if state["/".join(("called", *key))]]
            saved = self.controller.state_dict() | {"step": int(state["step"]), "called": called} | sums
            self.controller.load_state_dict(saved)
