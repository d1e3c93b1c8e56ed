"""Plain PEFT LoRA layers: where they sit, how many parameters they hold, how one of them is grown."""

import math
from collections.abc import Iterable, Mapping

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from torch import nn

ADAPTER = "default"  # the name `add_adapter` gives an adapter in diffusers and transformers


def linear_layers(model: nn.Module) -> list[str]:
    """Names of every `nn.Linear` of a model, in its own order: the paper's choice of layers, for `target_modules`."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def lora_layers(model: nn.Module) -> dict[str, LoraLinear]:
    """The model's LoRA layers on an `nn.Linear` by name, in its own order."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, LoraLinear) and ADAPTER in module.lora_A
    }


def all_lora_layers(networks: Mapping[str, nn.Module]) -> dict[tuple[str, str], LoraLinear]:
    """The LoRA layers of several networks by (network, name)."""
    return {(net, name): layer for net, model in networks.items() for name, layer in lora_layers(model).items()}


def add_tuner(model: nn.Module, config: PeftConfig, seed: int) -> PeftModel:
    """Freeze a model and replace its layers by those of one of PEFT's adapters; `seed` determines their weights.

    Returns:
        The wrapper, which saves and schedules; the model itself stays usable as it is, with the adapter in it.
    """
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(model, config)


def add_lora(model: nn.Module, rank: int, seed: int, **options) -> None:
    """Freeze a diffusers or transformers model and add trainable LoRA of one rank to all its linear layers (Eq. 1).

    alpha equals the rank, so PEFT's scaling is 1, as in the paper. `seed` determines the initial A; `options` go to
    PEFT's LoraConfig.
    """
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=linear_layers(model), **options))


def set_weights(layer: LoraLinear, A: torch.Tensor, B: torch.Tensor) -> None:
    """Give a LoRA layer new weights A (r, d_in) and B (d_out, r) of any rank; its scaling stays as it is.

    They become new parameters: autograd keeps the shape of a parameter whose graph is still alive, and would silently
    sum a grown gradient back to it.
    """
    layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight = nn.Parameter(A), nn.Parameter(B)
    rank = A.shape[0]
    layer.lora_A[ADAPTER].out_features = layer.lora_B[ADAPTER].in_features = layer.r[ADAPTER] = rank
    layer.lora_alpha[ADAPTER] = layer.scaling[ADAPTER] * rank


def fold_scaling(model: nn.Module) -> None:
    """Move each LoRA layer's scaling into its B, so that it is 1 and tools that ignore alpha load it right."""
    for name, layer in lora_layers(model).items():
        if layer.scaling[ADAPTER] != 1:
            B = layer.lora_B[ADAPTER].weight
            B.data *= layer.scaling[ADAPTER]
            layer.scaling[ADAPTER], layer.lora_alpha[ADAPTER] = 1.0, layer.r[ADAPTER]
            layer.use_rslora[ADAPTER] = model.peft_config[ADAPTER].use_rslora = False
            record_rank(model, name, layer)


def resize(model: nn.Module, name: str, A: torch.Tensor, B: torch.Tensor) -> None:
    """`set_weights` of a model's LoRA layer by its name, its new rank recorded."""
    layer = model.get_submodule(name)
    set_weights(layer, A, B)
    record_rank(model, name, layer)


def record_rank(model: nn.Module, name: str, layer: LoraLinear) -> None:
    """Write a layer's rank and alpha into the model's PEFT configuration, which is saved as adapter metadata."""
    config = model.peft_config[ADAPTER]
    config.rank_pattern[name] = layer.r[ADAPTER]
    config.alpha_pattern[name] = layer.lora_alpha[ADAPTER]


def trained_tensors(networks: Mapping[str, nn.Module]) -> dict[str, torch.Tensor]:
    """Copies of all trainable parameters, on the CPU, named `<network>.<parameter>`."""
    return {
        f"{network}.{name}": p.detach().cpu().clone()
        for network, model in networks.items()
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def restore_tensors(networks: Mapping[str, nn.Module], tensors: Mapping[str, torch.Tensor]) -> None:
    """Put back what `trained_tensors` copied; LoRA layers take the ranks found there."""
    for network, model in networks.items():
        for name, layer in lora_layers(model).items():
            weights = [layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight]
            saved = [tensors[f"{network}.{name}.lora_{side}.{ADAPTER}.weight"] for side in "AB"]
            if weights[0].shape != saved[0].shape:
                resize(model, name, *(new.to(old) for old, new in zip(weights, saved, strict=True)))
        for name, p in model.named_parameters():
            if p.requires_grad:  # `data`, since a gate too has the length of its layer's rank
                p.data = tensors[f"{network}.{name}"].to(p, copy=True)


def ranks(model: nn.Module) -> dict[str, int]:
    """Rank of each LoRA layer by name."""
    return {name: layer.lora_A[ADAPTER].weight.shape[0] for name, layer in lora_layers(model).items()}


def trainable_parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def draw_row(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A candidate row K (1, d_in) of `lora_A.weight`, drawn as PEFT draws the first one (Kaiming uniform, a = sqrt 5).

    The FI-Ratio scales with K's variance, so another gain would be another criterion. It is drawn on the CPU, so that a
    run grows the same rows on every device.
    """
    row = torch.empty(1, like.shape[1])
    nn.init.kaiming_uniform_(row, a=math.sqrt(5), generator=generator)
    return row.to(like)


def orthogonality(adapters: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """How far adapters A (r, d_in), B (d_out, r) are from orthogonal: the mean Frobenius norm of A A^T - I and of
    B^T B - I (AdaLoRA's Eq. 4, as PEFT averages it)."""
    grams = [gram for A, B in adapters for gram in (A @ A.T, B.T @ B)]
    away = [torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device)) for gram in grams]
    return torch.stack(away).mean()


def kind(layer: str) -> str:
    """A layer's kind of weight: 'attn1.to_q', say, in a transformer block of the U-Net, else the name's last word."""
    in_block = layer.partition("transformer_blocks.")[2]
    return in_block.partition(".")[2] if in_block else layer.rpartition(".")[2]
