"""LoRA with one rank everywhere (Hu et al. 2022; Eq. 1 of the paper), and its variants that PEFT implements."""

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import nn

from selora.adapters import add_lora, fold_scaling
from selora.diffusion.method import Method
from selora.export import save_lora


class LoRA(Method):
    """Settings: rank, and for variants `options`, further ones of PEFT's LoraConfig."""

    def attach(self, networks: Mapping[str, nn.Module]) -> None:
        for model in networks.values():
            add_lora(model, self.settings["rank"], self.seed, **self.settings.get("options", {}))

    def finish(self, networks: Mapping[str, nn.Module], validate: Callable[[], float]) -> dict:
        for model in networks.values():
            fold_scaling(model)
        return {}

    def save(self, networks: Mapping[str, nn.Module], folder: Path) -> None:
        save_lora(networks["unet"], networks["text_encoder"], folder)
