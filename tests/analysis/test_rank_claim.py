"""The test of the paper's claim about ranks: exact, and right where the answer is known."""

import re
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest

from selora.analysis.rank_claim import block, chance, check_claims, sentences

KINDS = ["attn1.to_q", "attn1.to_k", "attn1.to_v", "attn2.to_q", "attn2.to_k", "attn2.to_v", "ff.net.2"]


def ranks(rule, blocks: int = 6, seeds: int = 3) -> pd.DataFrame:
    """Ranks of a small U-Net and text encoder: `rule(kind, place, seed)` says how large each is."""
    places = {
        "unet": [(f"down_blocks.{i}.attentions.0.transformer_blocks.0", kind) for i in range(blocks) for kind in KINDS],
        "text_encoder": [
            (f"encoder.layers.{i}", kind) for i in range(blocks) for kind in ("q_proj", "k_proj", "v_proj", "fc1")
        ],
    }
    rows = [
        {"network": network, "layer": f"{where}.{kind}", "kind": kind, "seed": s, "rank": rule(kind, where, s)}
        for network, layers in places.items()
        for where, kind in layers
        for s in range(seeds)
    ]
    return pd.DataFrame(
        [*rows, *({"network": "unet", "layer": "t", "kind": "t", "seed": s, "rank": 1} for s in (0, 1))]
    )


def listed(values: np.ndarray, chosen: np.ndarray, blocks: np.ndarray) -> float:
    """The same share as `chance`, by writing every choice down."""
    inside = [np.flatnonzero(blocks == name) for name in dict.fromkeys(blocks)]
    ways = product(*(combinations(places, int(chosen[places].sum())) for places in inside))
    sums = np.array([values[[i for part in way for i in part]].sum() for way in ways])
    return (sums >= values[chosen].sum()).mean()


@pytest.mark.parametrize("seed", range(5))
def test_chance_is_exact(seed):
    draw = np.random.default_rng(seed)
    values, chosen = draw.integers(0, 6, 11), draw.random(11) < 0.4
    for blocks in (np.full(11, "a"), np.array(list("aaaabbbbbcc"))):
        assert chance(values, chosen, blocks) == pytest.approx(listed(values, chosen, blocks), abs=1e-12)


def test_a_claim_that_holds():
    table = check_claims(ranks(lambda kind, *_: 1 + 2 * kind.startswith("attn2") + 3 * ("q" in kind or "k" in kind)))
    assert table.outcome.str.startswith("holds here: ").all(), table.outcome.tolist()
    assert (table["seeds with more"] == "3 of 3").all()
    assert (table.p < 0.01).all() and (table.difference > 1).all()
    assert sentences(table)[0].startswith("*query and key, text encoder*: holds here: mean rank 4.00 against 1.00")


def test_a_claim_that_does_not_hold_says_where_most_goes():
    table = check_claims(ranks(lambda kind, *_: 9 if kind in ("ff.net.2", "fc1", "attn1.to_v", "v_proj") else 1))
    assert table.outcome.str.startswith("does not hold here: they get less than").all(), table.outcome.tolist()
    assert table.outcome[0].endswith(("largest mean is v_proj", "largest mean is fc1"))


def test_equal_ranks_tell_nothing():
    table = check_claims(ranks(lambda *_: 2))
    assert table.outcome.str.startswith("cannot be told").all()
    assert (table.p == 1).all()


def test_depth_alone_does_not_pass_for_a_kind_of_weight():
    """Half of the blocks lack cross-attention, and the deeper ones have larger ranks whatever the kind."""
    table = ranks(lambda kind, where, _: 8 if re.search(r"\.[345]\b", where) else 1)
    shallow = table.layer.str.contains(r"down_blocks\.[012]\.")
    row = check_claims(table[~(shallow & table.kind.str.startswith("attn2"))]).set_index(["claim", "network"])
    row = row.loc["cross-attention", "unet"]
    assert row.p < 0.01 and row["p in blocks"] == pytest.approx(1) and row["difference in blocks"] == pytest.approx(0)
    assert row.outcome.startswith("cannot be told") and "not within blocks" in row.outcome


def test_blocks_of_both_networks():
    name = "up_blocks.1.attentions.0.transformer_blocks.0"
    assert block(f"{name}.attn2.to_out.0") == block(f"{name}.ff.net.0.proj") == name
    assert block("text_model.encoder.layers.3.self_attn.q_proj") == "text_model.encoder.layers.3"
    assert block("time_embedding.linear_1") == block("mid_block.resnets.0.time_emb_proj") == ""
