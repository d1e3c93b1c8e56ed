"""The audit of the paper's own numbers: parameter counts of Stable Diffusion v1.5 (built without weights, on the meta
device), Eq. 5 the way it is printed, and the gradient of a new rank."""

from collections.abc import Callable
from functools import cache, partial

import pandas as pd
import torch
from diffusers import UNet2DConditionModel
from peft import AdaLoraConfig, LoraConfig, get_peft_model
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from selora.adapters import ADAPTER, draw_rows, linear_layers, lora_layers, trainable_parameters
from selora.diffusion.loop import trainable
from selora.expansion import append_rank
from selora.fisher import fi_ratio, squared_gradients
from selora.study.paper import SHARES

UNET = dict(  # Stable Diffusion v1.5's; what is not said is the class's default
    sample_size=64,
    layers_per_block=2,
    block_out_channels=(320, 640, 1280, 1280),
    down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    cross_attention_dim=768,
    attention_head_dim=8,
)
TEXT_ENCODER = dict(
    vocab_size=49408,
    hidden_size=768,
    intermediate_size=3072,
    num_hidden_layers=12,
    num_attention_heads=12,
    max_position_embeddings=77,
    hidden_act="quick_gelu",
    projection_dim=768,
)
# Per cent, by the network each fits: the paper prints both pairs as 'text encoder and U-net', which fit only swapped.
PRINTED = {
    network: {method: shares[place] for method, shares in SHARES.items()}
    for place, network in enumerate(("unet", "text_encoder"))
}
RELEASED = {"to_q", "to_k", "to_v", "proj", "time_emb_proj", "q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}


def build(network: str) -> nn.Module:
    """Stable Diffusion v1.5's U-Net or text encoder, without memory for its weights."""
    with torch.device("meta"):
        return UNet2DConditionModel(**UNET) if network == "unet" else CLIPTextModel(CLIPTextConfig(**TEXT_ENCODER))


def released_layers(model: nn.Module) -> list[str]:
    """The linear layers the released code adapts. It compares the last part of a name, so that a U-Net's `to_out.0` and
    `ff.net.2` ('0' and '2') are missed; its time_embedding layers are not listed."""
    return [name for name in linear_layers(model) if name.rpartition(".")[2] in RELEASED]


@cache
def base_size(network: str) -> int:
    """Parameters of the base."""
    return sum(p.numel() for p in build(network).parameters())


@cache
def adapter_size(network: str, rank: int, layers: Callable = linear_layers, adalora: bool = False) -> int:
    """Trainable parameters of PEFT's LoRA, or AdaLoRA before any pruning, on some layers of a network."""
    model = build(network)
    names = layers(model)
    if adalora:  # its schedule plays no part in the size; it counts singular values, PEFT's `ranknum` is frozen
        config = AdaLoraConfig(init_r=rank, target_r=rank, total_step=2, tinit=0, tfinal=0, target_modules=names)
    else:
        config = LoraConfig(r=rank, target_modules=names)
    with torch.device("meta"):
        return trainable_parameters(get_peft_model(model, config))


def per_cent(network: str, adapter: float) -> float:
    """An adapter's share of adapter and base together."""
    return 100 * adapter / (base_size(network) + adapter)


def implied_rank(network: str, printed: float) -> float:
    """Mean rank, over the released code's layers, at which an adapter has the printed percentage of parameters."""
    adapter = base_size(network) * printed / (100 - printed)
    return adapter / adapter_size(network, 1, released_layers)


def counts() -> pd.DataFrame:
    """Parameter counts beside the paper's numbers: what, network, ours, paper (empty where it has none)."""
    rows = []
    for network, printed in PRINTED.items():
        model, size = build(network), partial(adapter_size, network)
        mean = round(implied_rank(network, printed["SeLoRA"]), 2)
        at_mean, lora = mean * size(1, released_layers), size(4, released_layers)
        for what, ours, paper in (
            ("base: parameters", base_size(network), None),
            ("linear layers", len(linear_layers(model)), None),
            ("linear layers the released code adapts", len(released_layers(model)), None),
            ("LoRA: parameters per rank", size(1), None),
            ("LoRA: parameters per rank, released layers", size(1, released_layers), None),
            ("LoRA r 4: parameters", size(4), None),
            ("LoRA r 4: %", per_cent(network, size(4)), None),
            ("LoRA r 4: parameters, released layers", lora, None),
            ("LoRA r 4: %, released layers", per_cent(network, lora), None),
            ("LoRA r 1: %, released layers", per_cent(network, size(1, released_layers)), None),
            ("AdaLoRA r 6: parameters, released layers", size(6, released_layers, True), None),
            ("AdaLoRA r 6: % (printed as r 4, of the other network)", per_cent(network, size(6, released_layers, True)),
             printed["others"]),
            ("SeLoRA: mean rank that the printed % implies", mean, None),
            ("SeLoRA: % fewer parameters than LoRA r 4", 100 * (1 - at_mean / lora), None),
        ):  # fmt: skip
            rows.append({"what": what, "network": network, "ours": ours, "paper": paper})
    return pd.DataFrame(rows, dtype=object)  # counts stay integers


def explanations(most: int = 8) -> pd.DataFrame:
    """Every LoRA and AdaLoRA of ranks 1 to `most`, on all or the released layers, whose share is a printed number."""
    printed = {number for numbers in PRINTED.values() for number in numbers.values()}
    rows = []
    for network in PRINTED:
        for name, layers in (("all", linear_layers), ("released", released_layers)):
            for method in ("LoRA", "AdaLoRA"):
                one = adapter_size(network, 1, layers, method == "AdaLoRA")  # sizes are proportional to the rank
                shares = {rank: per_cent(network, rank * one) for rank in range(1, most + 1)}
                rows += [
                    {"printed": round(share, 3), "network": network, "method": method, "layers": name, "rank": rank}
                    for rank, share in shares.items()
                    if round(share, 3) in printed
                ]
    return pd.DataFrame(rows).sort_values("printed", ignore_index=True)


def random_ratios(layers: int = 1000) -> pd.DataFrame:
    """Eq. 5 both ways up on random layers, B from 0 to large: 'exp / orig' and 'orig / exp' (as printed)."""
    draw, ratios = torch.Generator().manual_seed(0), []
    for i in range(layers):
        x, d = torch.randn(8, 5, 12, generator=draw), torch.randn(8, 5, 10, generator=draw)
        *A, K = (draw_rows(x[0], draw) for _ in range(2 + i % 4))  # ranks 1 to 4
        B = torch.randn(10, len(A), generator=draw) * (i % 5) / 4
        ratios.append(fi_ratio(*squared_gradients(x, d, torch.cat(A), B, K, 1.0).tolist()))
    return pd.DataFrame({"exp / orig": ratios, "orig / exp": [1 / ratio for ratio in ratios]})


def new_rank_gradients() -> pd.DataFrame:
    """Norms of autograd's gradients in a PEFT LoRA layer that grew from rank 2 to 3: at growth, and one step later."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LoraConfig(r=2, lora_alpha=2, target_modules=["0"], init_lora_weights=False)  # B off zero
        model = get_peft_model(nn.Sequential(nn.Linear(12, 10)), config)
        x, target = torch.randn(8, 12), torch.randn(8, 10)
    (layer,) = lora_layers(model).values()
    append_rank(layer, draw_rows(layer.lora_A[ADAPTER].weight, torch.Generator().manual_seed(0)))
    optimizer, rows = torch.optim.SGD(trainable({"layer": model}), lr=0.1), {}
    for when in ("at growth", "one step later"):
        optimizer.zero_grad()
        (model(x) - target).square().mean().backward()
        A, B = layer.lora_A[ADAPTER].weight.grad, layer.lora_B[ADAPTER].weight.grad
        parts = {"old rows of A": A[:2], "K, the new row of A": A[2], "old columns of B": B[:, :2]}
        rows[when] = {what: g.norm().item() for what, g in (parts | {"new column of B": B[:, 2]}).items()}
        optimizer.step()
    return pd.DataFrame(rows)
