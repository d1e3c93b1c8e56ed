"""AdaLoRA (Zhang et al. 2023), PEFT's: ranks start high, and the least important triplets are masked on a schedule.

An adapter is B diag(E) A. PEFT adds the term that keeps A and B near orthogonal only to outputs that carry a loss. A
U-Net's does not, so it is added here. PEFT masks entries of E and never resizes; what is scored and saved is plain
LoRA of the ranks that are left.
"""

from collections.abc import Callable, Mapping

import torch
from peft import AdaLoraConfig
from peft.tuners.adalora import SVDLinear
from torch import nn

from selora.adapters import ADAPTER, add_lora, add_tuner, linear_layers, orthogonality, resize
from selora.methods.lora import LoRA


class AdaLoRA(LoRA):
    """Settings: init_rank, rank (the final mean), warmup and final (shares of the steps before the first cut and
    after the last), interval (steps between two cuts), orthogonality (weight of that term)."""

    def attach(self, networks: Mapping[str, nn.Module]) -> None:
        s = self.settings
        self.last_cut = self.steps - max(1, int(s["final"] * self.steps))
        self.tuners = {}
        for network, model in networks.items():
            config = AdaLoraConfig(
                init_r=s["init_rank"],
                target_r=s["rank"],
                lora_alpha=s["init_rank"],  # PEFT divides by init_r: scaling 1
                tinit=int(s["warmup"] * self.steps),
                tfinal=self.steps - self.last_cut,
                deltaT=s["interval"],
                total_step=self.steps,
                target_modules=linear_layers(model),
            )
            self.tuners[network] = add_tuner(model, config, self.seed)

    def loss(self, loss: torch.Tensor) -> torch.Tensor:
        return loss + self.settings["orthogonality"] * orthogonality(
            (layer.lora_A[ADAPTER], layer.lora_B[ADAPTER])
            for tuner in self.tuners.values()
            for layer in triplets(tuner).values()
        )

    def after_step(self, step: int) -> list[dict]:
        for tuner in self.tuners.values():
            tuner.base_model.update_and_allocate(step)
        return []

    def settled(self, step: int) -> bool:
        return step >= self.last_cut  # only then are ranks within the budget

    def state(self) -> dict[str, torch.Tensor]:
        found = {}
        for network, tuner in self.tuners.items():
            allocator, config = tuner.base_model.rankallocator, tuner.peft_config[ADAPTER]
            for kind in ("exp_avg_ipt", "exp_avg_unc"):
                found |= {f"{network}/{kind}/{name}": t for name, t in getattr(allocator, kind).items()}
            found |= {
                f"{network}/kept/{name}": torch.tensor(kept) for name, kept in (config.rank_pattern or {}).items()
            }
        return found

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        for key, value in state.items():
            network, kind, name = key.split("/")
            tuner = self.tuners[network]
            if kind == "kept":
                config = tuner.peft_config[ADAPTER]
                config.rank_pattern = (config.rank_pattern or {}) | {name: value.tolist()}
            else:
                allocator = tuner.base_model.rankallocator
                getattr(allocator, kind)[name] = value.to(tuner.device)
                allocator.ipt.setdefault(name, None)  # PEFT takes a name without it for new

    def finish(self, networks: Mapping[str, nn.Module], validate: Callable[[], float]) -> dict:
        """Replace every triplet by a plain LoRA layer of its active rank, with E and the scaling in B."""
        for network, model in networks.items():
            adapters = {name: plain(layer) for name, layer in triplets(model).items()}
            self.tuners[network].base_model.unload()
            add_lora(model, 1, self.seed)
            for name, weights in adapters.items():
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
