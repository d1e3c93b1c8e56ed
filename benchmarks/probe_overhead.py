"""What a test of all layers costs: step times of plain LoRA, of SeLoRA without and with a probe, and of two passes.

    python benchmarks/probe_overhead.py --steps 40

All four run in one process on the same networks at the same ranks, in turn and in changing order, so that a drift of
the machine cancels. Numbers are medians of whole training steps, as ratios to plain LoRA; nothing ever grows.

The released code of the paper tests a layer by a second pass: it enlarges every layer by its candidate, runs a second
forward and backward of the batch, and compares the squared gradients of that pass with those of the first. 'two passes'
does this (and takes the enlargement back), 'probe' reads the same gradients off the first pass.
"""

from collections.abc import Callable
from functools import partial

import torch
from common import FAST, NEVER, SIZES, arguments, load_pipeline, make_data, pick_shape, show
from torch import nn

from selora import SeLoRA
from selora.adapters import ADAPTER, add_lora, all_lora_layers, draw_rows, set_weights
from selora.analysis.timing import in_turns
from selora.diffusion.base import noise_schedule
from selora.diffusion.loop import denoising_loss, trainable
from selora.diffusion.machine import raise_trained
from selora.expansion import append_rank
from selora.fisher import fi_ratio


class TwoPasses:
    """The test by a second forward and backward of enlarged layers."""

    def __init__(self, networks: dict[str, nn.Module]):
        self.layers = list(all_lora_layers(networks).values())

    def test(self, backward: Callable[[], None], originals: list[torch.Tensor]) -> list[float]:
        """`originals`: each layer's squared gradients in the first pass."""
        generator, kept = torch.Generator().manual_seed(0), []
        for layer in self.layers:
            kept.append((layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight))
            append_rank(layer, draw_rows(kept[-1][0], generator))
        backward()
        expanded = torch.stack(self.squares()).tolist()
        for layer, (A, B) in zip(self.layers, kept, strict=True):
            set_weights(layer, A.data, B.data)
            layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight = A, B  # those that the optimizer holds
        original = torch.stack(originals).tolist()
        return [fi_ratio(o, e - o) for o, e in zip(original, expanded, strict=True)]

    def squares(self) -> list[torch.Tensor]:
        sides = [(layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight) for layer in self.layers]
        return [A.grad.square().sum() + B.grad.square().sum() for A, B in sides]


def make_variants(shape: str, batch: int, rank: int) -> dict[str, Callable[[], None]]:
    """A training step of each kind, all on the same networks."""
    pipe = load_pipeline(shape, FAST)
    networks = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    for seed, model in enumerate(networks.values()):
        add_lora(model, rank, seed)
    raise_trained(networks)
    optimizer = torch.optim.AdamW(trainable(networks), lr=1e-4)
    schedule, (latents, tokens) = noise_schedule(pipe), make_data(pipe, SIZES[shape], batch)["train"]
    noise, timesteps = torch.randn_like(latents), torch.randint(0, 1000, (batch,))

    def backward() -> None:
        denoising_loss(networks, schedule, latents, tokens, noise, timesteps).backward()

    idle = SeLoRA(networks, optimizer, threshold=NEVER, interval=NEVER)
    active = SeLoRA(networks, optimizer, threshold=NEVER, interval=1)
    two_passes = TwoPasses(networks)

    def plain() -> None:
        backward()
        optimizer.step()
        optimizer.zero_grad()

    def selora(controller: SeLoRA) -> None:
        with controller.probe(1):
            backward()
        optimizer.step()
        optimizer.zero_grad()
        controller.expand(1)

    def second_pass() -> None:
        backward()
        originals = two_passes.squares()
        optimizer.step()
        optimizer.zero_grad()
        two_passes.test(backward, originals)

    return {
        "plain LoRA": plain,
        "SeLoRA, no probe": partial(selora, idle),
        "SeLoRA, probe": partial(selora, active),
        "two passes": second_pass,
    }


def main() -> None:
    options = arguments(__doc__, steps=(20, "of each variant"), batch=(8, "samples"), rank=(1, "of every layer"))
    shape = pick_shape(options.shape)
    seconds = in_turns(make_variants(shape, options.batch, options.rank), options.steps, warm_up=3).median()
    rows = [(name, f"{1000 * s:.1f}", s / seconds["plain LoRA"]) for name, s in seconds.items()]
    show(f"A training step, {shape} shape, {SIZES[shape]} px, batch {options.batch}", rows, ("step", "ms", "ratio"))


if __name__ == "__main__":
    main()
