"""Validation loss against learning rate, for each method that was tuned."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

COLUMNS = 4


def loss_against_rate(trials: pd.DataFrame) -> Figure:
    """A panel for each method: losses by learning rate, pale at a fifth of the steps and full at the end, a colour for
    each scaling, a ring round the choice. A trial whose numbers died has no point.

    Args:
        trials: method, learning_rate, other, steps, val_loss, chosen.
    """
    methods = list(dict.fromkeys(trials.method))
    rows = -(-len(methods) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(2.6 * COLUMNS, 2.3 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(methods) :]:
        axis.set_axis_off()
    for axis, method in zip(axes.flat, methods, strict=False):
        own = trials[trials.method == method]
        for color, (other, group) in zip(sns.color_palette(), own.groupby("other", sort=False), strict=False):
            for place, (steps, losses) in enumerate(group.sort_values("learning_rate").groupby("steps")):
                label = f"{steps} steps{', ' * bool(other)}{other}"
                axis.plot(
                    losses.learning_rate, losses.val_loss, "o-", color=color, alpha=(0.4, 1)[place > 0],
                    markersize=3 + 2 * place, label=label,
                )  # fmt: skip
        best = own[own.chosen.astype(bool)]
        axis.plot(best.learning_rate, best.val_loss, "o", markersize=12, fillstyle="none", color="0.3")
        axis.set(title=method, xscale="log", xlabel="learning rate", ylabel="validation loss")
        rates = sorted(set(own.learning_rate))
        axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axis.tick_params(axis="x", labelsize=7, which="both")
        axis.minorticks_off()
        axis.legend(fontsize=6)
    sns.despine(figure)
    return figure
