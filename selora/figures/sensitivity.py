"""Figures of SeLoRA at several thresholds and intervals: maps of loss and size, and how the networks grew."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from selora.figures.pictures import COLOURS, MARKERS

PANELS = {  # column: title, its factor, format
    "val_loss": ("least validation loss\n(less is better)", 1, ".4f"),
    "parameters": ("parameters, thousands", 1e-3, ".0f"),
    "events": ("layers grown, times", 1, ".0f"),
}


def grid_maps(table: pd.DataFrame, title: str) -> Figure:
    """Heat maps of loss, parameters and growth, thresholds down and intervals across. A training that died is empty.

    Args:
        table: `study.sensitivity.table`.
    """
    rows, columns = table.threshold.nunique(), table.interval.nunique()
    size = (len(PANELS) * (1.2 + 0.65 * columns), 1.3 + 0.5 * rows)
    figure, axes = plt.subplots(1, len(PANELS), figsize=size, sharey=True, layout="constrained")
    for axis, (column, (words, unit, digits)) in zip(axes, PANELS.items(), strict=True):
        values = unit * table.pivot(index="threshold", columns="interval", values=column).astype(float)
        sns.heatmap(
            values, ax=axis, cmap="viridis", annot=True, fmt=digits, annot_kws={"fontsize": 8}, cbar=False,
            linewidths=0.5,
        )  # fmt: skip
        axis.set(title=words, xlabel="interval t, steps", ylabel="threshold λ" if axis is axes[0] else "")
        axis.tick_params(axis="y", rotation=0)
    figure.suptitle(title)
    return figure


def growth_curves(curves: pd.DataFrame, title: str) -> Figure:
    """Parameters against steps, a panel for each interval and a line for each threshold.

    Args:
        curves: `study.sensitivity.curves`.
    """
    intervals, thresholds = sorted(set(curves.interval)), sorted(set(curves.threshold))
    figure, axes = plt.subplots(
        1, len(intervals), figsize=(1.4 + 2.3 * len(intervals), 2.9), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, interval in zip(axes[0], intervals, strict=True):
        for color, marker, threshold in zip(COLOURS, MARKERS, thresholds, strict=False):
            own = curves[(curves.interval == interval) & (curves.threshold == threshold)]
            axis.plot(
                own.step, own.parameters / 1000, color=color, marker=marker, markersize=4, markevery=0.15,
                drawstyle="steps-post", label=f"λ {threshold:g}",
            )  # fmt: skip
        axis.set(title=f"t {interval:g}", xlabel="step")
    axes[0, 0].set_ylabel("parameters, thousands")
    axes[0, 0].legend(fontsize=8)
    figure.suptitle(title)
    sns.despine(figure)
    return figure
