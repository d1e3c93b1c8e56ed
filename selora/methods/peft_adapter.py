"""Adapters that PEFT has and that are no LoRA (VeRA, LoHa and their kin): one line of settings each."""

from collections.abc import Mapping
from pathlib import Path

import peft
import torch
from peft import PeftConfig, PeftModel, get_peft_model
from torch import nn

from selora.adapters import linear_layers
from selora.diffusion.method import Method


class PeftAdapter(Method):
    """Settings: config (the name of one of PEFT's configurations), and its options."""

    def attach(self, networks: Mapping[str, nn.Module]) -> None:
        options = {name: value for name, value in self.settings.items() if name not in ("config", "learning_rate")}
        self.tuners = {}
        for network, model in networks.items():
            config = getattr(peft, self.settings["config"])(target_modules=linear_layers(model), **options)
            self.tuners[network] = add_tuner(model, config, self.seed)

    def save(self, networks: Mapping[str, nn.Module], folder: Path) -> None:
        """Write PEFT's own format, one folder a network: `PeftModel.from_pretrained(pipe.unet, folder / "unet")`."""
        for network, tuner in self.tuners.items():
            tuner.save_pretrained(folder / network)


def add_tuner(model: nn.Module, config: PeftConfig, seed: int) -> PeftModel:
    """Freeze a model and replace its layers by those of one of PEFT's adapters; `seed` determines their weights.

    Returns:
        The wrapper, which saves and schedules; the model itself stays usable as it is, with the adapter in it.
    """
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(model, config)
