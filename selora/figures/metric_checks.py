"""Figures of what the metrics say where the answer is known (`analysis.controls`)."""

from collections.abc import Mapping
from itertools import cycle

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from selora.figures.pictures import COLOURS, MARKERS, titled

METRICS = {"fid": "FID", "kid": "KID"}


def bias_curve(curve: pd.DataFrame, title: str) -> Figure:
    """FID and KID between two samples of one set by their size, for its images and for a Gaussian like it."""
    sizes = sorted(curve.n.unique())
    table = curve.rename(columns=METRICS).melt(["set", "n"], METRICS.values(), "metric")
    grid = sns.relplot(
        table, x="n", y="value", hue="set", style="set", col="metric", kind="line", markers=True, errorbar=("pi", 100),
        height=3.2, aspect=1.3, facet_kws={"sharey": False},
    )  # fmt: skip
    grid.set(xscale="log", xticks=sizes, xticklabels=sizes, xlabel="images in each sample", ylabel="")
    for axis in grid.axes.flat:
        axis.minorticks_off()
    grid.axes[0, 1].axhline(0, color="0.6", linewidth=0.8)
    return titled(grid, f"{title}: two samples of the same set")


def degradations(tables: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """FID and KID by level of damage, one column per encoder; level 0 is real vs real."""
    table = pd.concat(tables, names=["encoder"]).reset_index("encoder").rename(columns=METRICS)
    grid = sns.relplot(
        table.melt(["encoder", "degradation", "level"], METRICS.values(), "metric"), x="level", y="value",
        hue="degradation", style="degradation", row="metric", col="encoder", kind="line", markers=True, height=2.5,
        aspect=1.5,
        facet_kws={"sharey": False},
    )  # fmt: skip
    grid.set(xlabel="level of damage, 0 is none", ylabel="", xticks=range(5))
    return titled(grid, title)


def finding_auroc(table: pd.DataFrame, title: str) -> Figure:
    """AUROC of each finding with its interval, one colour and sign per set of images; chance is dotted."""
    names = list(dict.fromkeys(table.finding))
    sets = list(dict.fromkeys(table.images))
    figure, axis = plt.subplots(figsize=(7, 0.5 + 0.09 * len(names) * (len(sets) + 1)), layout="constrained")
    signs = zip(cycle(COLOURS), cycle(MARKERS), sets, strict=False)
    for i, (color, marker, images) in enumerate(signs):
        rows = table[table.images == images]
        place = rows.finding.map(names.index) + 0.7 * (i / max(1, len(sets) - 1) - 0.5)
        reach = [(rows.auroc - rows.low).clip(lower=0), (rows.high - rows.auroc).clip(lower=0)]
        axis.errorbar(rows.auroc, place, xerr=reach, fmt=marker, markersize=3, linewidth=1, color=color, label=images)
    axis.axvline(0.5, color="0.5", linestyle=":")
    axis.set(yticks=range(len(names)), yticklabels=names, xlabel="AUROC, 95 % interval", title=title, xlim=(0, 1.02))
    axis.invert_yaxis()
    axis.legend(fontsize=7, loc="lower left")
    sns.despine(figure)
    return figure


def nearest(table: pd.DataFrame, title: str) -> Figure:
    """Distances to the nearest training image: boxes of the middle half, whiskers of 5 to 95 %, for new real images and
    each method's; the dotted line is the median of the first, the reference."""
    sets = list(dict.fromkeys(table.images))
    figure, axis = plt.subplots(figsize=(7, 1 + 0.35 * len(sets)), layout="constrained")
    sns.boxplot(
        table, x="distance", y="images", order=sets, whis=(5, 95), showfliers=False, color="0.85", linewidth=1, ax=axis
    )
    axis.axvline(table[table.images == sets[0]].distance.median(), color=COLOURS[0], linestyle=":")
    axis.set(xlabel="distance to the nearest training image\n← nearer", ylabel="", title=title)
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
