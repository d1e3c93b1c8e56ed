"""The parameter counts of design section 2, on Stable Diffusion v1.5's architecture without weights (meta device)."""

import pytest
import torch
from conftest import attach

from selora import linear_layers
from selora.adapters import lora_layers, trainable_parameters
from selora.analysis.paper_numbers import build


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
