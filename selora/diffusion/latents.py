"""Images to latents and prompts to tokens, once for all runs."""

import functools
import hashlib
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from tqdm.auto import tqdm
from transformers import CLIPTokenizer

from selora import data
from selora.data.example import Example
from selora.data.pictures import load_images
from selora.diffusion import machine
from selora.diffusion.checkpoint import hash_tensors
from selora.diffusion.finite import NotFinite
from selora.files import hash_file, replacing

SHARD = 1024  # images in a file of latents: 13 MB at 224 pixels, and what an interruption costs at most


@torch.no_grad()
def encode(vae: AutoencoderKL, images: np.ndarray, batch_size: int) -> torch.Tensor:
    """Scaled latents (N, 4, size / 8, size / 8) of uint8 images (N, size, size, 3): the mean of the posterior.

    Raises NotFinite for latents that are not.
    """
    latents = []
    for part in torch.from_numpy(images).split(batch_size):
        pixels = part.permute(0, 3, 1, 2).to(vae.device, vae.dtype) / 127.5 - 1
        latents.append(vae.encode(pixels).latent_dist.mode().cpu())
    found = torch.cat(latents) * vae.config.scaling_factor
    if not found.isfinite().all():
        raise NotFinite("the base's autoencoder gives latents that are not finite: use another base")
    return found


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: torch.Tensor, batch_size: int) -> np.ndarray:
    """uint8 images (N, size, size, 3) of scaled latents. Raises NotFinite where they would be anything."""
    images = []
    for part in latents.split(batch_size):
        pixels = vae.decode(part.to(vae.device, vae.dtype) / vae.config.scaling_factor).sample
        if not pixels.isfinite().all():
            raise NotFinite("the autoencoder's pictures are not finite")
        images.append(((pixels + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu())
    return torch.cat(images).numpy()


class Latents:
    """Latents (N, 4, h, w) in memory-mapped files, of which an index reads what it names and no more."""

    def __init__(self, paths: Sequence[Path]):
        self.shards = [np.load(path, mmap_mode="r") for path in paths]
        self.starts = np.cumsum([0, *(len(shard) for shard in self.shards)])
        self.shape = torch.Size([int(self.starts[-1]), *self.shards[0].shape[1:]])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: torch.Tensor | slice) -> torch.Tensor:
        """A tensor (n, 4, h, w) of the samples that an index tensor (n,) or a slice names."""
        wanted = np.arange(len(self))[index.numpy() if isinstance(index, torch.Tensor) else index]
        shards = np.searchsorted(self.starts, wanted, side="right") - 1
        found = [self.shards[s][i] for s, i in zip(shards, wanted - self.starts[shards], strict=True)]
        return torch.from_numpy(np.stack(found))


def cached_latents(vae: AutoencoderKL, examples: Sequence[Example], size: int, cache: Path, batch_size: int) -> Latents:
    """`encode` of some examples, kept in folder `cache` in shards, each under a hash of all it depends on.

    They are kept under what they come from: the autoencoder's weights and configuration, the bytes of the pictures, the
    code that reads those, and the batch size, which the last digits of a convolution follow. Several processes share
    the work.

    Raises:
        DataError: for a missing or broken image.
    """
    weights = vae.state_dict().items()
    model = hash_tensors({k: v for k, v in weights if not k.startswith(("decoder", "post_quant_conv"))})
    own = {name: value for name, value in vae.config.items() if not name.startswith("_")}  # less where it was read from
    model += repr((size, own, readers(), batch_size, "one thread")).encode()
    parts = [examples[start : start + SHARD] for start in range(0, len(examples), SHARD)]
    paths = [cache / f"latents-{hashlib.sha256(model + stamps(part)).hexdigest()[:16]}.npy" for part in parts]
    this = machine.state()
    share = list(zip(parts, paths, strict=True))[this.process_index :: this.num_processes]
    for part, path in tqdm(share, desc="encode", mininterval=5):
        if path.exists():
            continue
        pictures = (load_images(part[i : i + batch_size], size) for i in range(0, len(part), batch_size))
        with machine.one_thread():
            latents = torch.cat([encode(vae, images, batch_size) for images in pictures])
        with replacing(path) as partial, partial.open("wb") as file:
            np.save(file, latents.numpy())
    this.wait_for_everyone()
    return Latents(paths)


def stamps(examples: Sequence[Example]) -> bytes:
    """The hash of each example's picture file, in their order; a missing file has none."""
    return repr([hash_file(e.path) if e.path.is_file() else None for e in examples]).encode()


@functools.cache
def readers() -> str:
    """A hash of what turns a file into pixels: the package's own code, and the libraries' versions."""
    code = [path.read_bytes() for path in sorted(Path(data.__file__).parent.glob("*.py"))]
    versions = [importlib.metadata.version(name) for name in ("pillow", "pydicom", "numpy")]
    return hashlib.sha256(repr((code, versions)).encode()).hexdigest()


def tokenize(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> torch.Tensor:
    """Token ids (N, 77); longer prompts are cut so that the end token stays, as CLIP does."""
    return tokenizer(
        list(prompts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids
