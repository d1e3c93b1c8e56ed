"""The model card beside an adapter: what it is, how it is loaded, which ranks it has, what it came from."""

import json
from pathlib import Path

from huggingface_hub import ModelCardData

from selora.export.adapter import Adapter
from selora.files import write_text

LOADING = {  # in the words of each format's consumer
    "diffusers": """\
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("{base}")
pipe.load_lora_weights("path/to/this/folder")""",
    "peft": """\
from diffusers import StableDiffusionPipeline
from peft import PeftModel

pipe = StableDiffusionPipeline.from_pretrained("{base}")
for network in ({networks}):
    setattr(pipe, network, PeftModel.from_pretrained(getattr(pipe, network), "path/to/this/folder/" + network))""",
    "kohya": """\
# ComfyUI: models/loras; the web UIs: models/Lora. With diffusers:
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("{base}")
pipe.load_lora_weights("path/to/this/folder", weight_name="{file}.safetensors")""",
}


def write_card(adapter: Adapter, format: str, folder: Path) -> None:
    """Write README.md beside the adapter; PEFT's format has a folder for each network, and one in each."""
    text = card(adapter, format)
    for place in [folder, *(folder / network for network in adapter.networks if format == "peft")]:
        write_text(place / "README.md", text)


def card(adapter: Adapter, format: str) -> str:
    """The card's text, with the front matter that the Hugging Face hub reads."""
    origin = adapter.origin
    base = Path(origin.get("base_model", ""))
    shown = base.name if base.is_absolute() else base.as_posix()  # where it lies on a disk is nobody's business
    known = bool(base.name)
    title = (
        f"{origin['method']} on {origin['dataset']}"
        if {"dataset", "method"} <= origin.keys()
        else "LoRA of mixed ranks"
    )
    front = ModelCardData(
        base_model=shown if known else None,
        base_model_relation="adapter" if known else None,
        library_name="peft" if format == "peft" else "diffusers",
        pipeline_tag="text-to-image",
        tags=["lora", "selora", "stable-diffusion", "text-to-image"],
    )
    loading = LOADING[format].format(
        base=shown if known else "path/to/its/base",
        networks=", ".join(f'"{network}"' for network in adapter.networks) + ",",
        file=adapter.name,
    )
    parts = [
        f"---\n{front.to_yaml()}\n---",
        f"# {title}",
        "A low-rank adapter of Stable Diffusion, whose ranks may differ from layer to layer, made with the SeLoRA "
        "study (self-expanding LoRA, Mao et al., 2024). **Not for diagnosis**: neither pictures nor models have any "
        "clinical meaning. The terms are those of the base model and of the data it was trained on.",
        f"## Loading it\n\n```python\n{loading}\n```",
        f"## Ranks\n\n{rank_table(adapter)}",
        f"## Where it comes from\n\n{origin_table(adapter)}",
    ]
    return "\n\n".join(parts) + "\n"


def rank_table(adapter: Adapter) -> str:
    """Layers, ranks and parameters of each network, in Markdown."""
    rows = ["| network | layers | lowest rank | mean rank | highest rank | parameters |", "|---|---|---|---|---|---|"]
    for network, layers in adapter.networks.items():
        ranks = adapter.ranks[network].values()
        count = sum(tensor.numel() for pair in layers.values() for tensor in pair)
        mean = sum(ranks) / len(layers)
        rows.append(f"| {network} | {len(layers)} | {min(ranks)} | {mean:.2f} | {max(ranks)} | {count:,} |")
    return "\n".join(rows)


def origin_table(adapter: Adapter) -> str:
    """What is known of the training, in Markdown; the file's metadata, under 'selora', has each layer's rank too."""
    if not adapter.origin:
        return "Not recorded."
    rows = {
        key: json.dumps(value) if isinstance(value, dict) else value
        for key, value in adapter.origin.items()
        if key not in ("settings", "base_model")
    }
    settings = adapter.origin.get("settings", {}).items()
    rows |= {f"settings, {key}": json.dumps(value) for key, value in settings if key != "base_model"}  # stands above
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())])
