"""Is one method better than another? From the scores and replicates of their result.json files alone."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from selora.scoring.intervals import LEVEL, Estimate, holm, over_seeds

BETTER = {"kid": -1, "kid_clip": -1, "clip": 1, "auroc": 1}  # the scores with replicates: is less or more of it better?
CHANCE = {"auroc": 0.5}  # what a score is where nothing was learnt
ENDS = ("base", "full")  # what adapters are measured against; no rivals of theirs


def resampled(runs: Iterable[dict], name: str) -> np.ndarray:
    """A score in some runs' `bootstrap`, in each resample (S, D); a single nan each where any has none."""
    drawn = [np.array(run.get(name, [np.nan]), dtype=float) for run in runs]
    return np.stack(drawn) if len({len(row) for row in drawn}) == 1 else np.full((len(drawn), 1), np.nan)


def difference(runs: pd.DataFrame, others: pd.DataFrame, name: str) -> Estimate:
    """How much higher a score is in one method's runs than in another's, over the seeds that both have.

    Seed by seed, and resample by resample: the same images are drawn for every run. `over_seeds` says what the interval
    holds, and from how many seeds on there is one; all is nan where no seed is common.

    Args:
        runs, others: one row per seed of one data set, with columns seed, bootstrap, and the score's name.
    """
    pairs = runs.merge(others, on="seed", suffixes=("", "_other"))
    figures = (pairs[name] - pairs[f"{name}_other"]).to_numpy(dtype=float)
    if not len(pairs):
        return over_seeds(figures, np.empty((0, 0)))
    own, other = resampled(pairs.bootstrap, name), resampled(pairs.bootstrap_other, name)
    return over_seeds(figures, own - other if own.shape == other.shape else np.full((len(pairs), 1), np.nan))


def redrawn(runs: pd.DataFrame, name: str, what: str, count: int = 500) -> pd.DataFrame:
    """A score of each method of one data set in `count` draws: of its seeds (the same for all methods that have as
    many), of the prompts, or of both; a row for each draw, a column for each method.

    Args:
        what: 'seeds', 'prompts' or 'seeds and prompts'.
    """
    found = {}
    for method, own in runs.groupby("method", sort=False):
        draw, figures, drawn = np.random.default_rng(0), own[name].to_numpy(dtype=float), resampled(own.bootstrap, name)
        seeds = draw.integers(len(own), size=(count, len(own))) if "seeds" in what else [np.arange(len(own))] * count
        columns = np.arange(count) % drawn.shape[1]  # the same resamples of the prompts for every run
        by_prompts = "prompts" in what
        rows = [drawn[chosen, c] if by_prompts else figures[chosen] for chosen, c in zip(seeds, columns, strict=True)]
        found[method] = np.mean(rows, axis=1)
    return pd.DataFrame(found)


def against(runs: pd.DataFrame, method: str, name: str) -> pd.DataFrame:
    """`difference` from one method of each other in one data set's runs, by method: value, low, high, p.

    Its p-values are corrected for how many methods there are (Holm).
    """
    rival = runs[runs.method == method]
    rows = {other: difference(own, rival, name) for other, own in runs.groupby("method", sort=False) if other != method}
    table = pd.DataFrame(rows, index=Estimate._fields, dtype=float).T
    return table.assign(p=pd.Series(holm(table.p.to_dict()), dtype=float))


def mean_interval(runs: pd.DataFrame, name: str, seeds: bool) -> tuple[float, float, float]:
    """Mean over seeds of a score of one method on one data set, and low and high of its 95 % interval: the one that
    holds seeds and prompts (`over_seeds`), or that over images within these seeds. All nan where no run has the score.
    """
    if name not in runs or runs[name].isna().all():
        return np.nan, np.nan, np.nan
    figures, drawn = runs[name].to_numpy(dtype=float), resampled(runs.bootstrap, name)
    if seeds:
        return over_seeds(figures, drawn)[:3]
    return figures.mean(), *np.quantile(drawn.mean(axis=0), [0.025, 0.975])


def marks(runs: pd.DataFrame, name: str) -> dict[str, str]:
    """'best', 'tied' or '' for the methods of one data set's runs; the base and full fine-tuning have no mark, nor have
    methods with fewer seeds than others, whose mean is luckier.

    The best has the best mean over its seeds. A method is tied that is not significantly worse than it, after Holm's
    correction over the methods. There is no mark at all where seeds are too few for an interval, nor where the best's
    own interval holds chance.
    """
    rivals = {method: group for method, group in runs.groupby("method", sort=False) if method not in ENDS}
    most = max(map(len, rivals.values()), default=0)
    rivals = {method: group for method, group in rivals.items() if len(group) == most}
    means = {method: BETTER[name] * group[name].mean() for method, group in rivals.items() if group[name].notna().all()}
    if not means:
        return {}
    best = max(means, key=means.get)
    chance = CHANCE.get(name, -np.inf)
    _, low, _ = mean_interval(rivals[best], name, seeds=True)
    if not low > chance:
        return {}
    compared = against(pd.concat([rivals[method] for method in means]), best, name)
    tied = {method: "tied" if row.p >= LEVEL else "" for method, row in compared.iterrows()}
    return {method: "best" if method == best else tied[method] for method in means}


def differences(runs: pd.DataFrame, method: str, others: Sequence[str]) -> pd.DataFrame:
    """`difference` of a method from each of some others, one row per data set, other method and score.

    Columns: dataset, less (the other method), score, difference, low, high, p (Holm's, over the others of a data set),
    and better: of how many seeds that both have the method is the better one, as '2 of 3'. Methods without runs, and
    scores without a value, have no row.
    """
    rows = []
    for dataset, own in runs.groupby("dataset", sort=False):
        for name, sign in BETTER.items():
            found = {other: difference(own[own.method == method], own[own.method == other], name) for other in others}
            corrected = holm({other: estimate.p for other, estimate in found.items()})
            for other, estimate in found.items():
                pairs = own[own.method == method].merge(own[own.method == other], on="seed", suffixes=("", "_other"))
                wins = (sign * (pairs[name] - pairs[f"{name}_other"]) > 0).sum()
                row = (*estimate[:3], corrected[other], f"{wins} of {len(pairs)}")
                rows += [(dataset, other, name, *row)] * (not np.isnan(estimate.value))
    columns = ["dataset", "less", "score", "difference", "low", "high", "p", "better"]
    return pd.DataFrame(rows, columns=columns)
