"""An adapter as a file holds it: each layer's A and B of scaling 1, and what it came from."""

import json
import re
import reprlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError, safe_open

from selora.export.tensors import from_diffusers, pairs_of
from selora.files import FULL, WEIGHTS, read_json

Pair = tuple[torch.Tensor, torch.Tensor]
KEPT = ("dataset", "method", "seed", "settings", "commit", "versions")  # of a run's record
KINDS = {"base_model": str, "dataset": str, "method": str, "seed": int, "settings": dict}  # of what is known of it
NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # that arithmetic is done with


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
        ValueError: for an adapter that is not plain LoRA (DoRA, say), lacks one side of a layer, holds a number that is
            not finite, or for a damaged file.
    """
    file = Path(source) / WEIGHTS
    if not file.is_file():
        raise FileNotFoundError(f"{source} holds no LoRA adapter ({WEIGHTS}): {what_is_in(Path(source))}")
    try:
        with safe_open(file, framework="pt") as stored:
            words = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}
        config, origin = (words_of(words, name) for name in ("lora_adapter_metadata", "selora"))
        check_kinds(origin)
    except (SafetensorError, ValueError) as error:
        raise damaged(file, error) from error
    for name, tensor in tensors.items():
        if from_diffusers(name) is None or tensor.ndim != 2:
            raise ValueError(
                f"{file} holds '{name}', so it is not plain LoRA on linear layers alone, and is not converted: load it "
                "with diffusers as it is"
            )
        if tensor.dtype not in NUMBERS:
            raise ValueError(
                f"{file} holds '{name}' as {tensor.dtype}, which is not converted: save it as torch.float16"
            )
    try:
        layers = {key: folded(*pair, config, *key) for key, pair in pairs_of(tensors).items()}
        if not layers:
            raise ValueError("it holds no tensors")
    except ValueError as error:
        raise damaged(file, error) from error
    origin.pop("ranks", None)
    return Adapter(layers, {**origin, **origin_of(Path(source))})


def damaged(file: Path, error: Exception) -> ValueError:
    """What to raise for a file that is no adapter: cut short, or a web page or a pointer of Git LFS, say."""
    return ValueError(f"{file} is damaged ({error}): fetch it again, or make the run anew")


def words_of(words: Mapping[str, str], name: str) -> dict:
    """A record among a file's metadata; an empty one where there is none. Raises ValueError where it is no record."""
    try:
        record = json.loads(words.get(name, "{}"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its metadata '{name}' cannot be read: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"its metadata '{name}' holds no record, but {reprlib.repr(record)}")
    return record


def check_kinds(origin: Mapping) -> None:
    """Raise ValueError where what is known of an adapter's training is not of the kinds that a run records."""
    for name, kind in KINDS.items():
        if name in origin and not isinstance(origin[name], kind):
            raise ValueError(f"its {name} is {reprlib.repr(origin[name])}")


def folded(A: torch.Tensor, B: torch.Tensor, config: Mapping, network: str, layer: str) -> Pair:
    """A layer's A and B of scaling 1. Raises ValueError where they do not belong together, or are not finite."""
    where = f"{layer} of the {network}"
    if len(A) != B.shape[1] or not A.numel() or not B.numel():
        raise ValueError(f"lora_A of {where} is {tuple(A.shape)}, its lora_B {tuple(B.shape)}")
    B = B * scaling_of(config, network, layer, len(A))
    if not (A.isfinite().all() and B.isfinite().all()):
        raise ValueError(f"{where} has numbers that are not finite")
    return A, B


def scaling_of(config: Mapping, network: str, layer: str, rank: int) -> float:
    """A layer's factor alpha / r by the metadata that diffusers keeps; 1 without any. Raises ValueError for metadata
    that say none."""
    alphas = config.get(f"{network}.alpha_pattern") or {}
    try:
        alpha = alphas.get(get_pattern_key(list(alphas), layer), config.get(f"{network}.lora_alpha", rank))
    except (AttributeError, TypeError, OverflowError, RecursionError, re.error) as error:  # no mapping of patterns
        raise ValueError(f"alpha_pattern of the {network} is {reprlib.repr(alphas)}") from error
    if type(alpha) not in (int, float) or not abs(alpha) <= sys.float_info.max:  # written so that NaN is refused too
        raise ValueError(f"alpha of {layer} of the {network} is {reprlib.repr(alpha)}")
    root = config.get(f"{network}.use_rslora")
    if root not in (True, False, None):
        raise ValueError(f"use_rslora of the {network} is {reprlib.repr(root)}")
    return alpha / (rank**0.5 if root else rank)


def origin_of(folder: Path) -> dict:
    """What a run's record says that its adapter came from; nothing for a folder without a record.

    Raises ValueError, with its name, for a record that does not say it.
    """
    record = folder / "result.json"
    if not record.is_file():
        return {}
    result = read_json(record)
    origin = {key: result[key] for key in KEPT if key in result}
    try:
        check_kinds({"settings": None} | origin)
        origin = {"base_model": origin["settings"].get("base_model")} | origin
        check_kinds(origin)
    except ValueError as error:
        raise ValueError(f"{record} is damaged ({error}): restore it, or remove it to go on without") from error
    return origin


def what_is_in(folder: Path) -> str:
    """What a folder without an adapter is, in words."""
    if not folder.is_dir():
        return "there is no such folder. Give a run's, results/<profile>/runs/<data set>/<method>/seed<k>"
    if (folder / FULL).is_file():
        return "it is a full fine-tune, which `selora merge` makes a pipeline of"
    if (folder / "result.json").is_file():
        method = read_json(folder / "result.json").get("method")
        return f"its method, {method}, leaves none, or it was published without"
    return "give the folder of a finished run, or one that save_lora wrote"
