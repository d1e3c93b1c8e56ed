"""The formats an adapter travels in: diffusers', PEFT's, and that of the kohya tools, ComfyUI and the web UIs."""

from pathlib import Path

import torch

from selora.export.adapter import Adapter, read_adapter
from selora.export.card import write_card
from selora.export.tensors import in_diffusers, in_kohya, metadata_of, save_tensors
from selora.files import WEIGHTS


def export(source: Path, format: str, to: Path) -> None:
    """Write the adapter of a run's folder in another format, with its metadata and a model card.

    Args:
        source: the folder of a run, or any other that holds `pytorch_lora_weights.safetensors`.
        format: of FORMATS: 'diffusers' (`pipe.load_lora_weights(to)`), 'peft' (a folder a network:
            `PeftModel.from_pretrained(pipe.unet, to / "unet")`), 'kohya' (one file for ComfyUI and the web UIs).
        to: the folder to write to; not `source` itself.

    Raises:
        FileNotFoundError: where `source` holds no adapter.
        ValueError: for an unknown format, an adapter that is not plain LoRA, or `source` as the target.
    """
    if format not in FORMATS:
        raise ValueError(f"unknown format '{format}': choose from {', '.join(FORMATS)}")
    write(read_adapter(source), format, other_folder(source, to))


def other_folder(source: Path, to: Path) -> Path:
    """`to`, which must not be where the adapter is read: nothing of a run is overwritten. Raises ValueError."""
    if Path(to).resolve() == Path(source).resolve():
        raise ValueError(f"{to} is the adapter's own folder: name another with --to")
    return Path(to)


def write(adapter: Adapter, format: str, to: Path) -> None:
    """Write an adapter in one of FORMATS, and its card."""
    FORMATS[format](adapter, to)
    write_card(adapter, format, to)


def write_diffusers(adapter: Adapter, folder: Path) -> None:
    """One file, as `save_lora` writes it."""
    tensors: dict[str, torch.Tensor] = {}
    for (network, layer), pair in adapter.layers.items():
        tensors |= {in_diffusers(network, f"{layer}.lora_{s}.weight"): t for s, t in zip("AB", pair, strict=True)}
    configs = {network: config.to_dict() for network, config in adapter.configs().items()}
    save_tensors(folder / WEIGHTS, tensors, metadata_of(configs) | adapter.words())


def write_peft(adapter: Adapter, folder: Path) -> None:
    """A folder for each network, as PEFT's `save_pretrained` leaves it."""
    for network, layers in adapter.networks.items():
        tensors = {
            f"base_model.model.{layer}.lora_{side}.weight": tensor
            for layer, pair in layers.items()
            for side, tensor in zip("AB", pair, strict=True)
        }
        save_tensors(folder / network / "adapter_model.safetensors", tensors, adapter.words())
        adapter.configs()[network].save_pretrained(str(folder / network))


def write_kohya(adapter: Adapter, folder: Path) -> None:
    """One file, named by data set, method and seed, since its name is what the web UIs list.

    There a layer adds alpha / r * up @ down. diffusers' reader of such files loses alphas that differ between layers,
    so alpha is 1 in all of them and `up` is B times r: the same product in every tool.
    """
    tensors: dict[str, torch.Tensor] = {}
    for (network, layer), (A, B) in adapter.layers.items():
        name = in_kohya(network, layer)
        tensors |= {f"{name}.lora_down.weight": A, f"{name}.lora_up.weight": B * len(A)}
        tensors[f"{name}.alpha"] = torch.ones((), dtype=A.dtype)
    words = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(max(len(A) for A, _ in adapter.layers.values())),
        "ss_network_alpha": "1.0",
        "ss_sd_model_name": str(adapter.origin.get("base_model", "")),
    }
    save_tensors(folder / f"{adapter.name}.safetensors", tensors, words | adapter.words())


FORMATS = {"diffusers": write_diffusers, "peft": write_peft, "kohya": write_kohya}
