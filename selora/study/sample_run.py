"""What a finished run makes of any prompt, the paper's own above all."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

from selora.diffusion.base import load_base
from selora.diffusion.finite import dead_tensors
from selora.diffusion.merge import load_full
from selora.export.tensors import pairs_of
from selora.files import FULL, WEIGHTS
from selora.study.results import Run
from selora.study.stages import sampler


def sample_run(run: Run, prompt: str, count: int) -> list[Image.Image] | None:
    """What a finished run makes of any prompt, from noises that are the same for every run; None and errors as
    `sample_prompts`."""
    images = sample_prompts(run, [prompt] * count, run.profile.seeds[0])
    return None if images is None else [Image.fromarray(image) for image in images]


def sample_prompts(run: Run, prompts: Sequence[str], seed: int) -> np.ndarray | None:
    """What a finished run makes of some prompts, from noises that a seed determines: images (N, H, W, 3) uint8.

    None for a run whose weights are in another format than diffusers' LoRA or the full fine-tune's own, or belong to
    a base of four bits. Raises ValueError as `load_weights`.
    """
    profile, folder = run.profile, run.folder
    if run.method == "qlora":
        return None
    pipe = load_base(profile.base_model, profile.precision)
    if (path := folder / WEIGHTS).exists() or (path := folder / FULL).exists():
        load_weights(pipe, path)
    elif (folder / "history.csv").exists():  # it was trained
        return None
    return sampler(profile, pipe, seed)(prompts)


def load_weights(pipe: StableDiffusionPipeline, path: Path) -> None:
    """Put a run's saved weights into the pipeline of its base.

    Raises ValueError for a file that is damaged, is not of this base, or holds a number that is not finite.
    """
    try:
        load_adapter(pipe, path) if path.name == WEIGHTS else load_full(pipe, path.parent)
    except Exception as error:  # diffusers and PEFT raise whatever they meet
        raise ValueError(
            f"{path} does not fit the base model ({error}): move the run's folder away to make it anew"
        ) from error


def load_adapter(pipe: StableDiffusionPipeline, path: Path) -> None:
    """Load a LoRA file by diffusers, all of it: a layer that the base does not have would be passed over."""
    saved = load_file(path)
    if dead := dead_tensors(saved):
        raise ValueError(f"{dead[0]} is not finite")
    pairs_of(saved)  # each layer has both sides
    pipe.load_lora_weights(path.parent, weight_name=path.name, use_safetensors=True)
    models = (pipe.unet, pipe.text_encoder)
    loaded = sum(p.numel() for model in models for name, p in model.named_parameters() if ".lora_" in name)
    if loaded != (held := sum(tensor.numel() for tensor in saved.values())):
        raise ValueError(f"{loaded} of its {held} numbers find a place")
