"""Adapters to a file that stock tools load: diffusers' own LoRA format, with adapter metadata."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from selora.adapters import adapter_name
from selora.files import replacing

WEIGHTS = "pytorch_lora_weights.safetensors"  # where diffusers looks for them
SIDES = {"A": "down", "B": "up"}


def save_lora(unet: nn.Module, text_encoder: nn.Module, folder: Path) -> None:
    """Write both networks' LoRA adapters, of any mix of ranks, to `folder/pytorch_lora_weights.safetensors`.

    A stock pipeline reads them back with `pipe.load_lora_weights(folder)`. Every layer has alpha = r (scaling 1), so
    they load right even where a tool ignores the metadata. The networks may be wrapped (`get_peft_model`), and the
    adapter may have any name.
    """
    bare = {"unet": unet, "text_encoder": text_encoder}
    bare = {net: model.get_base_model() if isinstance(model, PeftModel) else model for net, model in bare.items()}
    text = named_as_in_diffusers(bare["text_encoder"])
    # The name before transformers 5 flattened the model; new and old diffusers and the kohya tools all know it.
    text = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in text.items()}
    # DoRA's magnitudes: transformers 5 finds them only by their full name.
    text = {name + ".weight" * name.endswith("lora_magnitude_vector"): tensor for name, tensor in text.items()}
    adapters = {"unet": named_as_in_diffusers(bare["unet"]), "text_encoder": text}
    tensors, metadata = {}, {}
    for network, model in bare.items():
        tensors |= {f"{network}.{name}": tensor for name, tensor in adapters[network].items()}
        config = model.peft_config[adapter_name(model)].to_dict()
        metadata |= {f"{network}.{k}": sorted(v) if isinstance(v, set) else v for k, v in config.items()}
    words = {"format": "pt", "lora_adapter_metadata": json.dumps(metadata, indent=2, sort_keys=True)}
    write_tensors(Path(folder) / WEIGHTS, tensors, words)


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], words: Mapping[str, str]) -> None:
    """Write a safetensors file, with words of metadata, so that a reader finds either the old file or the new one,
    whole. Raises OSError, as of a full disk."""
    with replacing(path) as partial:
        try:
            save_file(dict(tensors), partial, dict(words))
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written ({error}): make room, and start again to go on") from error


def named_as_in_diffusers(model: nn.Module) -> dict:
    """A model's adapter, its attention's layers named as diffusers does: 'to_q.lora.down' and, in a text encoder,
    'q_proj.lora_linear_layer.down', where PEFT says 'lora_A'. Others keep PEFT's names, which diffusers reads too."""

    def renamed(name: str) -> str:
        name = re.sub(r"(to_[qkv]|to_out\.0)\.lora_([AB])", lambda m: f"{m[1]}.lora.{SIDES[m[2]]}", name)
        return re.sub(
            r"(\.[qkv]_proj|\.out_proj)\.lora_([AB])", lambda m: f"{m[1]}.lora_linear_layer.{SIDES[m[2]]}", name
        )

    tensors = get_peft_model_state_dict(model, adapter_name=adapter_name(model))
    return {renamed(name): tensor for name, tensor in tensors.items()}
