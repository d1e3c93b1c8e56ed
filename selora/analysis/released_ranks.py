"""The ranks that the variants of `released_code` end with: beside each other, and beside other profiles'."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from selora.analysis.released_code import VARIANTS, final_ranks


def directions(audits: Mapping[str, Path]) -> pd.DataFrame:
    """By how much each variant's mean rank is above that of ours in some profiles' audit.csv, a column for each network
    and profile; no columns where no such file is."""
    found = {}
    for profile, path in audits.items():
        if path.exists():
            table = pd.read_csv(path)
            means = table.assign(variant=table.what.str.extract(r"^short training, (.*): mean rank$"))
            ranks = means.dropna(subset="variant").pivot(index="variant", columns="network", values="ours")
            found |= {(network, profile): column - column["ours"] for network, column in ranks.items()}
    return pd.DataFrame(found).sort_index(axis=1).reindex([name for name in VARIANTS if name != "ours"])


def rank_strips(records: pd.DataFrame, title: str) -> Figure:
    """Per network: the rank of each layer (columns, from input to output) under each variant that grows (rows), and the
    shares of layers by rank beside it. Blank: a layer that is not adapted."""
    grown = [name for name, variant in VARIANTS.items() if variant.grows]
    tables = {network: final_ranks(records, network)[grown].T for network in records.network.unique()}
    highest = max(2, int(max(table.max().max() for table in tables.values())))
    figure, axes = plt.subplots(
        len(tables), 2, figsize=(11, 3.2 * len(tables)), layout="constrained", squeeze=False, sharey="row",
        gridspec_kw={"width_ratios": [3, 1]},
    )  # fmt: skip
    colors = sns.color_palette("viridis", highest)
    for (strip, shares), (network, table) in zip(axes, tables.items(), strict=True):
        names = [f"{name} (mean {ranks.mean():.2f})" for name, ranks in table.iterrows()]
        sns.heatmap(
            table, ax=strip, cmap=colors, vmin=0.5, vmax=highest + 0.5, xticklabels=False, yticklabels=names,
            cbar_kws={"label": "rank", "ticks": range(1, highest + 1)},
        )  # fmt: skip
        strip.set(xlabel="layer, from input to output", ylabel="", title=f"{title}: {network}")
        counted = table.apply(lambda ranks: ranks.value_counts(normalize=True), axis=1).fillna(0)
        left = 0.0
        for rank in sorted(counted):
            shares.barh([i + 0.5 for i in range(len(counted))], counted[rank], left=left, color=colors[int(rank) - 1])
            left = left + counted[rank].to_numpy()
        shares.set(xlabel="share of the adapted layers", xlim=(0, 1))
    sns.despine(figure)
    return figure
