"""How a training step, its memory and a probe scale: with adapted layers, rank, batch and resolution.

    python benchmarks/scaling.py

Each row changes one thing of the first. Step times are of SeLoRA without and with a probe, in turns in one process.
"""

import gc
from functools import partial

import torch
from common import FAST, NEVER, SIZES, arguments, load_pipeline, make_data, pick_shape, show
from peft import LoraConfig

from selora import SeLoRA, linear_layers
from selora.analysis.timing import in_turns
from selora.diffusion.base import noise_schedule
from selora.diffusion.loop import denoising_loss, trainable
from selora.diffusion.machine import peak_memory_mb, raise_trained, reset_peak_memory


def measure(shape: str, share: float, rank: int, batch: int, size: int, rounds: int) -> tuple[int, float, float, float]:
    """Adapted layers, seconds of a step without and with a probe, and peak memory in MB.

    share: of the linear layers of each network, spread evenly, that are adapted.
    """
    gc.collect()  # the last setting's networks
    pipe = load_pipeline(shape, FAST)
    networks, layers = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}, 0
    for model in networks.values():
        names = linear_layers(model)[:: round(1 / share)]
        layers += len(names)
        model.requires_grad_(False)
        model.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=names))
    raise_trained(networks)
    optimizer = torch.optim.AdamW(trainable(networks), lr=1e-4)
    schedule, (latents, tokens) = noise_schedule(pipe), make_data(pipe, size, batch)["train"]
    noise, timesteps = torch.randn_like(latents), torch.randint(0, 1000, (batch,))

    def step(controller: SeLoRA) -> None:
        with controller.probe(1):
            denoising_loss(networks, schedule, latents, tokens, noise, timesteps).backward()
        optimizer.step()
        optimizer.zero_grad()
        controller.expand(1)

    idle = SeLoRA(networks, optimizer, threshold=NEVER, interval=NEVER)
    active = SeLoRA(networks, optimizer, threshold=NEVER, interval=1)
    reset_peak_memory()
    seconds = in_turns({"plain": partial(step, idle), "probe": partial(step, active)}, rounds).median()
    return layers, seconds["plain"], seconds["probe"], peak_memory_mb()


def main() -> None:
    options = arguments(__doc__, rounds=(5, "steps of each kind"))
    shape = pick_shape(options.shape)
    start = {"share": 1.0, "rank": 4, "batch": 8, "size": SIZES[shape]}
    changes = [
        {},
        {"share": 0.5},
        {"share": 0.25},
        {"rank": 1},
        {"rank": 16},
        {"rank": 64},
        {"batch": 4},
        {"batch": 16},
    ]
    changes += [{"size": SIZES[shape] // 2}, {"size": SIZES[shape] * 2}]
    rows, first = [], None
    for change in changes:
        setting = start | change
        layers, plain, probe, memory = measure(shape, rounds=options.rounds, **setting)
        first = first or plain
        what = (layers, setting["rank"], setting["batch"], setting["size"])
        rows.append((*what, f"{1000 * plain:.0f}", plain / first, probe / plain, f"{memory:.0f}"))
    header = ("layers", "rank", "batch", "pixels", "step, ms", "to the first", "probe step to plain", "peak memory, MB")
    show(f"Steps of SeLoRA, {shape} shape", rows, header)


if __name__ == "__main__":
    main()
