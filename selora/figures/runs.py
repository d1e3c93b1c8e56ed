"""Figures of runs: their losses, and how they compare."""

from collections.abc import Mapping
from itertools import cycle

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from selora.figures.pictures import COLOURS, MARKERS

LINES = ("-", "--", ":", "-.")


def loss_curves(histories: Mapping[str, pd.DataFrame], window: int = 20) -> Figure:
    """Training loss (moving mean over `window` steps) and validation loss of some runs, by title."""
    figure, axis = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for color, marker, line, (title, history) in zip(COLOURS, MARKERS, cycle(LINES), histories.items(), strict=False):
        smooth = history.train_loss.rolling(window, min_periods=1).mean()
        axis.plot(history.step, smooth, color=color, linestyle=line, alpha=0.7, label=f"{title}, training")
        measured = history.dropna(subset="val_loss")
        if len(measured):  # a set without validation images has no such curve
            axis.plot(
                measured.step, measured.val_loss, color=color, marker=marker, markersize=5,
                label=f"{title}, validation",
            )  # fmt: skip
    axis.set(xlabel="step", ylabel="denoising loss (MSE)")
    axis.legend(fontsize=8)
    sns.despine(figure)
    return figure


def kid_points(runs: pd.DataFrame) -> Figure:
    """KID of every run: a point for each seed, a bar at their mean, beside real vs real and the autoencoder's limit."""
    datasets, methods = list(dict.fromkeys(runs.dataset)), list(dict.fromkeys(runs.method))
    figure, axes = plt.subplots(
        1, len(datasets), figsize=(4.5 * len(datasets), 1.2 + 0.25 * len(methods)), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, dataset in zip(axes[0], datasets, strict=True):
        rows = runs[runs.dataset == dataset]
        for name, words, style in (("floor", "real vs real", ":"), ("ceiling", "autoencoder limit", "--")):
            value = 1000 * rows.iloc[0][name]["kid"]
            axis.axvline(value, color="0.5", linestyle=style, zorder=0, label=f"{words} {value:.1f}")
        place = rows.method.map(methods.index)
        means = 1000 * rows.groupby(place).kid.mean()
        axis.vlines(means, means.index - 0.3, means.index + 0.3, color=COLOURS[0])
        axis.scatter(1000 * rows.kid, place, s=16, color=COLOURS[0], alpha=0.6, linewidth=0)
        axis.set(title=f"{dataset}, {rows.n.iloc[0]} images", xlabel="KID x 1000\n← better", yticks=range(len(methods)))
        axis.set(yticklabels=methods, ylim=(len(methods) - 0.4, -0.6))
        axis.legend(fontsize=7, loc="lower right")
    sns.despine(figure)
    return figure


def lengths_figure(curves: pd.DataFrame, runs: pd.DataFrame, title: str) -> Figure:
    """Validation loss during the longest runs, a thin line for each seed, and KID of runs of several lengths: a point
    for each seed, a line through their means.

    Args:
        curves: method, seed, step, val_loss; runs: method, seed, steps, kid.
    """
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for color, marker, method in zip(COLOURS, MARKERS, dict.fromkeys(runs.method), strict=False):
        for _, curve in curves[curves.method == method].dropna(subset="val_loss").groupby("seed"):
            axes[0].plot(curve.step, curve.val_loss, color=color, linewidth=0.8, marker=marker, markersize=3)
        own = runs[runs.method == method]
        axes[1].scatter(own.steps, 1000 * own.kid, s=14, color=color, marker=marker, alpha=0.6, linewidth=0)
        means = 1000 * own.groupby("steps").kid.mean()
        axes[1].plot(means.index, means, color=color, marker=marker, label=method)
    axes[0].set(xlabel="step", ylabel="validation loss\nbetter ↓")
    axes[1].set(xlabel="steps of the run", ylabel="KID x 1000\nbetter ↓", xticks=sorted(runs.steps.unique()))
    axes[1].legend(fontsize=8)
    figure.suptitle(title)
    sns.despine(figure)
    return figure


def seed_differences(pairs: pd.DataFrame, table: pd.DataFrame, words: Mapping[str, str], title: str) -> Figure:
    """Differences of methods from one of them, a panel for each score: a point for each seed, a bar at their mean, and
    a line for the 95 % interval where there is one.

    Args:
        pairs: method, score, seed, difference; table: method, score, difference, low, high, their means over seeds.
        words: what the methods are called, from top to bottom.
    """
    scores, methods = list(dict.fromkeys(table.score)), [method for method in words if method in set(table.method)]
    figure, axes = plt.subplots(
        1, len(scores), figsize=(3 + 3 * len(scores), 1.2 + 0.3 * len(methods)), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, score in zip(axes[0], scores, strict=True):
        seeds, means = pairs[pairs.score == score], table[table.score == score]
        place = means.method.map(methods.index)
        axis.axvline(0, color="0.5", linestyle=":")
        axis.hlines(place, means.low, means.high, color=COLOURS[0])
        axis.vlines(means.difference, place - 0.3, place + 0.3, color=COLOURS[0])
        axis.scatter(seeds.difference, seeds.method.map(methods.index), s=16, color=COLOURS[0], alpha=0.6, linewidth=0)
        axis.set(xlabel=f"{score}\n← better", yticks=range(len(methods)), ylim=(len(methods) - 0.4, -0.6))
        axis.set_yticklabels([words[method] for method in methods])
        axis.locator_params(axis="x", nbins=5)
    figure.suptitle(title)
    sns.despine(figure)
    return figure


def differences(table: pd.DataFrame) -> Figure:
    """Each method's difference from LoRA, from Table 1, with its 95 % interval where there are seeds enough for one:
    filled where Holm's p is below 0.05.

    A row of panels per data set. The base is left out: its distance from LoRA would hide all others.
    """
    datasets = list(dict.fromkeys(table.dataset))
    methods = [method for method in dict.fromkeys(table.method) if method not in ("base", "lora")]
    panels = {"kid": ("KID x 1000\n← better", 1000), "clip": ("CLIP score\nbetter →", 1)}
    panels["auroc"] = ("finding AUROC\nbetter →", 1)
    figure, axes = plt.subplots(
        len(datasets), len(panels), figsize=(9, 1 + len(datasets) * (0.5 + 0.25 * len(methods))), sharex="col",
        sharey=True, squeeze=False, layout="constrained",
    )  # fmt: skip
    for line, dataset in zip(axes, datasets, strict=True):
        rows = table[(table.dataset == dataset) & table.method.isin(methods)]
        for axis, (name, (_, unit)) in zip(line, panels.items(), strict=True):
            value, low, high = (unit * rows[f"{name}_{column}"] for column in ("diff", "diff_low", "diff_high"))
            place, clear = rows.method.map(methods.index), rows[f"{name}_diff_p"] < 0.05
            axis.axvline(0, color="0.5", linestyle=":")
            axis.hlines(place, low, high, color=COLOURS[0])
            axis.scatter(value, place, c=[COLOURS[0] if c else "white" for c in clear], edgecolor=COLOURS[0], zorder=3)
            axis.set(yticks=range(len(methods)), yticklabels=methods, ylim=(len(methods) - 0.4, -0.6))
            axis.locator_params(axis="x", nbins=5)
            if value.isna().all():
                axis.text(0.5, 0.5, "no number", transform=axis.transAxes, ha="center", color="0.5")
        line[0].set_ylabel(dataset)
    for axis, (words, _) in zip(axes[-1], panels.values(), strict=True):
        axis.set_xlabel(words)
    told = table[[f"{name}_diff_low" for name in panels]].notna().any(axis=None)
    words = "95 % over seeds and prompts; filled: significant after Holm's correction"
    figure.suptitle(f"Difference from LoRA, {words if told else 'too few seeds for an interval'}")
    sns.despine(figure)
    return figure
