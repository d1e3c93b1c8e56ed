"""Sampling with a stock pipeline: batched, yet every image has its own seed."""

from collections.abc import Sequence

import diffusers
import numpy as np
import torch
from accelerate.utils import gather_object
from diffusers import StableDiffusionPipeline
from tqdm.auto import tqdm

from selora.diffusion import machine
from selora.diffusion.draws import SOLVER, START, generator
from selora.diffusion.finite import NotFinite
from selora.diffusion.latents import decode
from selora.diffusion.machine import autocast
from selora.diffusion.solvers import SOLVERS


def starting_noise(pipe: StableDiffusionPipeline, count: int, size: int, seed: int) -> torch.Tensor:
    """Noise (count, 4, size / f, size / f), the i-th drawn from (seed, i) alone, whatever the method or batch."""
    shape = (pipe.unet.config.in_channels, size // pipe.vae_scale_factor, size // pipe.vae_scale_factor)
    return torch.stack([torch.randn(shape, generator=generator(seed, START, i)) for i in range(count)])


def sample(
    pipe: StableDiffusionPipeline,
    prompts: Sequence[str],
    size: int,
    steps: int,
    guidance_scale: float,  # 1 is none
    batch_size: int,
    seed: int,
    solver: str = "sde-dpmsolver++",  # of SOLVERS
) -> np.ndarray:
    """Images (N, size, size, 3) uint8 for N prompts; of several processes, each makes its share and has all in the end.

    The default solver is the stochastic one: fresh noise in each step, from a generator of each image's own, corrects
    what a small model gets wrong at high noise. A deterministic solver carries those errors to the end. Its steps are
    those of Karras et al. (2022), closer together where little noise is left and detail is decided.

    Raises:
        NotFinite: for images that are not, in every process.
    """
    own, this = pipe.scheduler, machine.state()
    chosen = SOLVERS[solver]
    pipe.scheduler = getattr(diffusers, chosen.scheduler).from_config(own.config, **chosen.options)
    pipe.set_progress_bar_config(disable=True)
    noise = starting_noise(pipe, len(prompts), size, seed)
    parts = torch.arange(len(prompts)).split(batch_size)[this.process_index :: this.num_processes]
    made, dead = [], []
    for part in tqdm(parts, desc="sample", mininterval=5):
        with autocast(pipe.unet):
            latents = pipe(
                [prompts[i] for i in part],
                height=size,
                width=size,
                latents=noise[part].to(pipe.device),
                generator=[generator(seed, SOLVER, int(i)) for i in part],
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                output_type="latent",
            ).images
        try:
            made.append((int(part[0]), decode(pipe.vae, latents, batch_size)))
        except NotFinite:
            dead.append(prompts[int(part[0])])
    pipe.scheduler = own
    if dead := gather_object(dead):  # known to every process, so that none waits for another
        raise NotFinite(f"images sampled with the final weights are not finite, from the batch of '{dead[0]}' on")
    return np.concatenate([images for _, images in sorted(gather_object(made), key=lambda pair: pair[0])])
