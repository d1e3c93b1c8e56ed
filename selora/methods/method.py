"""The seam between the training loop and a method: what a method may do, and when."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn


class Method:
    """A way to adapt a diffusion model. The loop calls these in their order and knows no method by name.

    Args:
        settings: all settings of the method, by name.
        seed: of all its random choices.
    """

    trains = True  # False: the networks are scored as they are

    def __init__(self, settings: dict, seed: int):
        self.settings, self.seed = settings, seed

    def attach(self, networks: Mapping[str, nn.Module]) -> None:
        """Make trainable what the method trains, and nothing else."""
        for model in networks.values():
            model.requires_grad_(False)

    def start(self, networks: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
        """Called once before the first step, after a checkpoint, if there is one, was restored."""

    def around(self, step: int) -> AbstractContextManager:
        """Surrounds the forward and backward pass of a step."""
        return nullcontext()

    def loss(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss to differentiate, given the denoising loss."""
        return loss

    def after_step(self, step: int) -> list[dict]:
        """Called after the optimizer's step; returns expansion records, if the method tested layers."""
        return []

    def save(self, networks: Mapping[str, nn.Module], folder) -> None:
        """Write the adapted weights into a folder."""
