"""Is one method better than another? From the scores and replicates of their result.json files alone."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

BETTER = {"kid": -1, "clip": 1, "auroc": 1}  # the scores with replicates: is less or more of it better?
ENDS = ("base", "full")  # what adapters are measured against; no rivals of theirs


def resampled(run: dict, name: str) -> np.ndarray:
    """A score in a run's `bootstrap`, in each resample (D,); a single nan where the run has none."""
    return np.array(run.get(name, [np.nan]), dtype=float)


def difference(runs: pd.DataFrame, others: pd.DataFrame, name: str) -> tuple[float, float, float]:
    """How much higher a score is in one method's runs than in another's: the mean over seeds, and its interval.

    Only seeds that both have count. The 95 % interval is that of a paired bootstrap over images within seeds: the same
    images are drawn for every run, differences are averaged over seeds replicate by replicate, percentiles taken.

    Args:
        runs, others: one row per seed of one data set, with columns seed, bootstrap, and the score's name.

    Returns:
        Difference, low, high; low and high are nan where a run has no replicates, all where no seed is common.
    """
    pairs = runs.merge(others, on="seed", suffixes=("", "_other"))
    if pairs.empty:
        return np.nan, np.nan, np.nan
    drawn = [
        resampled(own, name) - resampled(other, name)
        for own, other in zip(pairs.bootstrap, pairs.bootstrap_other, strict=True)
    ]
    means = sum(drawn) / len(drawn)
    low, high = np.quantile(means[~np.isnan(means)], [0.025, 0.975]) if not np.isnan(means).all() else (np.nan, np.nan)
    return (pairs[name] - pairs[f"{name}_other"]).mean(), low, high


def mean_interval(runs: pd.DataFrame, name: str) -> tuple[float, float, float]:
    """Mean over seeds of a figure of one method on one data set, and low and high of its 95 % interval over images
    within seeds; all nan where no run has the figure."""
    if name not in runs or runs[name].isna().all():
        return np.nan, np.nan, np.nan
    drawn = np.mean([resampled(run, name) for run in runs.bootstrap], axis=0)
    return runs[name].mean(), *np.quantile(drawn, [0.025, 0.975])


def marks(runs: pd.DataFrame, name: str) -> dict[str, str]:
    """'best', 'tied' or '' for the methods of one data set's runs; the base and full fine-tuning have no mark, nor have
    methods with fewer seeds than others, whose mean is luckier.

    The best has the best mean over its seeds. A method is tied whose paired interval from the best, over the seeds
    that both have, does not lie wholly on the worse side; without an interval there is no telling, and no mark.
    """
    rivals = {method: group for method, group in runs.groupby("method", sort=False) if method not in ENDS}
    most = max(map(len, rivals.values()), default=0)
    rivals = {method: group for method, group in rivals.items() if len(group) == most}
    means = {method: BETTER[name] * group[name].mean() for method, group in rivals.items() if group[name].notna().all()}
    if not means:
        return {}
    best, found = max(means, key=means.get), {}
    for method in means:
        _, low, high = difference(rivals[method], rivals[best], name)
        nearest = BETTER[name] * (high if BETTER[name] > 0 else low)  # the interval's better end
        found[method] = "best" if method == best else "tied" if nearest >= 0 else ""
    return found


def differences(runs: pd.DataFrame, method: str, others: Sequence[str]) -> pd.DataFrame:
    """`difference` of a method from each of some others, one row per data set, other method and score.

    Columns: dataset, less (the other method), figure, difference, low, high, and better: of how many seeds that both
    have the method is the better one, as '2 of 3'. Methods without runs, and scores without a value, have no row.
    """
    rows = []
    for dataset, own in runs.groupby("dataset", sort=False):
        first = own[own.method == method]
        for other in others:
            second = own[own.method == other]
            pairs = first.merge(second, on="seed", suffixes=("", "_other"))
            for name, sign in BETTER.items():
                value, low, high = difference(first, second, name)
                if not np.isnan(value):
                    wins = (sign * (pairs[name] - pairs[f"{name}_other"]) > 0).sum()
                    rows.append((dataset, other, name, value, low, high, f"{wins} of {len(pairs)}"))
    return pd.DataFrame(rows, columns=["dataset", "less", "score", "difference", "low", "high", "better"])
