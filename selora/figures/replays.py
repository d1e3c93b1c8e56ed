"""Figures of recorded runs under other choices: a threshold that was not run, a step before the last, other seeds and
prompts than those that were drawn."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from selora.figures.pictures import COLOURS, MARKERS
from selora.figures.ranks import NETWORKS, networks_of


def replayed(tests: pd.DataFrame, threshold: float, interval: int) -> pd.DataFrame:
    """Which layers the recorded FI-Ratios of a run would have let grow, at another threshold and interval.

    It is exact at the run's first test, if that is one of this interval's: until then nothing had grown. Later ratios
    are those of the run's own trajectory, on which other layers had grown by then.

    Args:
        tests: step, network, layer, fi_ratio of one seed.
        interval: steps, a multiple of the run's own; tests at other steps are left out.

    Returns:
        One row per step and network: step, network, share (of its layers that grow), rank (the mean after that test, if
        the layers started at 1).
    """
    kept = tests[tests.step % interval == 0]
    grows = kept.assign(grows=kept.fi_ratio >= threshold).groupby(["step", "network"], sort=False).grows
    table = grows.mean().rename("share").reset_index()
    return table.assign(rank=1 + table.groupby("network").share.cumsum())


def replay(tests: pd.DataFrame, own: tuple[float, int], threshold: float, interval: int, title: str) -> Figure:
    """The share of layers that grow at the first test, against the threshold, which is exact; and at every test of the
    trajectory that was recorded.

    Args:
        tests: step, network, layer, fi_ratio of one seed.
        own: the run's threshold and interval.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.3), layout="constrained")
    first, table = tests[tests.step == tests.step.min()], replayed(tests, threshold, interval)
    for color, marker, network in zip(COLOURS, MARKERS, networks_of(tests), strict=False):
        ratios = np.sort(first[first.network == network].fi_ratio.to_numpy())
        left.step(ratios, 1 - np.arange(len(ratios)) / len(ratios), where="pre", color=color, label=NETWORKS[network])
        rows = table[table.network == network]
        right.plot(rows.step, rows.share, color=color, linestyle=":", marker=marker, markerfacecolor="white")
        exact = rows[(rows.step == first.step.min()) & (interval == own[1])]
        right.plot(exact.step, exact.share, color=color, marker=marker, linestyle="")
        if len(rows):
            left.plot([], [], " ", label=f"   mean rank in the end {rows['rank'].iloc[-1]:.1f}")
    left.axvline(threshold, color="0.3", linestyle="--", linewidth=1)
    left.set(xlabel=f"λ; the run had {own[0]:g}", ylabel="share of layers that grow", ylim=(0, 1.02))
    left.set(title=f"first test (step {first.step.min()}): exact", xlim=(1, max(2, threshold)))
    left.legend(fontsize=8)
    right.set(xlabel=f"step; the run tested every {own[1]}", title="all tests: on this trajectory (filled: exact)")
    right.set(ylim=(0, 1.02), xlim=(0, 1.03 * tests.step.max()))
    figure.suptitle(f"{title}: λ = {threshold:g}, a test every {interval} steps")
    sns.despine(figure)
    return figure


def ranks_at(tests: pd.DataFrame, step: int) -> pd.DataFrame:
    """The ranks that the recorded tests left at a step: network, layer, kind, rank, seed.

    Args:
        tests: step, network, layer, kind, rank (after the test), expanded, seed.
    """
    layer = ["network", "layer", "kind", "seed"]
    start = tests.drop_duplicates(layer)
    start = start.assign(step=0, rank=start["rank"] - start.expanded.astype(int))
    known = pd.concat([start, tests[tests.step <= step]])
    return known.drop_duplicates(layer, keep="last")[[*layer, "rank"]].reset_index(drop=True)


def resampled_kid(draws: pd.DataFrame, kid: pd.Series, draw: int, title: str) -> Figure:
    """KID x 1000 of each method in one draw beside what it was, and how often each is the best of all draws.

    Args:
        draws: KID under resampling, a row for each draw and a column for each method; kid: as it was, by method.
    """
    methods = list(kid.sort_values().index)
    places = range(len(methods))
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9, 1.4 + 0.25 * len(methods)), sharey=True, layout="constrained", width_ratios=(2, 1)
    )
    low, high = (1000 * draws[methods].quantile(q) for q in (0.025, 0.975))
    left.hlines(places, low, high, color="0.85", linewidth=6, label="95 % of the draws")
    left.scatter(1000 * kid[methods], places, marker="|", s=90, color="black", label="as it was")
    left.scatter(1000 * draws[methods].iloc[draw], places, s=22, color=COLOURS[1], zorder=3, label=f"draw {draw}")
    left.set(yticks=places, yticklabels=methods, ylim=(len(methods) - 0.4, -0.6), xlabel="KID x 1000\n← better")
    left.legend(fontsize=7, loc="lower right")
    best = draws[methods].idxmin(axis=1).value_counts(normalize=True).reindex(methods, fill_value=0)
    right.barh(places, 100 * best, color=COLOURS[0])
    right.set(xlabel="is the best, per cent of the draws", xlim=(0, 100))
    figure.suptitle(f"{title}: in draw {draw} the best is {draws[methods].iloc[draw].idxmin()}")
    sns.despine(figure)
    return figure
