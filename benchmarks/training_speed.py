"""Training images a second: the study's loop against the published recipe of diffusers' text-to-image LoRA example.

    python benchmarks/training_speed.py    # Stable Diffusion v1.5's shape on a GPU; its proportions, smaller, on a CPU

The recipe, written anew from what the example does by default: LoRA of rank 4 on the U-Net's attention projections,
fp32, and in each step the images go through the autoencoder and the prompts through the frozen text encoder; gradients
are clipped, AdamW steps. The study's loop reads cached latents, and trains LoRA on all linear layers of both networks;
here it also runs with the recipe's layers, so that the difference is the loop's alone.
"""

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from common import FAST, SIZES, arguments, load_pipeline, make_data, pick_shape, show
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from torch import nn

from selora.analysis.timing import in_turns
from selora.diffusion.base import noise_schedule
from selora.diffusion.latents import tokenize
from selora.diffusion.loop import train
from selora.diffusion.machine import autocast, raise_trained
from selora.diffusion.method import Method
from selora.methods import make_method
from selora.methods.lora import LoRA

TARGETS = ["to_k", "to_q", "to_v", "to_out.0"]  # the example's


class UNetOnly(LoRA):
    """LoRA on the layers of diffusers' example."""

    def attach(self, networks: Mapping[str, nn.Module]) -> None:
        Method.attach(self, networks)
        networks["unet"].add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=TARGETS))


def recipe(pipe: StableDiffusionPipeline, size: int, batch: int, steps: int) -> Callable[[], None]:
    """The example's loop: a function that makes `steps` steps."""
    networks = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    UNetOnly({}, 0, steps).attach(networks)
    raise_trained(networks)
    parameters = [p for p in pipe.unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=1e-2)
    schedule, device, vae = noise_schedule(pipe), pipe.unet.device, pipe.vae.to(pipe.unet.dtype)
    tokens = make_data(pipe, size, batch)["train"][1].to(device)
    images = torch.rand(batch, 3, size, size, device=device) * 2 - 1

    def run() -> None:
        for _ in range(steps):
            with torch.no_grad():
                latents = vae.encode(images.to(vae.dtype)).latent_dist.sample() * vae.config.scaling_factor
                states = pipe.text_encoder(tokens).last_hidden_state
            noise = torch.randn_like(latents)
            timesteps = torch.randint(0, 1000, (batch,), device=device)
            with autocast(pipe.unet):
                prediction = pipe.unet(schedule.add_noise(latents, noise, timesteps), timesteps, states).sample
            nn.functional.mse_loss(prediction.float(), noise.float()).backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return run


def study(pipe: StableDiffusionPipeline, method: Method, size: int, batch: int, steps: int) -> Callable[[], dict]:
    """The study's loop: a function that makes `steps` steps, a checkpoint at their end included."""
    networks = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    method.attach(networks)
    data, empty = make_data(pipe, size, batch * steps), tokenize(pipe.tokenizer, [""])
    folder = tempfile.TemporaryDirectory()
    how = {"steps": steps, "batch_size": batch, "learning_rate": 1e-4, "prompt_dropout": 0.0, "seed": 0}
    run = partial(train, networks, method, noise_schedule(pipe), data, empty_tokens=empty, **how)

    def anew() -> dict:
        checkpoint = Path(folder.name) / "checkpoint.safetensors"
        checkpoint.unlink(missing_ok=True)
        return run(checkpoint=checkpoint, checkpoint_interval=steps)

    return anew


def main() -> None:
    options = arguments(__doc__, batch=(8, "samples"), steps=(8, "of a turn"), rounds=(3, "turns of each variant"))
    shape = pick_shape(options.shape, on_cpu="reduced")
    sizes = SIZES[shape], options.batch, options.steps
    variants = {
        "diffusers' recipe, U-Net, fp32": recipe(load_pipeline(shape), *sizes),
        "this loop, the same layers, fp32": study(load_pipeline(shape), UNetOnly({}, 0, 0), *sizes),
        f"this loop, the same layers, {FAST}": study(load_pipeline(shape, FAST), UNetOnly({}, 0, 0), *sizes),
        f"this loop, all linear layers of both networks, {FAST}": study(
            load_pipeline(shape, FAST), make_method("lora", {}, 0, options.steps), *sizes
        ),
    }
    if FAST == "bf16":
        variants["diffusers' recipe, U-Net, bf16"] = recipe(load_pipeline(shape, FAST), *sizes)
    seconds = in_turns(variants, options.rounds).median()
    first = seconds.iloc[0]
    rows = [(name, options.batch * options.steps / s, first / s) for name, s in seconds.items()]
    title = f"Training, {shape} shape, {SIZES[shape]} px, batch {options.batch}"
    show(title, rows, ("variant", "images a second", "ratio to the recipe"))


if __name__ == "__main__":
    main()
