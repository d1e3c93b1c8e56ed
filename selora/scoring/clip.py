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


def clip_scores(clip: CLIP, images: np.ndarray, prompts: Sequence[str], batch_size: int = 32) -> torch.Tensor:
    """100 x cosine (N,) of images (N, H, W, 3) uint8 and their prompts, not cut off at 0, which would hide how wrong a
    wrong pair is.

    Long text is cut so that its end token stays: CLIP reads the text's features there.
    """
    scores = []
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        given = clip.processor(
            images=list(images[part]), text=list(prompts[part]), padding=True, truncation=True, return_tensors="pt"
        )
        found = clip.model(**given.to(clip.model.device))  # its embeddings are of unit length
        scores.append(100 * (found.image_embeds * found.text_embeds).sum(-1).cpu())
    return torch.cat(scores)
