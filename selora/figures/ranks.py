"""Figures of ranks: where they went, when, and how that changes with the threshold. Each returns a matplotlib figure.

`ranks` is a table of network, layer, kind, rank and seed: ranks.csv of one or more seeds.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from selora.figures.pictures import COLOURS, MARKERS, titled

PLACES = ("down_blocks", "mid_block", "up_blocks")  # in the order of the signal; a U-Net's own list has mid_block last
NETWORKS = {"text_encoder": "text encoder", "unet": "U-Net"}


def in_order(ranks: pd.DataFrame) -> pd.DataFrame:
    """Layers from input to output."""
    start = ranks.layer.str.partition(".")[0]
    return ranks.iloc[start.map(lambda s: PLACES.index(s) + 1 if s in PLACES else 0).argsort(kind="stable")]


def group(kind: str) -> str:
    """What a kind of weight belongs to: attention is told apart, the rest is one."""
    if kind.endswith("_proj") and not kind.startswith("time"):
        return "attention"  # of the text encoder
    return {"attn1": "self-attention", "attn2": "cross-attention"}.get(kind.partition(".")[0], "other")


def networks_of(table: pd.DataFrame) -> list[str]:
    """The networks a table has, in the figures' order."""
    return [network for network in NETWORKS if network in set(table.network)]


def boundaries(kinds: Sequence[str]) -> list[int]:
    """Where one group of kinds ends and the next begins."""
    return [i for i in range(1, len(kinds)) if group(kinds[i]) != group(kinds[i - 1])]


def by_place(ranks: pd.DataFrame) -> pd.DataFrame:
    """One network's mean rank over seeds: kinds of weight down, the layers of each kind from input to output across."""
    mean = in_order(ranks).groupby(["layer", "kind"], sort=False)["rank"].mean().reset_index()
    mean["place"] = mean.groupby("kind").cumcount()
    order = list(dict.fromkeys(sorted(mean.kind, key=lambda kind: (group(kind) == "other", kind.partition(".")[0]))))
    if "q_proj" in order:  # the text encoder's own order is k, v, q
        order = ["q_proj", "k_proj", "v_proj", *(kind for kind in order if kind[:2] not in ("q_", "k_", "v_"))]
    return mean.pivot(index="kind", columns="place", values="rank").reindex(order)


def draw_map(axis: Axes, table: pd.DataFrame, scale: Normalize, annotate: bool) -> None:
    """A heat map of `by_place`, with a line between attention to itself, to the text, and the rest."""
    # seaborn's heatmap would draw the whole figure, of up to 32 maps, once for each map in it
    cells = axis.pcolormesh(np.ma.masked_invalid(table), cmap="viridis", norm=scale, linewidth=0.3, edgecolor="white")
    axis.set(xlim=(0, table.shape[1]), ylim=(table.shape[0], 0))  # rows from above
    axis.set_xticks(np.arange(table.shape[1]) + 0.5, table.columns)
    axis.set_yticks(np.arange(table.shape[0]) + 0.5, table.index)
    axis.spines[:].set_visible(False)
    if annotate:
        shown = ".0f" if (table.stack().dropna() % 1 == 0).all() else ".1f"  # whole numbers: one seed
        for (row, column), value in np.ndenumerate(table):
            if not np.isnan(value):
                colour = "white" if cells.norm(value) < 0.6 else "black"  # viridis ends bright
                axis.text(column + 0.5, row + 0.5, f"{value:{shown}}", size=7, color=colour, ha="center", va="center")
    for line in boundaries(table.index):
        axis.axhline(line, color="white", linewidth=4)
    axis.set(xlabel="", ylabel="")
    axis.tick_params(axis="y", rotation=0)


def rank_map(ranks: pd.DataFrame, title: str, largest: float | None = None) -> Figure:
    """Fig. 3 of the paper: rank of each layer (mean over seeds) by its place in the network and its kind of weight.

    largest: where the scale of colours ends; without it, at the largest rank there is.
    """
    maps = {network: by_place(ranks[ranks.network == network]) for network in networks_of(ranks)}
    largest = largest or max(table.max().max() for table in maps.values())
    figure, axes = plt.subplots(
        len(maps), 1, figsize=(8, 0.34 * sum(len(m) + 3 for m in maps.values())), layout="constrained",
        gridspec_kw={"height_ratios": [len(m) for m in maps.values()]}, squeeze=False,
    )  # fmt: skip
    for axis, (network, table) in zip(axes[:, 0], maps.items(), strict=True):
        draw_map(axis, table, Normalize(1, max(2, largest)), annotate=True)
        own = ranks[ranks.network == network]
        per_seed = own.groupby("seed")["rank"].mean()
        spread = f" ± {per_seed.std():.2f}" if len(per_seed) > 1 else ""
        axis.set_title(f"{NETWORKS[network]}: mean rank {per_seed.mean():.2f}{spread}")
        means = own.groupby("kind")["rank"].mean()
        axis.set_yticklabels([f"{kind}   mean {means[kind]:.1f}" for kind in table.index])
    axes[-1, 0].set_xlabel("layers of this kind, from input to output")
    figure.colorbar(axes[0, 0].collections[0], ax=axes[:, 0], label="rank", aspect=40, pad=0.02)
    seeds = ranks.seed.nunique()
    figure.suptitle(f"{title}, {'one seed' if seeds == 1 else f'mean over {seeds} seeds'}")
    return figure


