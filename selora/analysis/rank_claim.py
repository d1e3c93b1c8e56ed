"""The paper's claim about ranks (section 4.1), tested on ranks that runs ended with.

'Query and key, and in the U-Net the cross-attention, get the largest ranks.' If it were chance, any others of the
same network could have had the ranks that these have. The layers are the unit of the test, since seeds share them:
ranks are summed over seeds first. The p-value is exact: all ways to choose as many layers are counted, none is drawn.

A layer's size and depth go with its block, so the same test is also made with layers exchanged within blocks alone.
"""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

LEVEL = 0.05  # a p below it counts


@dataclass(frozen=True)
class Claim:
    """Some layers of a network, by kind of weight, that are said to get the largest ranks."""

    words: str
    network: str
    kinds: str  # a regular expression for the whole kind


CLAIMS = (
    Claim("query and key", "text_encoder", "q_proj|k_proj"),
    Claim("query and key", "unet", r"attn\d\.to_[qk]"),
    Claim("cross-attention", "unet", r"attn2\..*"),
    Claim("query and key of cross-attention", "unet", r"attn2\.to_[qk]"),
)


def block(layer: str) -> str:
    """The transformer block of a layer, '' for one outside: the layers of a block are at one depth, of one width."""
    found = re.match(r".*(transformer_blocks|layers)\.\d+(?=\.)", layer)
    return found[0] if found else ""


def chance(ranks: np.ndarray, chosen: np.ndarray, blocks: np.ndarray) -> float:
    """The share of all ways to choose layers, from every block as many as `chosen` has there, whose ranks sum to as
    much as those of `chosen` or more.

    Args:
        ranks: (layers,) of whole numbers, 0 or more.
        chosen: (layers,) of truth values.
        blocks: (layers,) of names.
    """
    whole = np.ones(1)  # the share of the ways by sum of ranks, over the blocks so far
    for name in dict.fromkeys(blocks):
        inside, count = ranks[blocks == name], int(chosen[blocks == name].sum())
        ways = np.zeros((count + 1, inside.sum() + 1))  # by number of layers chosen, and sum of their ranks
        ways[0, 0] = 1
        for rank in inside:
            ways[1:, rank:] += ways[:-1, : ways.shape[1] - rank].copy()
        whole = np.convolve(whole, ways[count] / ways[count].sum())
    return float(min(1.0, whole[ranks[chosen].sum() :].sum()))


def check_claim(claim: Claim, ranks: pd.DataFrame) -> dict:
    """One row of `check_claims`."""
    own = ranks[ranks.network == claim.network]
    table = own.pivot(index=["layer", "kind"], columns="seed", values="rank").dropna().reset_index()
    by_seed = table.drop(columns=["layer", "kind"]).astype(int)
    total, mean = by_seed.sum(axis=1).to_numpy(), by_seed.mean(axis=1)
    chosen = table.kind.str.fullmatch(claim.kinds).to_numpy()
    blocks = table.layer.map(block).to_numpy()
    mixed = pd.Series(chosen).groupby(blocks).transform("nunique").to_numpy() == 2  # blocks with something to compare
    centred = (mean - mean.groupby(blocks).transform("mean"))[mixed]
    differences = by_seed[chosen].mean() - by_seed[~chosen].mean()
    row = {
        "claim": claim.words,
        "network": claim.network,
        "group mean": mean[chosen].mean(),
        "rest mean": mean[~chosen].mean(),
        "difference": differences.mean(),
        "p": chance(total, chosen, np.full(len(total), "")),
        "difference in blocks": centred[chosen[mixed]].mean() - centred[~chosen[mixed]].mean(),
        "p in blocks": chance(total, chosen, blocks),
        "p of less in blocks": chance(total.max() - total, chosen, blocks),
        "seeds with more": f"{(differences > 0).sum()} of {len(differences)}",
        "largest": mean.groupby(table.kind).mean().idxmax(),
    }
    return row | {"outcome": outcome(row, claim)}


def outcome(row: dict, claim: Claim) -> str:
    """The finding as a sentence."""
    numbers = f"mean rank {row['group mean']:.2f} against {row['rest mean']:.2f} elsewhere, p = {row['p']:.2g}"
    inside = f"p = {row['p in blocks']:.2g} within blocks"
    if row["p"] < LEVEL and row["p in blocks"] < LEVEL:
        first = re.fullmatch(claim.kinds, row["largest"])
        but = "" if first else f"; but the kind with the largest mean is {row['largest']}"
        return f"holds here: {numbers}, {inside}{but}"
    if row["p of less in blocks"] < LEVEL:
        return (
            f"does not hold here: they get less than the rest of their blocks, by {-row['difference in blocks']:.2f} "
            f"ranks (p of as little by chance = {row['p of less in blocks']:.2g}); {numbers}; the kind with the "
            f"largest mean is {row['largest']}"
        )
    why = f"; more over the whole network, but not within blocks ({inside})" if row["p"] < LEVEL else f", {inside}"
    return f"cannot be told: {numbers}{why}"


def check_claims(ranks: pd.DataFrame) -> pd.DataFrame:
    """The claims of the paper on the ranks of one data set, one row each.

    Args:
        ranks: network, layer, kind, rank, seed.
    """
    return pd.DataFrame([check_claim(claim, ranks) for claim in CLAIMS])


def sentences(table: pd.DataFrame) -> list[str]:
    """What `check_claims` found, a sentence for each claim, in Markdown."""
    names = {"unet": "U-Net", "text_encoder": "text encoder"}
    return [f"*{row.claim}, {names[row.network]}*: {row.outcome}." for row in table.itertuples()]
