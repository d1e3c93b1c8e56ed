"""Adapters to files that stock tools load: diffusers' own LoRA format, with adapter metadata."""

from pathlib import Path

from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import PeftModel, get_peft_model_state_dict
from torch import nn

from selora.adapters import adapter_name


def save_lora(unet: nn.Module, text_encoder: nn.Module, folder: Path) -> None:
    """Write both networks' LoRA adapters, of any mix of ranks, to `folder/pytorch_lora_weights.safetensors`.

    A stock pipeline reads them back with `pipe.load_lora_weights(folder)`. Every layer has alpha = r (scaling 1), so
    they load right even where a tool ignores the metadata. The networks may be wrapped (`get_peft_model`), and the
    adapter may have any name.
    """
    bare = {"unet": unet, "text_encoder": text_encoder}
    bare = {net: model.get_base_model() if isinstance(model, PeftModel) else model for net, model in bare.items()}
    names = {net: adapter_name(model) for net, model in bare.items()}
    layers = {
        net: convert_state_dict_to_diffusers(get_peft_model_state_dict(model, adapter_name=names[net]))
        for net, model in bare.items()
    }
    text = layers["text_encoder"]
    # The name before transformers 5 flattened the model; new and old diffusers and the kohya tools all know it.
    text = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in text.items()}
    # DoRA's magnitudes: transformers 5 finds them only by their full name.
    text = {name + ".weight" * name.endswith("lora_magnitude_vector"): tensor for name, tensor in text.items()}
    StableDiffusionPipeline.save_lora_weights(
        folder,
        unet_lora_layers=layers["unet"],
        text_encoder_lora_layers=text,
        **{f"{net}_lora_adapter_metadata": m.peft_config[names[net]].to_dict() for net, m in bare.items()},
    )
