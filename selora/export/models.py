"""The adapters of models at hand, in diffusers' own LoRA format, with adapter metadata."""

from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from torch import nn

from selora.adapters import adapter_name
from selora.export.tensors import in_diffusers, metadata_of, save_tensors
from selora.files import WEIGHTS


def save_lora(unet: nn.Module, text_encoder: nn.Module, folder: Path) -> None:
    """Write both networks' LoRA adapters, of any mix of ranks, to `folder/pytorch_lora_weights.safetensors`.

    A stock pipeline reads them back with `pipe.load_lora_weights(folder)`. Where every layer has alpha = r (scaling 1),
    as the study's have, they load right even where a tool ignores the metadata; `export` folds any other scaling in.
    The networks may be wrapped (`get_peft_model`), and the adapter may have any name.
    """
    bare = {"unet": unet, "text_encoder": text_encoder}
    bare = {net: model.get_base_model() if isinstance(model, PeftModel) else model for net, model in bare.items()}
    tensors: dict[str, torch.Tensor] = {}
    configs: dict[str, dict] = {}
    for network, model in bare.items():
        name = adapter_name(model)
        # by itself PEFT would ask the hub for the base's vocabulary, to add its embeddings, which diffusers cannot read
        found = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
        tensors |= {in_diffusers(network, key): tensor for key, tensor in found.items()}
        configs[network] = model.peft_config[name].to_dict()
    save_tensors(Path(folder) / WEIGHTS, tensors, metadata_of(configs))
