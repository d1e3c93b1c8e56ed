"""Does the picture go with its words? CLIPScore, image by image, through torchmetrics."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchmetrics.multimodal import CLIPScore
from transformers import CLIPModel, CLIPProcessor

from selora.files import REPOSITORY
from selora.scoring.metrics import ALONE


class _Towers(nn.Module):
    """A CLIPModel whose features are plain tensors, which torchmetrics expects; transformers 5 wraps them."""

    def __init__(self, model: CLIPModel):
        super().__init__()
        self.model, self.config = model, model.config

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model.get_image_features(pixel_values=pixel_values).pooler_output

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model.get_text_features(input_ids=input_ids, attention_mask=attention_mask).pooler_output


class _Processor:
    """A CLIPProcessor that cuts long text so that its end token stays: CLIP reads the text's features there."""

    def __init__(self, processor: CLIPProcessor):
        self.processor = processor

    def __call__(self, images=None, text=None, **settings):
        if text is None:
            return self.processor(images=images, **settings)
        return self.processor(text=text, truncation=True, **settings)


def clip_metric(name: str) -> CLIPScore:
    """torchmetrics' CLIPScore over a CLIP from a folder of the repository or a hub id.

    Raises:
        FileNotFoundError: where it is neither, with what to do.
    """
    folder = REPOSITORY / name
    source: str | Path = folder if folder.is_dir() else name
    try:
        model = CLIPModel.from_pretrained(source, use_safetensors=True).eval().requires_grad_(False)
        processor = CLIPProcessor.from_pretrained(source)
    except OSError as error:
        raise FileNotFoundError(
            f"CLIP '{name}' is neither a folder in {REPOSITORY} nor a model that can be fetched now: check the "
            "profile's clip, or fetch it first with `hf download`"
        ) from error
    return CLIPScore(lambda: (_Towers(model), _Processor(processor)), **ALONE)


def clip_scores(metric: CLIPScore, images: np.ndarray, prompts: Sequence[str]) -> torch.Tensor:
    """100 x cosine (N,) of images (N, H, W, 3) uint8 and their prompts; their mean is CLIPScore.

    Read from the metric's state, pair by pair: its final value is cut off at 0, which would hide how wrong a wrong
    pair is.
    """
    scores = []
    for image, prompt in zip(images, prompts, strict=True):
        metric.reset()
        metric.update(torch.from_numpy(image).permute(2, 0, 1).to(metric.device), prompt)
        scores.append(metric.score.item())
    return torch.tensor(scores)
