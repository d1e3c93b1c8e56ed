"""What methods cost, as ratios to LoRA's."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from selora.figures.pictures import COLOURS

PANELS = {  # column: title
    "run": "time of a step,\nprobes included",
    "flop": "FLOPs of a step",
    "memory": "memory of a step",
    "parameters": "parameters",
    "optimizer": "optimizer's bytes",
    "to loss": "time to a fixed\nvalidation loss",
}


def cost_points(ratios: pd.DataFrame, title: str) -> Figure:
    """A panel for each cost and a point for each method, LoRA's at 1; what is not known has no point.

    Of time the line runs to the 95th percentile of plain steps.

    Args:
        ratios: `cost_ratios.ratios`.
    """
    methods = list(ratios.index)
    figure, axes = plt.subplots(
        1, len(PANELS), figsize=(10, 1.3 + 0.25 * len(methods)), sharey=True, layout="constrained"
    )
    for axis, (column, words) in zip(axes, PANELS.items(), strict=True):
        axis.axvline(1, color="0.5", linestyle=":")
        if column == "run":
            axis.hlines(range(len(methods)), ratios.run, ratios.p95, color=COLOURS[0], linewidth=1)
        axis.scatter(ratios[column], range(len(methods)), color=COLOURS[0], s=22, zorder=3)
        axis.set_title(words, fontsize=9)
        axis.set(xscale="log", yticks=range(len(methods)), yticklabels=methods, ylim=(len(methods) - 0.4, -0.6))
        low, high = min(1, ratios[column].min()), max(1, ratios[column].max())
        axis.set_xlim(low / 1.25, 1.25 * high)  # a factor of less than two would have no label on the axis
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low > 2 else (1, 0.8, 0.9, 1.1, 1.2, 1.5)))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.tick_params(axis="x", labelsize=7)
    figure.supxlabel("ratio to LoRA (scale of logarithms)", fontsize=9)
    figure.suptitle(title)
    sns.despine(figure)
    return figure
