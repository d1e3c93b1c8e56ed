"""Figures of what the metrics say where the answer is known (`analysis.controls`)."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure


def bias_curve(curve: pd.DataFrame, title: str) -> Figure:
    """FID and KID between two samples of one set by their size, for its images and for a Gaussian like it."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    sizes = sorted(curve.n.unique())
    for axis, metric in zip(axes, ("fid", "kid"), strict=True):
        sns.lineplot(
            curve,
            x="n",
            y=metric,
            hue="set",
            style="set",
            markers=True,
            errorbar=("pi", 100),
            ax=axis,
            legend=metric == "fid",
        )
        axis.set(xscale="log", xlabel="images in each sample", ylabel=metric.upper())
        axis.set_xticks(sizes, [str(n) for n in sizes])
        axis.minorticks_off()
    axes[1].axhline(0, color="0.6", linewidth=0.8)
    figure.suptitle(f"{title}: two samples of the same set")
    sns.despine(figure)
    return figure


def degradations(tables: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """FID and KID by level of damage, one column per encoder; level 0 is the floor."""
    figure, axes = plt.subplots(
        2, len(tables), figsize=(4.2 * len(tables), 5), sharex=True, layout="constrained", squeeze=False
    )
    for column, (encoder, table) in zip(axes.T, tables.items(), strict=True):
        for axis, metric in zip(column, ("fid", "kid"), strict=True):
            first = axis is axes[0, 0]
            sns.lineplot(table, x="level", y=metric, hue="degradation", marker="o", ax=axis, legend=first)
            axis.set(ylabel=metric.upper(), xlabel="level of damage, 0 is none", xticks=range(5))
        column[0].set_title(encoder)
    figure.suptitle(title)
    sns.despine(figure)
    return figure


def finding_auroc(table: pd.DataFrame, title: str) -> Figure:
    """AUROC of each finding with its interval, one colour per set of images; chance is dotted."""
    names = list(dict.fromkeys(table.finding))
    sets = list(dict.fromkeys(table.images))
    figure, axis = plt.subplots(figsize=(7, 0.5 + 0.09 * len(names) * (len(sets) + 1)), layout="constrained")
    for i, (color, images) in enumerate(zip(sns.color_palette(n_colors=len(sets)), sets, strict=True)):
        rows = table[table.images == images]
        place = rows.finding.map(names.index) + 0.7 * (i / max(1, len(sets) - 1) - 0.5)
        reach = [(rows.auroc - rows.low).clip(lower=0), (rows.high - rows.auroc).clip(lower=0)]
        axis.errorbar(rows.auroc, place, xerr=reach, fmt="o", markersize=3, linewidth=1, color=color, label=images)
    axis.axvline(0.5, color="0.5", linestyle=":")
    axis.set(yticks=range(len(names)), yticklabels=names, xlabel="AUROC, 95 % interval", title=title, xlim=(0, 1.02))
    axis.invert_yaxis()
    axis.legend(fontsize=7, loc="lower left")
    sns.despine(figure)
    return figure


def nearest(table: pd.DataFrame, title: str) -> Figure:
    """Histogram of the distances to the nearest training image, new real images and each method's."""
    figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
    sns.histplot(table, x="distance", hue="images", element="step", stat="density", common_norm=False, bins=30, ax=axis)
    axis.set(xlabel="distance to the nearest training image", title=title)
    sns.despine(figure)
    return figure


def prompt_gaps(table: pd.DataFrame) -> Figure:
    """By how much wrong findings cost more than right ones, by samples seen: an oracle's tokens beside words."""
    grid = sns.relplot(
        table, x="samples", y="gap", hue="stage", style="stage", col="timesteps", kind="line", markers=True, height=2.6
    )
    grid.set_axis_labels("samples seen", "loss: wrong less right")
    for axis in grid.axes.flat:
        axis.axhline(0, color="0.6", linewidth=0.8)
    return grid.figure
