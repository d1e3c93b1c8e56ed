"""Adapted weights put into a base model: a plain pipeline that needs no adapter."""

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from selora.diffusion.base import load_base
from selora.diffusion.checkpoint import load_checkpoint
from selora.diffusion.finite import dead_tensors
from selora.export import read_adapter
from selora.export.adapter import origin_of
from selora.export.formats import other_folder
from selora.files import FULL


def merge(source: Path, to: Path, base: str = "") -> None:
    """Write a whole pipeline folder, fp32, with the adapter of a run's folder (or a full fine-tune) in its weights.

    Args:
        source: the folder of a run, or one that `export` or `shrink` left in diffusers' format.
        to: the folder to write to; `StableDiffusionPipeline.from_pretrained(to)` reads it.
        base: the base model, a folder or a hub id; without it, the one that the run's record names.

    Raises:
        FileNotFoundError: where there is nothing to merge, or no base.
        ValueError: where no base is known, where the adapter does not fit it, and as `export` does.
    """
    source, to = Path(source), other_folder(source, to)
    adapter = None if (source / FULL).is_file() else read_adapter(source)
    base = base or (adapter.origin if adapter else origin_of(source)).get("base_model", "")
    if not base:
        raise ValueError(f"{source} does not say what its base model is: name it with --base")
    pipe = load_base(base)
    if adapter:
        for (network, layer), (A, B) in adapter.layers.items():
            add_product(pipe, network, layer, A, B)
    else:
        load_full(pipe, source)
    pipe.save_pretrained(to)


def add_product(pipe: StableDiffusionPipeline, network: str, layer: str, A: torch.Tensor, B: torch.Tensor) -> None:
    """Add B A to a layer's weight. Raises ValueError where the pipeline has no such layer, or of another shape."""
    try:
        weight = getattr(pipe, network).get_submodule(layer).weight
    except AttributeError:
        raise ValueError(f"the base model has no layer {layer} in its {network}: name the adapter's own base") from None
    if weight.shape != (len(B), A.shape[1]):
        raise ValueError(
            f"layer {layer} of the base model's {network} is {tuple(weight.shape)}, the adapter's "
            f"{(len(B), A.shape[1])}: name the adapter's own base"
        )
    weight.data += B.to(weight) @ A.to(weight)


def load_full(pipe: StableDiffusionPipeline, folder: Path) -> None:
    """Put what full fine-tuning left in a folder into a pipeline; as scored, in fp32.

    Raises ValueError for a damaged file, one of another base, or a number that is not finite.
    """
    saved = load_checkpoint(folder / FULL)[0]
    if dead := dead_tensors(saved):
        raise ValueError(f"{folder / FULL}: {dead[0]} is not finite")
    for name, tensor in saved.items():
        network, _, parameter = name.partition(".")
        own = getattr(pipe, network).get_parameter(parameter)
        if own.shape != tensor.shape:
            raise ValueError(f"{folder / FULL}: {name} has the shape {tuple(tensor.shape)}, not {tuple(own.shape)}")
        own.data = tensor.to(pipe.device)
