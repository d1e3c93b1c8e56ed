"""Does the picture go with its words? The CLIP score of each image (Hessel et al., 2021; as torchmetrics scales it)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import CLIPModel, CLIPProcessor

from selora.diffusion.base import read_whole
from selora.files import REPOSITORY


class CLIP(nn.Module):
    """A CLIPModel and the processor that goes with it, from a folder of the repository or a hub id.

    Raises:
        FileNotFoundError: where it is neither, with what to do.
    """

    def __init__(self, name: str):
        super().__init__()
        folder = REPOSITORY / name
        source: str | Path = folder if folder.is_dir() else name
        try:
            self.model = read_whole(CLIPModel, source).eval().requires_grad_(False)
            self.processor = CLIPProcessor.from_pretrained(source)
        except Exception as error:  # transformers and tokenizers raise whatever they meet in a damaged file
            why = " ".join(f"{type(error).__name__}: {error}".split())
            raise FileNotFoundError(
                f"CLIP '{name}' is neither a whole folder in {REPOSITORY} nor a model that can be fetched now: check "
                f"the profile's clip, or fetch it first with `hf download` ({why:.500})"
            ) from error


@torch.no_grad()
def embed_pairs(
    clip: CLIP, images: np.ndarray, prompts: Sequence[str], batch_size: int = 32
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of unit length, (N, D) each, of images (N, H, W, 3) uint8 and of their prompts.

    Long text is cut so that its end token stays: CLIP reads the text's features there.
    """
    seen, read = [], []
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        given = clip.processor(
            images=list(images[part]), text=list(prompts[part]), padding=True, truncation=True, return_tensors="pt"
        )
        found = clip.model(**given.to(clip.model.device))
        seen.append(found.image_embeds.cpu())
        read.append(found.text_embeds.cpu())
    return torch.cat(seen), torch.cat(read)


def scores_of_pairs(images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """CLIP scores (N,), 100 x cosine of embeddings (N, D) of images and their prompts, not cut off at 0, which would
    hide how wrong a wrong pair is."""
    return 100 * (images * texts).sum(-1)


def contrasts(images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """By how much each image's CLIP score with its own prompt exceeds that with another image's, (N,): the mean over
    all others, which is what shuffling the prompts gives on average. Embeddings (N, D); nan for a single image."""
    others = 100 * (images * (texts.sum(0) - texts)).sum(-1) / (len(texts) - 1 or float("nan"))
    return scores_of_pairs(images, texts) - others
