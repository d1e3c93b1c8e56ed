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
    steps: int,  # of DPM-Solver++ (multistep, second order)
    guidance_scale: float,  # 1 is none
    batch_size: int,
    seed: int,
) -> np.ndarray:
    """Images (N, size, size, 3) uint8 for N prompts."""
    # Lightning-fast to make and free of state: one per call, so that a pipeline handed in keeps its own scheduler.
    own, pipe.scheduler = pipe.scheduler, DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    noise = starting_noise(pipe, len(prompts), size, seed)
    images = []
    for start in tqdm(range(0, len(prompts), batch_size), desc="sample", mininterval=5):
        part = slice(start, start + batch_size)
        images.append(
            pipe(
                list(prompts[part]),
                height=size,
                width=size,
                latents=noise[part].to(pipe.device, pipe.unet.dtype),
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                output_type="np",
            ).images
        )
    pipe.scheduler = own
    return (np.concatenate(images) * 255).round().astype(np.uint8)