def rank_kinds(methods: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """Mean rank of each kind of weight, a point for each seed and a bar for their mean, one colour per method."""
    table = pd.concat({name: in_order(ranks) for name, ranks in methods.items()}, names=["method"]).reset_index(
        "method"
    )
    means = table.groupby(["method", "network", "kind", "seed"], sort=False)["rank"].mean().reset_index()
    networks = networks_of(table)
    orders = [list(by_place(table[table.network == network]).index) for network in networks]
    figure, axes = plt.subplots(
        1, len(networks), figsize=(9, 0.3 * max(map(len, orders)) + 1.2), layout="constrained", squeeze=False,
        sharex=True,
    )  # fmt: skip
    for axis, network, order in zip(axes[0], networks, orders, strict=True):
        own = means[means.network == network]
        shared = dict(x="rank", y="kind", hue="method", order=order, hue_order=list(methods), ax=axis)
        sns.barplot(own, **shared, errorbar=None, alpha=0.5, legend=axis is axes[0, 0])
        for bars, hatch in zip(axis.containers, ("", "////"), strict=False):  # for prints in grey
            for bar in bars:
                bar.set_hatch(hatch)
        sns.stripplot(own, **shared, dodge=True, jitter=False, size=3, linewidth=0.5, edgecolor="black", legend=False)
        for line in boundaries(order):
            axis.axhline(line - 0.5, color="0.6", linewidth=0.8)
        axis.set(xlabel="mean rank of the layers; points are seeds", ylabel="", title=NETWORKS[network])
    sns.move_legend(axes[0, 0], "lower right", title=None, fontsize=8)
    figure.suptitle(title)
    sns.despine(figure)
    return figure


def ranks_over_steps(expansions: pd.DataFrame, title: str) -> Figure:
    """Ranks over training, a panel for each kind of weight: thin lines are layers (mean over seeds), thick their mean.

    Args:
        expansions: step, network, layer, kind, rank, seed: a record for each test.
    """
    panels = [
        f"{NETWORKS[network]}: {kind}"
        for network in networks_of(expansions)
        for kind in by_place(expansions[expansions.network == network]).index
    ]
    tests = expansions.groupby(["network", "kind", "layer", "step"], sort=False)["rank"].mean().reset_index()
    start = tests.drop_duplicates(["network", "layer"]).assign(step=0, rank=1)  # where SeLoRA starts
    table = pd.concat([start, tests], ignore_index=True)
    table = table.assign(panel=table.network.map(NETWORKS) + ": " + table.kind, group=table.kind.map(group))
    shared = dict(x="step", y="rank", drawstyle="steps-post")
    grid = sns.relplot(
        table, **shared, col="panel", col_order=panels, col_wrap=5, units="layer", estimator=None, kind="line",
        color="0.75", linewidth=0.7, height=1.6, aspect=1.2,
    )  # fmt: skip
    colors = dict(zip(("attention", "self-attention", "cross-attention", "other"), COLOURS, strict=False))
    grid.map_dataframe(sns.lineplot, **shared, hue="group", palette=colors, errorbar=None, linewidth=2, legend=False)
    return titled(grid, title)


def ranks_over_time(expansions: pd.DataFrame, threshold: float, title: str) -> Figure:
    """Ranks after each test (mean, and 10 to 90 % of the layers), and the FI-Ratios seen beside the threshold they had
    to reach, per network."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(7, 5), sharex=True, layout="constrained")
    by_network = expansions.groupby("network", sort=False)
    for color, marker, (network, rows) in zip(COLOURS, MARKERS, by_network, strict=False):
        for axis, column in ((top, "rank"), (bottom, "fi_ratio")):
            by_step = rows.groupby("step")[column]
            middle = by_step.mean() if column == "rank" else by_step.median()
            axis.plot(middle.index, middle, color=color, marker=marker, markersize=5, label=NETWORKS[network])
            axis.fill_between(middle.index, by_step.quantile(0.1), by_step.quantile(0.9), color=color, alpha=0.15)
    bottom.axhline(threshold, color="0.3", linestyle="--", linewidth=1, label=f"λ = {threshold:g}: grows from here on")
    top.set(ylabel="rank: mean, 10-90 %", title=title)
    bottom.set(xlabel="step", ylabel="FI-Ratio: median, 10-90 %")
    top.legend()
    bottom.legend(handles=bottom.lines[-1:], fontsize=8)
    sns.despine(figure)
    return figure


def agreement(maps: Mapping[float, pd.DataFrame]) -> pd.DataFrame:
    """Spearman's correlation of the ranks at any two thresholds, over the layers of each network."""
    networks = {
        NETWORKS[name]: {
            f"λ = {threshold:g}": ranks[ranks.network == name].set_index("layer")["rank"]
            for threshold, ranks in maps.items()
        }
        for name in NETWORKS
    }
    return pd.concat({name: pd.DataFrame(ranks).corr("spearman") for name, ranks in networks.items()})


def threshold_maps(maps: Mapping[float, pd.DataFrame], title: str) -> Figure:
    """Rank maps side by side, a column for each threshold, all in one logarithmic colour scale.

    It ends at the largest rank of the maps whose ranks differ: where all layers have grown alike, as they do at a
    threshold of 1, the colour says nothing, and would darken all others.

    Args:
        maps: `ranks` by threshold.
    """
    uneven = [ranks["rank"].max() for ranks in maps.values() if ranks["rank"].nunique() > 1]
    largest = max(ranks["rank"].max() for ranks in maps.values())
    scale = LogNorm(1, max(2, *uneven) if uneven else max(2, largest))
    networks = networks_of(next(iter(maps.values())))
    heights = [next(iter(maps.values())).query("network == @n").kind.nunique() for n in networks]
    figure, axes = plt.subplots(
        len(networks), len(maps), figsize=(1.6 + 1.7 * len(maps), 0.24 * sum(heights) + 1.3), layout="constrained",
        squeeze=False, sharex="row", sharey="row", gridspec_kw={"height_ratios": heights},
    )  # fmt: skip
    for column, (threshold, ranks) in zip(axes.T, sorted(maps.items()), strict=True):
        for axis, network in zip(column, networks, strict=True):
            own = ranks[ranks.network == network]
            draw_map(axis, by_place(own), scale, annotate=False)
            first = f"λ = {threshold:g}\n" if axis is column[0] else ""
            axis.set_title(f"{first}{NETWORKS[network]}, mean {own['rank'].mean():.1f}", fontsize=8)
            axis.set_xticks([])
    ticks = [rank for rank in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32) if rank <= scale.vmax]
    bar = figure.colorbar(
        axes[0, 0].collections[0], ax=axes, label="rank", aspect=40, pad=0.01, ticks=ticks, format="{x:.0f}",
        extend="max" if largest > scale.vmax else "neither",
    )  # fmt: skip
    bar.minorticks_off()
    figure.suptitle(title)
    return figure


