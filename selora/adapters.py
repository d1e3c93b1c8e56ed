"""Plain PEFT LoRA layers: where they sit, how many parameters they hold, how one of them is grown."""

import math
from collections.abc import Iterable, Mapping

import torch
from peft import LoraConfig
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import LoraLayer
from torch import nn

ADAPTER = "default"  # the name `add_adapter` gives an adapter in diffusers and transformers
WRAPPED = "base_model.model."  # what PEFT's own wrapper puts before a layer's name, and its configuration does not
# a of Kaiming uniform, by name: of the paper and its released code (bound sqrt(6 / d_in)), of PEFT (sqrt(1 / d_in))
SLOPES = {"kaiming": 0.0, "peft": math.sqrt(5)}


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


def other_lora_layers(networks: Mapping[str, nn.Module]) -> list[str]:
    """LoRA layers with an adapter in use on anything else, in words: on convolutions, embeddings, quantised layers."""
    return [
        f"{name} of {net} ({type(module.get_base_layer()).__name__})"
        for net, model in networks.items()
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) and not isinstance(module, LoraLinear) and adapter_of(module)
    ]


def all_lora_layers(networks: Mapping[str, nn.Module]) -> dict[tuple[str, str], LoraLinear]:
    """The LoRA layers of several networks by (network, name)."""
    return {(net, name): layer for net, model in networks.items() for name, layer in lora_layers(model).items()}


def add_lora(model: nn.Module, rank: int, seed: int, alpha: float | None = None, **options) -> None:
    """Freeze a diffusers or transformers model and add trainable LoRA of one rank to all its linear layers (Eq. 1).

    Without an alpha it equals the rank, so PEFT's scaling is 1, as in the paper. `seed` determines the initial A;
    `options` go to PEFT's LoraConfig.
    """
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LoraConfig(r=rank, lora_alpha=alpha or rank, target_modules=linear_layers(model), **options)
        model.add_adapter(config)


def set_weights(layer: LoraLinear, A: torch.Tensor, B: torch.Tensor) -> None:
    """Give a LoRA layer new weights A (r, d_in) and B (d_out, r) of any rank; its scaling stays as it is.

    They become new parameters: autograd keeps the shape of a parameter whose graph is still alive, and would silently
    sum a grown gradient back to it.
    """
    name, rank, (lora_A, lora_B) = adapter_of(layer), A.shape[0], lora_pair(layer)
    lora_A.weight = nn.Parameter(row_by_row(A), lora_A.weight.requires_grad)
    lora_B.weight = nn.Parameter(row_by_row(B), lora_B.weight.requires_grad)
    lora_A.out_features = lora_B.in_features = layer.r[name] = rank
    layer.lora_alpha[name] = layer.scaling[name] * rank


def row_by_row(tensor: torch.Tensor) -> torch.Tensor:
    """A copy with the strides that a file gives back: a matrix product's last bits follow from the strides of a
    transposed or sliced weight, those of a dimension of size 1 included (which `contiguous` leaves as they are)."""
    return tensor.clone(memory_format=torch.contiguous_format)


def draw_rows(like: torch.Tensor, generator: torch.Generator, count: int = 1, init: str = "kaiming") -> torch.Tensor:
    """Rows (count, d_in) of a `lora_A.weight`, Kaiming uniform with `SLOPES[init]`: a first A, or a candidate K.

    The FI-Ratio scales with K's variance over A's, and with A's over B's: the two are drawn alike, and the paper's
    threshold needs the paper's draw. It is made on the CPU, so that a run has the same rows on every device.
    """
    rows = torch.empty(count, like.shape[1])
    nn.init.kaiming_uniform_(rows, a=SLOPES[init], generator=generator)
    return rows.to(like)


def row_variance(width: int, init: str) -> float:
    """The variance of an entry of such a row of some width: uniform up to its bound, a third of the bound's square."""
    return 2 / ((1 + SLOPES[init] ** 2) * width)


