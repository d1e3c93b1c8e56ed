"""What becomes of Adam's moments when a layer grows: three ways, by validation loss and by how far a new rank moves.

    python benchmarks/moments.py --steps 120 --interval 40 --seeds 3

'counted' is the study's: old ranks keep their moments, new ones start at zero and are corrected for their own count of
steps. 'padded' starts them at zero under the layer's count, as if they had seen all its steps. 'reset' empties the
optimizer's state of a grown layer, as the released code of the paper does. All train the same runs of SeLoRA on iu-drr
(`data/mini-sd`, profile quick's settings), seed by seed with the same draws.

How far a new rank moves: the mean |change| of its column of B over the 10 steps after its birth, as a ratio to that of
the older columns of the same layer in the same steps; and the change of the older columns to those of 'counted'.
"""

import statistics
import tempfile
from copy import deepcopy
from pathlib import Path

from common import arguments, show

from selora.adapters import ADAPTER
from selora.data import load_parts
from selora.diffusion.base import load_base, noise_schedule
from selora.diffusion.latents import cached_latents, tokenize
from selora.diffusion.loop import train
from selora.files import CACHE
from selora.methods.selora import SelfExpandingLoRA
from selora.study.profiles import load_profile

AFTER = 10  # steps between a birth and the look at how far it moved


class Way(SelfExpandingLoRA):
    """SeLoRA, with what a way does to the state of a grown layer."""

    def __init__(self, way: str, *args):
        super().__init__(*args)
        self.way, self.births, self.moves = way, {}, []

    def start(self, networks, optimizer):
        super().start(networks, optimizer)
        grow = self.controller.grow

        def grown(key, row):
            grow(key, row)
            layer = self.controller.layers[key]
            for side in (layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]):
                if self.way == "reset":
                    optimizer.state.pop(side.weight, None)
                if self.way == "padded":
                    optimizer.state[side.weight].pop("row_steps")
            self.births[key] = (self.step, layer.lora_B[ADAPTER].weight.detach().clone())

        self.controller.grow = grown

    def after_step(self, step):
        self.step = step
        for key, (born, before) in self.births.items():
            if step == born + AFTER:
                moved = (self.controller.layers[key].lora_B[ADAPTER].weight - before).abs().mean(dim=0)
                self.moves.append((moved[-1].item(), moved[:-1].mean().item()))
        return super().after_step(step)


def run(way: str, seed: int, pipe, data, steps: int, interval: int, folder: Path) -> tuple[float, float, float]:
    """Validation loss at the end, and how far new and old columns of B moved (medians over growths)."""
    profile = load_profile("quick")
    settings = {"rank": 1, "threshold": 1.1, "interval": interval, "init": "kaiming"}
    networks = deepcopy({"unet": pipe.unet, "text_encoder": pipe.text_encoder})
    method = Way(way, settings, seed, steps)
    method.attach(networks)
    found = train(
        networks, method, noise_schedule(pipe), data, empty_tokens=tokenize(pipe.tokenizer, [""]),
        checkpoint=folder / f"{way}-{seed}.safetensors", steps=steps, batch_size=profile.batch_size,
        learning_rate=profile.learning_rate, prompt_dropout=profile.prompt_dropout, checkpoint_interval=steps,
        seed=seed,
    )  # fmt: skip
    new, old = (statistics.median(column) for column in zip(*method.moves, strict=True))
    return found["history"][-1]["val_loss"], new, old


def main() -> None:
    options = arguments(
        __doc__,
        steps=(120, "of each run"),
        interval=(40, "steps between two tests"),
        seeds=(3, "runs of each way"),
        side=(16, "of the latents, cut from their middle; 16 is all, 8 takes a third of the time"),
    )
    profile, pipe, data = load_profile("quick"), load_base("data/mini-sd"), {}
    parts = load_parts("iu-drr")
    for split, count in (("train", None), ("val", profile.validation_images)):
        examples = parts[split][:count]
        latents = cached_latents(pipe.vae, examples, profile.resolution, CACHE, profile.sampling_batch)
        start = (latents.shape[-1] - options.side) // 2
        middle = slice(start, start + options.side)
        data[split] = (
            latents[:][..., middle, middle].contiguous(),
            tokenize(pipe.tokenizer, [e.prompt for e in examples]),
        )
    ways = {"counted": [], "padded": [], "reset": []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            for way, found in ways.items():
                found.append(run(way, seed, pipe, data, options.steps, options.interval, Path(folder)))
                print(way, seed, *(f"{value:.6f}" for value in found[-1]), flush=True)
    rows = []
    for way, found in ways.items():
        losses = [loss / own for (loss, *_), (own, *_) in zip(found, ways["counted"], strict=True)]
        new = statistics.mean(new / old for _, new, old in found)
        old = statistics.mean(old / own for (*_, old), (*_, own) in zip(found, ways["counted"], strict=True))
        spread = f"{statistics.mean(losses):.4f} ({min(losses):.4f} to {max(losses):.4f})"
        rows.append((way, f"{statistics.mean(loss for loss, *_ in found):.4f}", spread, new, old))
    header = ("moments", "validation loss", "ratio to counted (seeds)", "new rank to old", "old to counted's")
    title = f"SeLoRA on iu-drr, latents of {options.side}, {options.steps} steps, growth every {options.interval}"
    show(title, rows, header)


if __name__ == "__main__":
    main()