def ablation_curves(table: pd.DataFrame) -> Figure:
    """What a threshold costs and brings, a panel for each score, a line for each data set: through the medians over
    seeds, a point for each seed. Of the time of training the median alone, since a machine may have been busy.

    Args:
        table: `report.ablation.ablation_runs`.
    """
    table = table.assign(parameters=table.unet_params + table.text_encoder_params, kid=1000 * table.kid)
    time = "training, seconds (median)"
    panels = {
        "kid": "KID x 1000 ↓",
        "clip": "CLIP score ↑",
        "auroc": "finding AUROC ↑",
        "parameters": "trainable parameters",
        "train_seconds": time,
        "unet_mean_rank": "mean rank, U-Net",
        "text_encoder_mean_rank": "mean rank, text encoder",
    }
    long = table.rename(columns=panels).melt(["dataset", "threshold"], panels.values(), "panel").dropna()
    grid = sns.relplot(
        long, x="threshold", y="value", hue="dataset", style="dataset", markers=True, dashes=False, col="panel",
        col_wrap=4, kind="line", estimator="median", errorbar=None, height=2.3, aspect=1.2,
        facet_kws={"sharey": False},
    )  # fmt: skip
    for name, axis in grid.axes_dict.items():
        for color, (_, rows) in zip(COLOURS, long[long.panel == name].groupby("dataset", sort=False), strict=False):
            if name != time:
                axis.scatter(rows.threshold, rows.value, s=10, color=color, alpha=0.6, linewidth=0)
        if "parameters" in name or "rank" in name:
            axis.set_yscale("log")
    grid.set(xlabel="λ", ylabel="").tick_params(labelsize=8)
    return titled(grid)
