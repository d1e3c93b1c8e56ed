"""Which layers stand where in the rank maps."""

import numpy as np
import pandas as pd

from selora.figures.ranks import agreement, by_place, group


def test_maps_follow_the_signal_and_part_the_kinds_of_attention():
    """A U-Net lists its middle last; the map must not."""
    places = [f"{where}.attentions.0.transformer_blocks.0" for where in ("down_blocks.0", "up_blocks.0", "mid_block")]
    layers = [f"{place}.{kind}" for place in places for kind in ("attn1.to_q", "ff.net.2", "attn2.to_q")]
    kinds = [layer.partition("transformer_blocks.0.")[2] for layer in layers]
    ranks = pd.DataFrame({"network": "unet", "layer": layers, "kind": kinds, "rank": range(1, 10)})
    both = pd.concat([ranks.assign(seed=0), ranks.assign(seed=1, rank=ranks["rank"] + 1)])
    table = by_place(both)
    assert list(table.index) == ["attn1.to_q", "attn2.to_q", "ff.net.2"]
    assert list(table.loc["attn1.to_q"]) == [1.5, 7.5, 4.5]
    assert [group(kind) for kind in table.index] == ["self-attention", "cross-attention", "other"]


def test_agreement_of_two_thresholds_maps():
    ranks = pd.DataFrame({"network": ["unet"] * 4, "layer": list("abcd"), "rank": [1, 2, 3, 4]})
    maps = {1.1: ranks, 1.2: ranks.assign(rank=[1, 2, 3, 5]), 1.3: ranks.assign(rank=[4, 3, 2, 1])}
    table = agreement(maps).loc["U-Net"]
    assert np.allclose(table.to_numpy(), [[1, 1, -1], [1, 1, -1], [-1, -1, 1]])
