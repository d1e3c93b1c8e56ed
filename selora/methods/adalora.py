"""AdaLoRA (Zhang et al. 2023), PEFT's: ranks start high, and the least important triplets are masked on a schedule.

An adapter is B diag(E) A. PEFT adds the term that keeps A and B near orthogonal only to outputs that carry a loss. A
U-Net's does not, so it is added here. PEFT masks entries of E and never resizes; what is scored and saved is plain
LoRA of the ranks that are left. Both networks share one budget, as all layers of a model do. As in the authors'
examples the scaling is 16 / 3, and rows of A start at the length that their deviation of 0.02 gives at their widths.
"""

from collections.abc import Callable, Mapping

import torch
from peft import AdaLoraConfig
from peft.tuners.adalora import SVDLinear
from torch import nn

from selora.adapters import ADAPTER, add_lora, linear_layers, resize
from selora.diffusion.draws import generator
from selora.methods.gates import orthogonality
from selora.methods.lora import LoRA
from selora.methods.peft_adapter import add_tuner

NORM = 0.02 * 768**0.5  # of a row of A and a column of B at first: the deviation of 0.02 at the authors' widths, 768
STREAM = 10  # of draws, see `diffusion.draws`


def draw_short(A: nn.Parameter, B: nn.Parameter, draw: torch.Generator) -> None:
    """Draw A (r, d_in) and B (d_out, r) anew, so that A's rows and B's columns have the length NORM on average."""
    for weight, width in ((A, A.shape[1]), (B, B.shape[0])):
        weight.data = NORM * width**-0.5 * torch.randn(weight.shape, generator=draw).to(weight)


class AdaLoRA(LoRA):
    """Settings: init_rank, rank (the final mean over both networks), alpha (of a scaling alpha / init_rank), warmup and
    final (shares of the steps before the first cut and after the last), interval (steps between two cuts),
    orthogonality (weight of that term)."""

    def attach(self, networks: Mapping[str, nn.Module]) -> None:
        s = self.settings
        self.last_cut = self.steps - max(1, int(s["final"] * self.steps))
        config = AdaLoraConfig(
            init_r=s["init_rank"],
            target_r=s["rank"],
            lora_alpha=s["alpha"],  # PEFT divides by init_r
            tinit=int(s["warmup"] * self.steps),
            tfinal=self.steps - self.last_cut,
            deltaT=s["interval"],
            total_step=self.steps,
            target_modules=[
                f"{network}.{name}" for network, model in networks.items() for name in linear_layers(model)
            ],
        )
        self.tuner = add_tuner(nn.ModuleDict(networks), config, self.seed)  # one budget for both
        draw = generator(self.seed, STREAM)
        for layer in triplets(self.tuner).values():
            draw_short(layer.lora_A[ADAPTER], layer.lora_B[ADAPTER], draw)

    def loss(self, loss: torch.Tensor) -> torch.Tensor:
        return loss + self.settings["orthogonality"] * orthogonality(
            (layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]) for layer in triplets(self.tuner).values()
        )

    def after_step(self, step: int) -> list[dict]:
        self.tuner.base_model.update_and_allocate(step)
        return []

    def settled(self, step: int) -> bool:
        return step >= self.last_cut  # only then are ranks within the budget

    def state(self) -> dict[str, torch.Tensor]:
        allocator, config, found = self.tuner.base_model.rankallocator, self.tuner.peft_config[ADAPTER], {}
        for kind in ("exp_avg_ipt", "exp_avg_unc"):
            found |= {f"{kind}/{name}": t for name, t in getattr(allocator, kind).items()}
        return found | {f"kept/{name}": torch.tensor(kept) for name, kept in (config.rank_pattern or {}).items()}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        allocator, config = self.tuner.base_model.rankallocator, self.tuner.peft_config[ADAPTER]
        for key, value in state.items():
            kind, name = key.split("/")
            if kind == "kept":
                config.rank_pattern = (config.rank_pattern or {}) | {name: value.tolist()}
            else:
                getattr(allocator, kind)[name] = value.to(next(self.tuner.parameters()).device)
                allocator.ipt.setdefault(name, None)  # PEFT takes a name without it for new

    def finish(self, networks: Mapping[str, nn.Module], validate: Callable[[], float]) -> dict:
        """Replace every triplet by a plain LoRA layer of its active rank, with E and the scaling in B."""
        adapters = {
            network: {name: plain(layer) for name, layer in triplets(model).items()}
            for network, model in networks.items()
        }
        self.tuner.base_model.unload()
        for network, model in networks.items():
            add_lora(model, 1, self.seed)
            for name, weights in adapters[network].items():
                resize(model, name, *weights)
        return {}


def triplets(model: nn.Module) -> dict[str, SVDLinear]:
    """The AdaLoRA layers of a model by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, SVDLinear)}


@torch.no_grad()
def plain(layer: SVDLinear) -> tuple[torch.Tensor, torch.Tensor]:
    """A (r, d_in) and B (d_out, r) of the plain LoRA that equals an AdaLoRA layer; r counts the entries of E that are
    not zero, and is 1 where all are."""
    A, B, E = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER], layer.lora_E[ADAPTER].flatten()
    active = E.ne(0)
    if not active.any():
        active[0] = True
    scale = layer.scaling[ADAPTER] / (layer.ranknum[ADAPTER] + 1e-5)  # as in SVDLinear.forward
    return A[active].clone(), B[:, active] * (E[active] * scale)
