"""The seam between the training loop and a method: what a method may do, and when."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn


@dataclass(frozen=True)
class Earlier:
    """What a method may read of a finished run that it builds on, of the same data set and seed."""

    result: dict  # its result.json
    expansions: list[dict]  # the records of all its tests, as `Method.after_step` returns them; [] of one without
    ranks: list[dict]  # of the layers of its scored weights, the rows of ranks.csv


class Method:
    """A way to adapt a diffusion model. The loop calls these in their order and knows no method by name.

    Args:
        settings: all settings of the method, by name.
        seed: of all its random choices.
        steps: of the run, for methods with a schedule.
        earlier: the finished runs that the method builds on, if it does (`methods.BUILDS_ON`), by their method.
    """

    trains = True  # False: the networks are scored as they are
    divisible = True  # False: a batch must go through the networks whole, in one process

    def __init__(self, settings: dict, seed: int, steps: int, earlier: Mapping[str, Earlier] | None = None):
        self.settings, self.seed, self.steps, self.earlier = settings, seed, steps, earlier or {}

    def inspect(self, networks: Mapping[str, nn.Module], batches: Iterable[dict[str, torch.Tensor]]) -> None:
        """Look at the untouched networks with a few training batches, before anything is attached: noisy latents
        `latents` and what to predict of them, `target` (B, 4, h, w), `timesteps` (B,), `tokens` (B, 77)."""

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
        """Called after the optimizer's step, while the gradients are still there; returns expansion records, if the
        method tested layers."""
        return []

    def settled(self, step: int) -> bool:
        """Whether the weights after a step are of the kind the method ends with, and may be kept as the best."""
        return True

    def state(self) -> dict[str, torch.Tensor]:
        """What a resumed run needs besides trainable parameters and the optimizer's state."""
        return {}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state` gave; called after `start` on a resumed run."""

    def finish(self, networks: Mapping[str, nn.Module], validate: Callable[[], float]) -> dict:
        """Turn the best weights into those that are scored and saved; returns numbers for the run's record.

        Args:
            validate: the denoising loss of the networks as they are, over the validation images (over some training
                images where the data set has none).
        """
        return {}

    def save(self, networks: Mapping[str, nn.Module], folder: Path) -> None:
        """Write the adapted weights into a folder."""
