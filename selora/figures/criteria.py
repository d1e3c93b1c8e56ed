"""Figures of what the FI-Ratio measures, and of how other criteria compare."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from selora.figures.pictures import COLOURS, MARKERS

PARTS = {"rank share": "rank", "b_norm share": "norm of B", "step share": "step"}


def explained_bars(tables: dict[str, pd.DataFrame]) -> Figure:
    """What share of the ratio's variance rank, norm of B and step explain: a bar for each data set, network and target;
    hatched what knowing the layer adds, empty what is left.

    Args:
        tables: `ratio_meaning.explained` by data set.
    """
    rows = pd.concat(tables, names=["dataset"]).reset_index("dataset")
    names = (rows.dataset + ", " + rows.network + "\n" + rows.of).tolist()
    figure, axis = plt.subplots(figsize=(8, 1.2 + 0.45 * len(rows)), layout="constrained")
    left = pd.Series(0.0, index=rows.index)
    for color, (column, words) in zip(COLOURS, PARTS.items(), strict=False):
        axis.barh(names, rows[column], left=left, color=color, label=words)
        left = left + rows[column]
    axis.barh(names, rows["and layer"] - rows["all"], left=left, color="0.85", hatch="//", label="which layer it is")
    axis.set(xlim=(0, 1), xlabel="share of the variance (Shapley's; the rest is not explained)")
    axis.invert_yaxis()
    axis.legend(fontsize=8, loc="lower right")
    sns.despine(figure)
    return figure


def arms_points(table: pd.DataFrame) -> Figure:
    """Each criterion's KID less that of its rivals, with its 95 % interval where there are seeds enough; filled where
    parameters are equal. A panel for each data set.

    Args:
        table: `criterion_arms.arms_table`.
    """
    datasets, arms = list(dict.fromkeys(table.dataset)), list(dict.fromkeys(table.arm))
    figure, axes = plt.subplots(
        1, len(datasets), figsize=(5 * len(datasets), 1.4 + 0.35 * len(arms)), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, dataset in zip(axes[0], datasets, strict=True):
        axis.axvline(0, color="0.5", linestyle=":")
        own = table[table.dataset == dataset]
        for nth, (rival, rows) in enumerate(own.groupby("rival", sort=False)):
            place, color = rows.arm.map(arms.index) + 0.2 * nth - 0.1, COLOURS[nth]
            axis.hlines(place, rows.low, rows.high, color=color)
            axis.scatter(
                rows.difference, place, marker=MARKERS[nth], edgecolor=color, zorder=3, label=f"less {rival}",
                c=[color if equal else "white" for equal in rows.equal],
            )  # fmt: skip
        axis.set(title=dataset, yticks=range(len(arms)), yticklabels=arms, ylim=(len(arms) - 0.4, -0.6))
        axis.set_xlabel("difference of KID x 1000\n← better")
        axis.legend(fontsize=7)
    sns.despine(figure)
    return figure
