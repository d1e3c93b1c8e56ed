"""The parameter counts of design section 2, on Stable Diffusion v1.5's architecture without weights (meta device)."""

import pytest
import torch
from conftest import attach
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from selora import linear_layers
from selora.adapters import lora_layers, trainable_parameters

UNET = dict(
    sample_size=64,
    in_channels=4,
    out_channels=4,
    layers_per_block=2,
    block_out_channels=(320, 640, 1280, 1280),
    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
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


def build(name: str) -> nn.Module:
    with torch.device("meta"):
        return UNet2DConditionModel(**UNET) if name == "unet" else CLIPTextModel(CLIPTextConfig(**TEXT_ENCODER))


@pytest.mark.parametrize(
    ("name", "base", "layers", "per_rank", "per_cent_at_rank_4"),
    [("unet", 859_520_964, 184, 426_496, 0.198), ("text_encoder", 123_060_480, 72, 165_888, 0.536)],
)
def test_lora_on_stable_diffusion_has_the_known_number_of_parameters(name, base, layers, per_rank, per_cent_at_rank_4):
    model = build(name)
    assert sum(p.numel() for p in model.parameters()) == base
    assert len(linear_layers(model)) == layers
    for rank in (1, 4):
        model = build(name)
        with torch.device("meta"):
            attach(model, rank=rank, alpha=rank)
        assert len(lora_layers(model)) == layers
        assert trainable_parameters(model) == rank * per_rank
        assert sum(p.numel() for p in model.parameters()) == base + rank * per_rank
    assert (
        round(100 * trainable_parameters(model) / sum(p.numel() for p in model.parameters()), 3) == per_cent_at_rank_4
    )