@torch.no_grad()
def redraw(
    networks: Mapping[str, nn.Module], seed: int, init: str = "kaiming", optimizer: torch.optim.Optimizer | None = None
) -> None:
    """Draw every lora_A anew that PEFT drew by its own default, as `draw_rows` does; `seed` determines them.

    Nothing is drawn where training has begun: where some B is not zero, or the optimizer has state of an A or B.

    Raises:
        ValueError: for an unknown init, with the choices.
    """
    if init not in SLOPES:
        raise ValueError(f"unknown init '{init}': choose from {', '.join(SLOPES)}")
    layers = all_lora_layers(networks)
    weights = [side.weight for layer in layers.values() for side in lora_pair(layer)]
    begun = any(weight in optimizer.state for weight in weights) if optimizer else False
    if init == "peft" or begun or any(B.any() for B in weights[1::2]):
        return
    generator = torch.Generator().manual_seed(seed * 1_000_003)
    for (network, _), layer in layers.items():
        if networks[network].peft_config[adapter_of(layer)].init_lora_weights is True:
            weight = lora_pair(layer)[0].weight
            weight.copy_(draw_rows(weight, generator, len(weight), init))


def append_rank(layer: LoraLinear, row: torch.Tensor) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Append `row` (1, d_in) to lora_A and a zero column to lora_B (Eq. 2).

    Returns:
        The (old, new) pairs of parameters.
    """
    A, B = (side.weight for side in lora_pair(layer))
    set_weights(layer, torch.cat([A.data, row]), torch.cat([B.data, torch.zeros_like(B.data[:, :1])], dim=1))
    return list(zip((A, B), (side.weight for side in lora_pair(layer)), strict=True))


def check_growable(layers: Mapping[tuple[str, str], LoraLinear], optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError for a layer, named (network, layer), that is not plain LoRA or not the optimizer's."""
    held = {p for group in optimizer.param_groups for p in group["params"]}
    for (network, name), layer in layers.items():
        adapter = adapter_of(layer)
        if layer.use_rslora[adapter] or layer.lora_bias[adapter] or adapter in layer.lora_variant:
            raise ValueError(f"{name} of {network} is not plain LoRA: use_rslora, use_dora, lora_bias have to be False")
        if not {side.weight for side in lora_pair(layer)} <= held:
            raise ValueError(f"{name} of {network} would grow but not train: the optimizer lacks its LoRA parameters")


def fold_scaling(model: nn.Module) -> None:
    """Move each LoRA layer's scaling into its B, so that it is 1 and tools that ignore alpha load it right."""
    layers = lora_layers(model)
    for path, layer in layers.items():
        name = adapter_of(layer)
        if layer.scaling[name] != 1:
            layer.lora_B[name].weight.data *= layer.scaling[name]
            layer.scaling[name], layer.lora_alpha[name] = 1.0, layer.r[name]
            layer.use_rslora[name] = model.peft_config[name].use_rslora = False
            record_rank(model, path, layer, layers)


def resize(model: nn.Module, name: str, A: torch.Tensor, B: torch.Tensor) -> None:
    """`set_weights` of a model's LoRA layer by its name, its new rank recorded."""
    layer = model.get_submodule(name)
    set_weights(layer, A, B)
    record_rank(model, name, layer, lora_layers(model))


def record_rank(model: nn.Module, name: str, layer: LoraLinear, among: Iterable[str]) -> None:
    """Write a layer's rank and alpha into the model's PEFT configuration, which is saved as adapter metadata.

    PEFT reads a pattern as the end of a name and takes the first that fits. So this layer's goes before those that a
    user gave for many, and is marked as a whole name ('^') where another layer's name, of all those given, ends in it.
    """
    adapter, name = adapter_of(layer), name.removeprefix(WRAPPED)
    is_end = any(other.removeprefix(WRAPPED).endswith(f".{name}") for other in among)
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
        layers = lora_layers(model)
        for name, layer in layers.items():
            weights = [side.weight for side in lora_pair(layer)]
            saved = [tensors[f"{network}.{name}.lora_{side}.{adapter_of(layer)}.weight"] for side in "AB"]
            if weights[0].shape != saved[0].shape:
                set_weights(layer, *(new.to(old) for old, new in zip(weights, saved, strict=True)))
                record_rank(model, name, layer, layers)
        for name, p in model.named_parameters():
            if p.requires_grad:  # `data`, since a gate too has the length of its layer's rank
                p.data = tensors[f"{network}.{name}"].to(p, copy=True)


def ranks(model: nn.Module) -> dict[str, int]:
    """Rank of each LoRA layer by name."""
    return {name: lora_pair(layer)[0].weight.shape[0] for name, layer in lora_layers(model).items()}


def trainable_parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def kind(layer: str) -> str:
    """A layer's kind of weight: 'attn1.to_q', say, in a transformer block of the U-Net, else the name's last word."""
    in_block = layer.partition("transformer_blocks.")[2]
    return in_block.partition(".")[2] if in_block else layer.rpartition(".")[2]
