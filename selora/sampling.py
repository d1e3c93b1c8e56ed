"""Sampling with a stock pipeline: batched, yet every image has its own seed."""

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from tqdm import tqdm

from selora.training import generator


def starting_noise(pipe: StableDiffusionPipeline, count: int, size: int, seed: int) -> torch.Tensor:
    """Noise (count, 4, size / f, size / f), the i-th drawn from (seed, i) alone, whatever the method or batch."""
    shape = (pipe.unet.config.in_channels, size // pipe.vae_scale_factor, size // pipe.vae_scale_factor)
    return torch.stack([torch.randn(shape, generator=generator(seed, 2, i)) for i in range(count)])


def sample(
    pipe: StableDiffusionPipeline,
    prompts: Sequence[str],
    size: int,
    steps: int,  # of SDE-DPM-Solver++ (second order)
    guidance_scale: float,  # 1 is none
    batch_size: int,
    seed: int,
) -> np.ndarray:
    """Images (N, size, size, 3) uint8 for N prompts.

    The solver is the stochastic one: fresh noise in each step, from a generator of each image's own, corrects what a
    small model gets wrong at high noise. A deterministic solver carries those errors to the end. Its steps are those of
    Karras et al. (2022), closer together where little noise is left and detail is decided.
    """
    own = pipe.scheduler
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(
        own.config, algorithm_type="sde-dpmsolver++", use_karras_sigmas=True
    )
    pipe.set_progress_bar_config(disable=True)
    noise = starting_noise(pipe, len(prompts), size, seed)
    images = []
    for start in tqdm(range(0, len(prompts), batch_size), desc="sample", mininterval=5):
        part = range(start, min(start + batch_size, len(prompts)))
        images.append(
            pipe(
                [prompts[i] for i in part],
                height=size,
                width=size,
                latents=noise[part.start : part.stop].to(pipe.device, pipe.unet.dtype),
                generator=[generator(seed, 3, i) for i in part],
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                output_type="np",
            ).images
        )
    pipe.scheduler = own
    return (np.concatenate(images) * 255).round().astype(np.uint8)
