"""Tensors of LoRA files: their names, which each tool writes in its own way, and the file."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from selora.files import replacing

SIDES = {"A": "down", "B": "up"}
NAMED = re.compile(  # of a layer's A or B in diffusers' file
    r"(?P<network>unet|text_encoder)\.(?P<layer>.+)\.(?:lora(?:_linear_layer)?\.(?P<side>down|up)|lora_(?P<peft>[AB]))\.weight"
)


def in_diffusers(network: str, name: str) -> str:
    """A tensor's name in diffusers' file, from its network and its name in PEFT.

    Attention's layers are named as diffusers does, 'to_q.lora.down' and, in a text encoder,
    'q_proj.lora_linear_layer.down', where PEFT says 'lora_A'. Others keep PEFT's names, which diffusers reads too.

    >>> in_diffusers("unet", "mid_block.attentions.0.proj_in.lora_A.weight")
    'unet.mid_block.attentions.0.proj_in.lora_A.weight'
    >>> in_diffusers("text_encoder", "encoder.layers.0.self_attn.q_proj.lora_B.weight")
    'text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.up.weight'
    """
    name = re.sub(r"(to_[qkv]|to_out\.0)\.lora_([AB])", lambda m: f"{m[1]}.lora.{SIDES[m[2]]}", name)
    name = re.sub(r"(\.[qkv]_proj|\.out_proj)\.lora_([AB])", lambda m: f"{m[1]}.lora_linear_layer.{SIDES[m[2]]}", name)
    if network == "text_encoder":
        # The name before transformers 5 flattened the model; new and old diffusers and the kohya tools all know it.
        name = f"text_model.{name.removeprefix('text_model.')}"
        # DoRA's magnitudes: transformers 5 finds them only by their full name.
        name += ".weight" * name.endswith("lora_magnitude_vector")
    return f"{network}.{name}"


def from_diffusers(name: str) -> tuple[str, str, str] | None:
    """Network, layer and side (A or B) of a tensor of diffusers' file; None where it is neither's.

    >>> from_diffusers("text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.up.weight")
    ('text_encoder', 'encoder.layers.0.self_attn.q_proj', 'B')
    >>> from_diffusers("unet.conv_in.lora_magnitude_vector")
    """
    found = NAMED.fullmatch(name)
    if not found:
        return None
    network, layer, side, peft = found.group("network", "layer", "side", "peft")
    layer = layer.removeprefix("text_model.") if network == "text_encoder" else layer
    return network, layer, peft or {down: letter for letter, down in SIDES.items()}[side]


def pairs_of(tensors: Mapping[str, torch.Tensor]) -> dict[tuple[str, str], tuple[torch.Tensor, torch.Tensor]]:
    """Each layer's A and B in diffusers' file, by network and layer; tensors that are neither are passed over.

    Raises ValueError for a layer of which one is lacking: diffusers would leave it as it was drawn, and say nothing.
    Also for one that is there by two names, PEFT's and diffusers', which may differ.
    """
    sides: dict[tuple[str, str, str], torch.Tensor] = {}
    for name, tensor in tensors.items():
        place = from_diffusers(name)
        if place in sides:
            raise ValueError(f"{name} is in it under another name too")
        if place:
            sides[place] = tensor
    for network, layer, _ in sides:
        for side in "AB":
            if (network, layer, side) not in sides:
                raise ValueError(f"lora_{side} of {layer} of the {network} is not in it")
    layers = sorted({(network, layer) for network, layer, _ in sides})
    return {(network, layer): (sides[network, layer, "A"], sides[network, layer, "B"]) for network, layer in layers}


def in_kohya(network: str, layer: str) -> str:
    """A layer's name as the kohya tools, ComfyUI and the web UIs have it for Stable Diffusion 1.x.

    >>> in_kohya("text_encoder", "encoder.layers.0.mlp.fc1")
    'lora_te_text_model_encoder_layers_0_mlp_fc1'
    """
    prefix = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}[network]
    return prefix + layer.replace(".", "_")


def metadata_of(configs: Mapping[str, dict]) -> dict[str, str]:
    """The networks' configurations, as PEFT gives them, in the words in which diffusers keeps them in a file."""
    named = {f"{network}.{key}": value for network, config in configs.items() for key, value in config.items()}
    named = {key: sorted(value) if isinstance(value, set) else value for key, value in named.items()}
    return {"lora_adapter_metadata": json.dumps(named, indent=2, sort_keys=True)}


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], words: Mapping[str, str]) -> None:
    """Write tensors with some metadata as safetensors, whole or not at all: a reader finds the old file or the new one.

    Raises OSError, as of a full disk.
    """
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as partial:
        try:
            save_file(whole, partial, {"format": "pt", **words})
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written ({error}): make room, and start again to go on") from error
