"""What methods cost, as ratios to LoRA's."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from selora.figures.pictures import COLOURS

PANELS = {  # column: title
    "run": "time of a step,\nprobes included",
    "flop": "FLOPs of a step",
    "memory": "memory of a step",
    "parameters": "parameters",
    "optimizer": "optimizer's bytes",
    "to loss": "time to a fixed\nvalidation loss",
}
WIDE = [a * 10.0**b for b in range(-4, 5) for a in (1, 2, 5)]  # ticks where ratios differ by more than a factor of 3
NARROW = [0.4, 0.5, 0.6, 0.8, 1, 1.2, 1.5, 2, 2.5]


def cost_points(ratios: pd.DataFrame, title: str) -> Figure:
    """A panel for each cost and a point for each method, LoRA's at 1; what is not known has no point.

    Args:
        ratios: `cost_ratios.ratios`.
    """
    methods = list(ratios.index)
    figure, axes = plt.subplots(
        1, len(PANELS), figsize=(10, 1.3 + 0.25 * len(methods)), sharey=True, layout="constrained"
    )
    for axis, (column, words) in zip(axes, PANELS.items(), strict=True):
        axis.axvline(1, color="0.5", linestyle=":")
        axis.scatter(ratios[column], range(len(methods)), color=COLOURS[0], s=22, zorder=3)
        axis.set_title(words, fontsize=9)
        axis.set(xscale="log", yticks=range(len(methods)), yticklabels=methods, ylim=(len(methods) - 0.4, -0.6))
        low, high = min(1, ratios[column].min()) / 1.2, max(1, ratios[column].max()) * 1.2
        ticks = [tick for tick in (NARROW if high / low < 3 else WIDE) if low < tick < high]
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=7)
        axis.set_xlim(low, high)
        axis.xaxis.set_minor_locator(NullLocator())
        if ratios[column].isna().all():
            axis.text(0.5, 0.5, "no number", transform=axis.transAxes, ha="center", color="0.5")
    for place in [place for place, words in enumerate(ratios.reached) if words == "never"]:
        axes[-1].text(1, place, " never", va="center", fontsize=8)
    figure.supxlabel("ratio to LoRA (scale of logarithms)", fontsize=9)
    figure.suptitle(title)
    sns.despine(figure)
    return figure
