"""Figures, from the files that runs leave behind. Each function returns a matplotlib figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from PIL import Image


def image_grid(rows: Mapping[str, Sequence[Image.Image]], captions: Sequence[str] = ()) -> Figure:
    """Rows of pictures, each row with a title at its left, and a caption above each column."""
    columns = max(len(images) for images in rows.values())
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(1.7 * columns, 1.8 * len(rows) + 0.5), squeeze=False, layout="constrained"
    )
    for line, (title, images) in zip(axes, rows.items(), strict=True):
        for axis in line:
            axis.set(xticks=[], yticks=[], frame_on=False)
        for axis, image in zip(line, images, strict=False):
            axis.imshow(image, cmap="gray")
        line[0].set_ylabel(title)
    for axis, caption in zip(axes[0], captions, strict=False):
        axis.set_title(fill(caption if len(caption) < 110 else caption[:107] + "...", 28), fontsize=6, loc="left")
    return figure


def samples(folder: Path, names: Sequence[str]) -> list[Image.Image]:
    """The generated images of a run, by the ids of the examples they were prompted with."""
    return [Image.open(folder / "samples" / f"{name}.png") for name in names]


def loss_curves(histories: Mapping[str, pd.DataFrame], window: int = 20) -> Figure:
    """Training loss (moving mean over `window` steps) and validation loss of some runs, by title."""
    figure, axis = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for color, (title, history) in zip(sns.color_palette(), histories.items(), strict=False):
        smooth = history.train_loss.rolling(window, min_periods=1).mean()
        axis.plot(history.step, smooth, color=color, alpha=0.6, label=f"{title}, training")
        measured = history.dropna(subset="val_loss")
        axis.plot(measured.step, measured.val_loss, "o-", color=color, markersize=4, label=f"{title}, validation")
    axis.set(xlabel="step", ylabel="denoising loss (MSE)")
    axis.legend(fontsize=8)
    sns.despine(figure)
    return figure


def kid_points(runs: pd.DataFrame) -> Figure:
    """KID of every run: a point for each seed, a bar at their mean, beside the data set's floor and ceiling."""
    datasets, methods = list(dict.fromkeys(runs.dataset)), list(dict.fromkeys(runs.method))
    figure, axes = plt.subplots(
        1, len(datasets), figsize=(4.5 * len(datasets), 1.2 + 0.25 * len(methods)), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, dataset in zip(axes[0], datasets, strict=True):
        rows = runs[runs.dataset == dataset]
        for name, style in (("floor", ":"), ("ceiling", "--")):
            value = 1000 * rows.iloc[0][name]["kid"]
            axis.axvline(value, color="0.5", linestyle=style, zorder=0, label=f"{name} {value:.1f}")
        place = rows.method.map(methods.index)
        means = 1000 * rows.groupby(place).kid.mean()
        axis.vlines(means, means.index - 0.3, means.index + 0.3, color="tab:blue")
        axis.scatter(1000 * rows.kid, place, s=16, color="tab:blue", alpha=0.6, linewidth=0)
        axis.set(title=f"{dataset}, {rows.n.iloc[0]} images", xlabel="KID x 1000\n← better", yticks=range(len(methods)))
        axis.set(yticklabels=methods, ylim=(len(methods) - 0.4, -0.6))
        axis.legend(fontsize=7, loc="lower right")
    sns.despine(figure)
    return figure


def differences(table: pd.DataFrame) -> Figure:
    """Each method's difference from LoRA with its 95 % interval, from Table 1: hollow where the interval holds 0.

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
            place, clear = rows.method.map(methods.index), (low > 0) | (high < 0)
            axis.axvline(0, color="0.5", linestyle=":")
            axis.hlines(place, low, high, color="tab:blue")
            axis.scatter(value, place, c=["tab:blue" if c else "white" for c in clear], edgecolor="tab:blue", zorder=3)
            axis.set(yticks=range(len(methods)), yticklabels=methods, ylim=(len(methods) - 0.4, -0.6))
            axis.locator_params(axis="x", nbins=5)
            if value.isna().all():
                axis.text(0.5, 0.5, "no figure", transform=axis.transAxes, ha="center", color="0.5")
        line[0].set_ylabel(dataset)
    for axis, (words, _) in zip(axes[-1], panels.values(), strict=True):
        axis.set_xlabel(words)
    figure.suptitle("Difference from LoRA, 95 % over images within seeds; hollow: the interval holds 0 or is missing")
    sns.despine(figure)
    return figure


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


def save_figure(figure: Figure, folder: Path, name: str) -> Figure:
    """Write a figure to `folder/figures/name.png` and hand it back, for the notebook to show."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "figures" / f"{name}.png", dpi=130)
    plt.close(figure)  # else a notebook shows it a second time
    return figure
