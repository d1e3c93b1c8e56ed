"""Images to latents and prompts to tokens, once for all runs."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from tqdm import tqdm
from transformers import CLIPTokenizer

from selora.checkpoint import hash_tensors, load_checkpoint, save_checkpoint
from selora.data.common import Example, open_image


def load_images(examples: Sequence[Example], size: int) -> np.ndarray:
    """All images of some examples, (N, size, size, 3) uint8; a broken one raises DataError with its name."""
    return np.stack([np.asarray(open_image(example.path, size)) for example in examples])


@torch.no_grad()
def encode(vae: AutoencoderKL, images: np.ndarray, batch_size: int) -> torch.Tensor:
    """Scaled latents (N, 4, size / 8, size / 8) of uint8 images (N, size, size, 3): the mean of the posterior."""
    latents = []
    for part in tqdm(torch.from_numpy(images).split(batch_size), desc="encode", mininterval=5):
        pixels = part.permute(0, 3, 1, 2).to(vae.device, vae.dtype) / 127.5 - 1
        latents.append(vae.encode(pixels).latent_dist.mode().cpu())
    return torch.cat(latents) * vae.config.scaling_factor


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: torch.Tensor, batch_size: int) -> np.ndarray:
    """uint8 images (N, size, size, 3) of scaled latents."""
    images = []
    for part in latents.split(batch_size):
        pixels = vae.decode(part.to(vae.device, vae.dtype) / vae.config.scaling_factor).sample
        images.append(((pixels + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu())
    return torch.cat(images).numpy()


def cached_latents(
    vae: AutoencoderKL, examples: Sequence[Example], size: int, cache: Path, batch_size: int
) -> torch.Tensor:
    """`encode` of some examples, kept in folder `cache` under a hash of all it depends on."""
    images = load_images(examples, size)
    digest = hashlib.sha256(images.tobytes() + str(vae.config.scaling_factor).encode())
    weights = vae.state_dict().items()
    digest.update(hash_tensors({k: v for k, v in weights if not k.startswith(("decoder", "post_quant_conv"))}))
    path = cache / f"{digest.hexdigest()[:16]}.safetensors"
    if not path.exists():
        save_checkpoint(path, {"latents": encode(vae, images, batch_size)}, {"images": len(images), "size": size})
    return load_checkpoint(path)[0]["latents"]


def tokenize(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> torch.Tensor:
    """Token ids (N, 77); longer prompts are cut so that the end token stays, as CLIP does."""
    return tokenizer(
        list(prompts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids
