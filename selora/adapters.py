"""Plain PEFT LoRA layers: where they sit, how many parameters they hold, how one of them is grown."""

import math
from collections.abc import Iterable, Mapping

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import LoraLayer
from torch import nn

ADAPTER = "default"  # the name `add_adapter` gives an adapter in diffusers and transformers
WRAPPED = "base_model.model."  # what PEFT's own wrapper puts before a layer's name, and its configuration does not


def linear_layers(model: nn.Module) -> list[str]:
    """Names of every `nn.Linear` of a model, in its own order: the paper's choice of layers, for `target_modules`."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def adapter_of(layer: LoraLayer) -> str | None:
    """Name of a PEFT layer's adapter in use: the active one, of several the trainable one; None if it has none.

    Raises:
        ValueError: if several are active and trainable.
    """
    active = [name for name in layer.active_adapters if name in layer.lora_A or name in layer.lora_embedding_A]
    if len(active) > 1:
        frozen = [name for name in active if not any(p.requires_grad for p in layer.lora_A[name].parameters())]
        active = [name for name in active if name not in frozen] or active[:1]
    if len(active) > 1:
        raise ValueError(f"adapters {active} are trained at once: leave one active, by the model's set_adapter")
    return active[0] if active else None


def adapter_name(model: nn.Module) -> str:
    """Name of the adapter in use in a model, ADAPTER where none of its layers is LoRA (other methods' adapters)."""
    layers = (module for module in model.modules() if isinstance(module, LoraLayer))
    return next(filter(None, map(adapter_of, layers)), ADAPTER)


def lora_pair(layer: LoraLinear) -> tuple[nn.Linear, nn.Linear]:
    """lora_A and lora_B of a layer's adapter in use."""
    name = adapter_of(layer)
    return layer.lora_A[name], layer.lora_B[name]


def lora_layers(model: nn.Module) -> dict[str, LoraLinear]:
    """The model's LoRA layers on an `nn.Linear` by name, in its own order."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, LoraLinear) and adapter_of(module)
    }


def other_lora_layers(model: nn.Module) -> dict[str, LoraLayer]:
    """LoRA layers with an adapter in use on anything else: convolutions, embeddings, quantised layers."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) and not isinstance(module, LoraLinear) and adapter_of(module)
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
    name, rank, (lora_A, lora_B) = adapter_of(layer), A.shape[0], lora_pair(layer)
    lora_A.weight = nn.Parameter(A, lora_A.weight.requires_grad)
    lora_B.weight = nn.Parameter(B, lora_B.weight.requires_grad)
    lora_A.out_features = lora_B.in_features = layer.r[name] = rank
    layer.lora_alpha[name] = layer.scaling[name] * rank


def append_rank(layer: LoraLinear, row: torch.Tensor) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Append `row` (1, d_in) to lora_A and a zero column to lora_B (Eq. 2).

    Returns:
        The (old, new) pairs of parameters.
    """
    A, B = (side.weight for side in lora_pair(layer))
    set_weights(layer, torch.cat([A.data, row]), torch.cat([B.data, torch.zeros_like(B.data[:, :1])], dim=1))
    return list(zip((A, B), (side.weight for side in lora_pair(layer)), strict=True))


def carry_state(optimizer: torch.optim.Optimizer, old: nn.Parameter, new: nn.Parameter) -> None:
    """Put `new` in the place of `old` in an optimizer; the state of the old entries is kept, that of new ones is zero.

    Raises:
        TypeError: for an optimizer whose state is not one value per entry (factored or quantised moments).
    """
    for group in optimizer.param_groups:
        group["params"] = [new if p is old else p for p in group["params"]]
    if old not in optimizer.state:
        return
    state = optimizer.state.pop(old)
    padding = [n for axis in reversed(range(old.ndim)) for n in (0, new.shape[axis] - old.shape[axis])]
    for name, value in state.items():
        if torch.is_tensor(value) and value.shape == old.shape:
            state[name] = nn.functional.pad(value, padding)
        elif torch.is_tensor(value) and value.ndim > 0:  # at rank 1 a factor may look like the weight
            raise TypeError(
                f"{type(optimizer).__name__} keeps '{name}' in another shape than its parameter: use Adam or AdamW"
            )
    optimizer.state[new] = state


def fold_scaling(model: nn.Module) -> None:
    """Move each LoRA layer's scaling into its B, so that it is 1 and tools that ignore alpha load it right."""
    for path, layer in lora_layers(model).items():
        name = adapter_of(layer)
        if layer.scaling[name] != 1:
            layer.lora_B[name].weight.data *= layer.scaling[name]
            layer.scaling[name], layer.lora_alpha[name] = 1.0, layer.r[name]
            layer.use_rslora[name] = model.peft_config[name].use_rslora = False
            record_rank(model, path, layer)


def resize(model: nn.Module, name: str, A: torch.Tensor, B: torch.Tensor) -> None:
    """`set_weights` of a model's LoRA layer by its name, its new rank recorded."""
    layer = model.get_submodule(name)
    set_weights(layer, A, B)
    record_rank(model, name, layer)


def record_rank(model: nn.Module, name: str, layer: LoraLinear) -> None:
    """Write a layer's rank and alpha into the model's PEFT configuration, which is saved as adapter metadata.

    PEFT reads a pattern as the end of a name and takes the first that fits. So this layer's goes before those that a
    user gave for many, and is marked as a whole name ('^') where another layer's name ends in it.
    """
    adapter, name = adapter_of(layer), name.removeprefix(WRAPPED)
    is_end = any(other.removeprefix(WRAPPED).endswith(f".{name}") for other in lora_layers(model))
    config, pattern = model.peft_config[adapter], f"^{name}" if is_end else name
    config.rank_pattern = {pattern: layer.r[adapter]} | without(config.rank_pattern, pattern)
    config.alpha_pattern = {pattern: layer.lora_alpha[adapter]} | without(config.alpha_pattern, pattern)


def without(patterns: Mapping[str, float], pattern: str) -> dict[str, float]:
    """All patterns but one."""
    return {name: value for name, value in patterns.items() if name != pattern}


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
            weights = [side.weight for side in lora_pair(layer)]
            saved = [tensors[f"{network}.{name}.lora_{side}.{adapter_of(layer)}.weight"] for side in "AB"]
            if weights[0].shape != saved[0].shape:
                resize(model, name, *(new.to(old) for old, new in zip(weights, saved, strict=True)))
        for name, p in model.named_parameters():
            if p.requires_grad:  # `data`, since a gate too has the length of its layer's rank
                p.data = tensors[f"{network}.{name}"].to(p, copy=True)


def ranks(model: nn.Module) -> dict[str, int]:
    """Rank of each LoRA layer by name."""
    return {name: lora_pair(layer)[0].weight.shape[0] for name, layer in lora_layers(model).items()}


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
