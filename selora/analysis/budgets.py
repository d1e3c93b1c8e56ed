"""Equal budgets: does it matter which layer has which rank, or only how many ranks there are?

SeLoRA's final ranks, trained from scratch (`OWN`), against other ranks of as many parameters, seed by seed: each run
has the budget, the data and the noise of one SeLoRA run. If only the number of ranks mattered, any of the ways to place
them could have had any of the scores of its seed: a permutation test counts how often chance alone would do as much. It
assumes nothing of how seeds spread, so five will do; intervals of single differences are for eight seeds and more.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from selora.scoring.intervals import LEVEL, Estimate, holm, over_seeds
from selora.study.report.comparison import difference
from selora.study.results import finished_runs

OWN = "ranks-selora"
OTHERS = {  # what differs from it: the same ranks, grown; and other ranks
    "selora": "SeLoRA itself, which grows to them",
    "lora-matched": "as even as can be",
    "ranks-alike": "shuffled among layers of one size",
    "ranks-shuffled": "shuffled among all layers",
    "ranks-by-size": "by layer size",
    "ranks-increlora": "IncreLoRA's",
    "ranks-gora": "GoRA's",
}
SCORES = {"best_val_loss": ("validation loss", 1), "kid": ("KID x 1000", 1000)}  # of both less is better
SIZES = ("unet_params", "text_encoder_params")
DRAWS = 9999  # permutations


def collect(folder: Path) -> pd.DataFrame:
    """The finished runs of `OWN` and of `OTHERS` in a results folder, of the data sets and seeds that have the former.

    Columns: dataset, method, seed, parameters of each network, learning_rate, best_val_loss, kid, bootstrap. No rows
    without runs.
    """
    columns = ["dataset", "method", "seed", *SIZES, "learning_rate", *SCORES, "bootstrap"]
    runs = finished_runs(folder)
    if runs.empty:
        return pd.DataFrame(columns=columns)
    runs = runs.assign(learning_rate=[s["method"].get("learning_rate", s["learning_rate"]) for s in runs.settings])
    own = runs[runs.method == OWN][["dataset", "seed"]]
    runs = runs[runs.method.isin([OWN, *OTHERS])][columns].merge(own, on=["dataset", "seed"])
    order = [OWN, *OTHERS]
    return runs.sort_values(
        ["dataset", "method", "seed"], key=lambda c: c.map(order.index) if c.name == "method" else c
    )


def off_budget(runs: pd.DataFrame) -> pd.DataFrame:
    """By how much, at most, the parameters of one data set's runs differ from SeLoRA's of the same seed, in per cent: a
    row per method, a column per network."""
    own = runs[runs.method == OWN].set_index("seed")[[*SIZES]]  # exactly SeLoRA's
    shares = runs.set_index("seed")[[*SIZES]] / own.loc[runs.seed] - 1
    return (100 * shares.abs()).groupby(runs.method.to_numpy(), sort=False).max()


def likeness(ranks: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """How like `OWN`'s are the ranks of each method? Means over the seeds that both have.

    Args:
        ranks: network, layer, kind, rank, seed, by method.

    Returns:
        One row per method and network: mean rank, share of layers with the same rank, Spearman's correlation over the
        layers (none where all ranks are equal).
    """
    rows = []
    for method, other in ranks.items():
        both = ranks[OWN].merge(other, on=["network", "layer", "seed"], suffixes=("_own", ""))
        for network, own in both.groupby("network", sort=False):
            uneven = [s for _, s in own.groupby("seed") if min(s["rank"].nunique(), s["rank_own"].nunique()) > 1]
            order = [seed["rank"].corr(seed["rank_own"], "spearman") for seed in uneven]
            same = (own["rank"] == own["rank_own"]).mean()
            rows.append((method, network, own["rank"].mean(), same, np.mean(order) if order else np.nan))
    return pd.DataFrame(rows, columns=["method", "network", "mean rank", "same rank", "correlation"])


def pairs(runs: pd.DataFrame) -> pd.DataFrame:
    """Each score of each run of one data set less that of `OWN` with the same seed: method, score, seed, difference.

    A score that the data set lacks, as the validation loss where it has no validation images, has no rows.
    """
    both = runs[runs.method != OWN].merge(runs[runs.method == OWN], on="seed", suffixes=("", "_own"))
    tables = [
        both[["method", "seed"]].assign(score=words, difference=unit * (both[s] - both[f"{s}_own"]).astype(float))
        for s, (words, unit) in SCORES.items()
    ]
    return pd.concat(tables, ignore_index=True)[["method", "score", "seed", "difference"]].dropna()


def versus(runs: pd.DataFrame) -> pd.DataFrame:
    """`pairs` of one data set, over seeds; one row per score and method.

    Columns: score, method, seeds, difference, sd (over seeds), worse (in how many seeds), low, high and p (none below
    eight seeds; p is Holm's, over the methods of a score). The interval of KID is over seeds and prompts, that of the
    validation loss, whose pictures are the same in every run, over seeds.
    """
    rows = []
    for score, found in pairs(runs).groupby("score", sort=False):
        figures = {method: own.difference.to_numpy() for method, own in found.groupby("method", sort=False)}
        estimates = {method: estimate(runs, method, score, own) for method, own in figures.items()}
        corrected = holm({method: estimates[method].p for method in figures})
        for method, own in figures.items():
            spread = own.std(ddof=1) if len(own) > 1 else np.nan
            interval = estimates[method].low, estimates[method].high
            rows.append((score, method, len(own), own.mean(), spread, (own > 0).sum(), *interval, corrected[method]))
    columns = ["score", "method", "seeds", "difference", "sd", "worse", "low", "high", "p"]
    return pd.DataFrame(rows, columns=columns)


def estimate(runs: pd.DataFrame, method: str, score: str, figures: np.ndarray) -> Estimate:
    """The mean of a method's differences in a score, with its interval."""
    if score == SCORES["kid"][0]:
        found = difference(runs[runs.method == method], runs[runs.method == OWN], "kid")
        return Estimate(*(1000 * value for value in found[:3]), found.p)
    return over_seeds(figures, np.stack([figures] * 2, axis=1))


def placed(runs: pd.DataFrame) -> pd.DataFrame:
    """The permutation test on one data set's runs without growth, one row per score.

    Columns: score, ways and seeds (those that all ways have), place (the mean over seeds of `OWN`'s place among the
    ways, 1 the best), p of place (of one as far from the middle by chance), p of ways (of mean places that differ as
    much: Friedman's test). The p-values of all scores are Holm's. No rows where there are no two ways.
    """
    rows = []
    for score, (words, _) in SCORES.items():
        table = runs[runs.method != "selora"].pivot(index="seed", columns="method", values=score).astype(float)
        places = table.dropna().rank(axis=1)
        if not places.empty and places.shape[1] > 1:
            rows.append((words, places.shape[1], len(places), places[OWN].mean(), *chances(places)))
    found = pd.DataFrame(rows, columns=["score", "ways", "seeds", "place", "p of place", "p of ways"])
    corrected = holm(found.set_index("score")[["p of place", "p of ways"]].stack().to_dict())
    for (score, column), p in corrected.items():
        found.loc[found.score == score, column] = p
    return found


def chances(places: pd.DataFrame) -> tuple[float, float]:
    """The shares of permutations within seeds in which the mean place of `OWN` is as far from the middle as in `places`
    (seeds, ways), and in which the mean places are as far from one another."""
    observed, middle = places.to_numpy(), (places.shape[1] + 1) / 2
    drawn = np.random.default_rng(0).permuted(np.broadcast_to(observed, (DRAWS, *observed.shape)), axis=2)
    means = np.concatenate([observed[None], drawn]).mean(axis=1)  # (1 + DRAWS, ways)
    figures = np.abs(means[:, list(places).index(OWN)] - middle), ((means - middle) ** 2).sum(axis=1)
    return tuple(float((figure >= figure[0] - 1e-9).mean()) for figure in figures)


def sentence(runs: pd.DataFrame) -> str:
    """Do the ranks matter, or only their number? One data set's answer, in Markdown."""
    table, dataset = placed(runs), runs.dataset.iloc[0]
    if table.empty:
        return f"On {dataset} it cannot be told: there are no other ranks with {OWN}'s seeds."
    clear, middle = table["p of place"] < LEVEL, (table.ways + 1) / 2
    if not clear.any() and not (table["p of ways"] < LEVEL).any():
        answer = "nothing says that more than their number matters"
    elif not clear.any():
        answer = "the ranks matter, but SeLoRA's stand out in no way"
    else:
        sides = {"better" if place < m else "worse" for place, m in zip(table.place[clear], middle[clear], strict=True)}
        answer = f"the ranks matter, and SeLoRA's are {' and '.join(sorted(sides))} than others"
    spans = pairs(runs).query("method != 'selora'").groupby(["score", "method"]).difference.mean().groupby("score")
    details = [
        f"by {row.score} its own ranks, trained from scratch, have a mean place of {row.place:.1f} among {row.ways} "
        f"(p = {p:.2g}), the {row.ways} differ with p = {other:.2g}, and others lie {spans.min()[row.score]:+.2g} to "
        f"{spans.max()[row.score]:+.2g} from its own"
        for row, p, other in zip(table.itertuples(), table["p of place"], table["p of ways"], strict=True)
    ]
    return (
        f"On {dataset}, at SeLoRA's number of parameters (to {off_budget(runs).max().max():.2f} %) and over "
        f"{table.seeds.min()} seeds, {answer}: {'; '.join(details)}."
    )
