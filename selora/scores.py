"""FID and KID of generated images, and what they are to be read beside: a floor and a ceiling."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn

from selora.checkpoint import load_checkpoint, save_checkpoint
from selora.encoders import features
from selora.latents import decode, encode
from selora.metrics import fid, kid


def reference_scores(
    vae: AutoencoderKL, reference: np.ndarray, others: np.ndarray, encoder: nn.Module, batch_size: int, cache: Path
) -> tuple[torch.Tensor, dict]:
    """Features of the reference images, and the scores that bound every method's; computed once per data set.

    Args:
        reference: images generated ones are compared with, (N, H, W, 3) uint8.
        others: as many other images of the same set: their distance is the floor that sampling noise alone gives.
        cache: folder where the outcome is kept, under a hash of everything it depends on.

    Returns:
        Features (N, F), and a record: floor_fid, floor_kid; ceiling_fid, ceiling_kid of the autoencoder's
        reconstruction of the reference, which no adapter of the denoiser can better.
    """
    digest = hashlib.sha256(reference.tobytes() + others.tobytes() + type(encoder).__name__.encode())
    for tensor in vae.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    path = cache / f"reference-{digest.hexdigest()[:16]}.safetensors"
    if not path.exists():
        real, other = features(encoder, reference), features(encoder, others)
        rebuilt = features(encoder, decode(vae, encode(vae, reference, batch_size), batch_size))
        record = {
            "floor_fid": fid(real[: len(other)], other),
            "floor_kid": kid(real[: len(other)], other),
            "floor_n": len(other),
            "ceiling_fid": fid(real, rebuilt),
            "ceiling_kid": kid(real, rebuilt),
        }
        save_checkpoint(path, {"features": real}, record)
    tensors, record = load_checkpoint(path)
    return tensors["features"], record


def scores(images: np.ndarray, reference_features: torch.Tensor, encoder: nn.Module) -> dict:
    """FID and KID of generated images (N, H, W, 3) uint8 against the reference's features."""
    generated = features(encoder, images)
    return {"fid": fid(reference_features, generated), "kid": kid(reference_features, generated), "n": len(images)}
