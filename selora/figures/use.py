"""Figures of what generated pictures are good for, and what they give away (`analysis.utility`, `analysis.copies`)."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from selora.figures.pictures import COLOURS, MARKERS


def utility_points(means: pd.DataFrame, title: str) -> Figure:
    """Mean AUROC by what a head was trained on: a panel for each n, since the findings that are frequent enough differ.
    Lines are 95 % over test pictures, of several draws two standard deviations over draws; chance is dotted, the
    references' own mean a thin line.

    Args:
        means: `utility.summary`.
    """
    counts = sorted(means.n.unique())
    words = means.arm + means.method.map(lambda name: f", {name}" if name else "")
    names = list(dict.fromkeys(words))
    figure, axes = plt.subplots(
        1, len(counts), figsize=(3 + 2.4 * len(counts), 1.2 + 0.3 * len(names)), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, count in zip(axes[0], counts, strict=True):
        rows = means[means.n == count]
        place = words[rows.index].map(names.index)
        axis.axvline(0.5, color="0.5", linestyle=":")
        axis.axvline(rows.auroc.iloc[0], color=COLOURS[0], linewidth=0.8)  # the references, which come first
        axis.hlines(place, rows.low.fillna(rows.auroc - 2 * rows.sd), rows.high.fillna(rows.auroc + 2 * rows.sd),
                    color=COLOURS[0])  # fmt: skip
        axis.scatter(
            rows.auroc, place, marker=MARKERS[0], edgecolor=COLOURS[0], zorder=3,
            c=[COLOURS[0] if sd != sd else "white" for sd in rows.sd],
        )  # fmt: skip
        axis.set(title=f"n = {count}, findings: {rows.findings.iloc[0]}", xlabel="mean AUROC\nbetter →")
        axis.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))
    figure.suptitle(f"{title}\nfilled: 95 % over test pictures; hollow: draws, two standard deviations", fontsize=9)
    sns.despine(figure)
    return figure


def copies_points(table: pd.DataFrame, title: str) -> Figure:
    """The share of pictures nearer to the training images than to as many others, a panel for each space; lines are
    95 % over pictures, grey bars what other images in place of the training images give by chance.

    Args:
        table: `copies.copies_table`.
    """
    spaces, words = list(dict.fromkeys(table.space)), table.method + ", n = " + table.n.astype(str)
    names, prompts = list(dict.fromkeys(words)), list(dict.fromkeys(table.prompts))
    figure, axes = plt.subplots(
        1, len(spaces), figsize=(3 + 3 * len(spaces), 1.4 + 0.3 * len(names)), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, space in zip(axes[0], spaces, strict=True):
        axis.axvline(0.5, color="0.5", linestyle=":")
        for nth, asked in enumerate(prompts):
            rows, color = table[(table.space == space) & (table.prompts == asked)], COLOURS[nth]
            place = words[rows.index].map(names.index) + 0.26 * (nth - 1) * bool(asked)
            axis.hlines(place, rows.chance_low, rows.chance_high, color="0.85", linewidth=6, zorder=0)
            axis.hlines(place, rows.low, rows.high, color=color)
            label = f"prompts of the {asked} split" if asked else "controls"
            axis.scatter(rows.share, place, marker=MARKERS[nth], color=color, zorder=3, label=label)
        axis.set(title=space, xlim=(0, 1.02), xlabel="share nearer to training images")
        axis.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), fontsize=7, loc="outside lower center", ncols=3)
    figure.suptitle(title)
    figure.get_layout_engine().set(wspace=0.06)
    sns.despine(figure)
    return figure
