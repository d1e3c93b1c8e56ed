"""Full fine-tuning of the layers that the others adapt: the upper end of the comparison, not a low-rank method."""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from selora.adapters import trained_tensors
from selora.diffusion.checkpoint import save_checkpoint
from selora.diffusion.method import Method
from selora.files import FULL


class FullFineTuning(Method):
    def attach(self, networks: Mapping[str, nn.Module]) -> None:
        super().attach(networks)
        for model in networks.values():
            for module in model.modules():
                if isinstance(module, nn.Linear):
                    module.requires_grad_(True)

    def save(self, networks: Mapping[str, nn.Module], folder: Path) -> None:
        """Write the tuned layers' weights and biases to `linear_layers.safetensors`, named `<network>.<parameter>`."""
        save_checkpoint(folder / FULL, trained_tensors(networks), self.settings)
