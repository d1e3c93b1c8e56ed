"""LoRA with one rank everywhere (Hu et al. 2022; Eq. 1 of the paper), as PEFT implements it."""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from selora.adapters import add_lora
from selora.export import save_lora
from selora.methods.method import Method


class LoRA(Method):
    def attach(self, networks: Mapping[str, nn.Module]) -> None:
        for model in networks.values():
            add_lora(model, self.settings["rank"], self.seed)

    def save(self, networks: Mapping[str, nn.Module], folder: Path) -> None:
        save_lora(networks["unet"], networks["text_encoder"], folder)
