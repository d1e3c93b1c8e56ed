"""An adapter as a file holds it: each layer's A and B of scaling 1, and what it came from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig
from peft.utils.other import get_pattern_key
from safetensors import safe_open

from selora.export.tensors import from_diffusers, pairs_of
from selora.files import FULL, WEIGHTS, read_json

Pair = tuple[torch.Tensor, torch.Tensor]
KEPT = ("dataset", "method", "seed", "settings", "commit", "versions")  # of a run's record


@dataclass(frozen=True)
class Adapter:
    """LoRA of a Stable Diffusion's U-Net, its text encoder or both.

    Args:
        layers: by network ('unet', 'text_encoder') and the layer's name in it: A (r, d_in) and B (d_out, r), whose
            product B A is added to the layer's weight; ranks may differ.
        origin: base_model, dataset, method, seed, settings, commit and versions of its training, as far as known.
    """

    layers: Mapping[tuple[str, str], Pair]
    origin: Mapping

    @property
    def networks(self) -> dict[str, dict[str, Pair]]:
        """The layers by network."""
        found: dict[str, dict[str, Pair]] = {}
        for (network, layer), pair in self.layers.items():
            found.setdefault(network, {})[layer] = pair
        return found

    @property
    def ranks(self) -> dict[str, dict[str, int]]:
        """Each layer's rank, by network."""
        return {net: {layer: len(A) for layer, (A, _) in layers.items()} for net, layers in self.networks.items()}

    @property
    def name(self) -> str:
        """Data set, method and seed of its run, where they are known."""
        words = (str(self.origin[key]) for key in ("dataset", "method") if key in self.origin)
        return "-".join([*words, f"seed{self.origin['seed']}"]) if "seed" in self.origin else "adapter"

    def words(self) -> dict[str, str]:
        """Origin and ranks as a file's metadata."""
        return {"selora": json.dumps({**self.origin, "ranks": self.ranks})}

    def configs(self) -> dict[str, LoraConfig]:
        """PEFT's configuration of each network's adapter, alpha = r in every layer."""
        return {network: config_of(ranks, self.origin.get("base_model")) for network, ranks in self.ranks.items()}


def config_of(ranks: Mapping[str, int], base_model: str | None) -> LoraConfig:
    """PEFT's configuration of layers of these ranks.

    PEFT takes a pattern for the end of a name: where another layer's name ends in this one, '^' marks it as whole.
    """
    patterns = {f"^{name}" if any(n.endswith(f".{name}") for n in ranks) else name: r for name, r in ranks.items()}
    commonest = max(ranks.values(), key=[*ranks.values()].count)
    others = {pattern: rank for pattern, rank in patterns.items() if rank != commonest}
    return LoraConfig(
        base_model_name_or_path=base_model,
        r=commonest,
        lora_alpha=commonest,
        target_modules=sorted(ranks),
        rank_pattern=others,
        alpha_pattern=dict(others),
        inference_mode=True,
    )


def read_adapter(source: Path) -> Adapter:
    """The adapter in a run's folder, or in any that `save_lora`, `export` or `shrink` left in diffusers' format.

    Layers of another scaling than 1 (alpha other than r) get it folded into B.

    Raises:
        FileNotFoundError: where there is none, with what is there instead.
        ValueError: for an adapter that is not plain LoRA (DoRA, say), or lacks one side of a layer.
    """
    file = Path(source) / WEIGHTS
    if not file.is_file():
        raise FileNotFoundError(f"{source} holds no LoRA adapter ({WEIGHTS}): {what_is_in(Path(source))}")
    with safe_open(file, framework="pt") as stored:
        words = stored.metadata() or {}
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}
    config = json.loads(words.get("lora_adapter_metadata", "{}"))
    for name, tensor in tensors.items():
        if from_diffusers(name) is None or tensor.ndim != 2:
            raise ValueError(
                f"{file} holds '{name}', so it is not plain LoRA on linear layers alone, and is not converted: load it "
                "with diffusers as it is"
            )
    try:
        pairs = pairs_of(tensors)
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}): fetch it again, or make the run anew") from error
    layers = {key: (A, B * scaling_of(config, *key, len(A))) for key, (A, B) in pairs.items()}
    origin = json.loads(words.get("selora", "{}"))
    origin.pop("ranks", None)
    return Adapter(layers, {**origin, **origin_of(Path(source))})


def scaling_of(config: Mapping, network: str, layer: str, rank: int) -> float:
    """A layer's factor alpha / r by the metadata that diffusers keeps; 1 without any."""
    alphas = config.get(f"{network}.alpha_pattern") or {}
    alpha = alphas.get(get_pattern_key(list(alphas), layer), config.get(f"{network}.lora_alpha", rank))
    return alpha / (rank**0.5 if config.get(f"{network}.use_rslora") else rank)


def origin_of(folder: Path) -> dict:
    """What a run's record says that its adapter came from; nothing for a folder without a record."""
    record = folder / "result.json"
    if not record.is_file():
        return {}
    result = read_json(record)
    return {"base_model": result["settings"]["base_model"]} | {key: result[key] for key in KEPT if key in result}


def what_is_in(folder: Path) -> str:
    """What a folder without an adapter is, in words."""
    if not folder.is_dir():
        return "there is no such folder. Give a run's, results/<profile>/runs/<data set>/<method>/seed<k>"
    if (folder / FULL).is_file():
        return "it is a full fine-tune, which `selora merge` makes a pipeline of"
    if (folder / "result.json").is_file():
        return f"its method, {read_json(folder / 'result.json')['method']}, leaves none, or it was published without"
    return "give the folder of a finished run, or one that save_lora wrote"
