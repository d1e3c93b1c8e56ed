"""The lambda ablation: SeLoRA's runs by threshold, from their files."""

from pathlib import Path

import pandas as pd

from selora.study.results import finished_runs, folder_of


def ablation_runs(folder: Path) -> pd.DataFrame:
    """The runs of the lambda ablation and SeLoRA's own, one row each by data set, threshold and seed.

    Columns: dataset, method (the name of the run), seed, threshold, parameters and shares and mean ranks of each
    network, kid, fid, clip, auroc, train_seconds. No rows where no such run is finished.
    """
    sizes = [f"{network}_{size}" for network in ("unet", "text_encoder") for size in ("params", "pct", "mean_rank")]
    columns = ["dataset", "method", "seed", "threshold", *sizes, "kid", "fid", "clip", "auroc", "train_seconds"]
    runs = finished_runs(folder)
    if runs.empty:
        return pd.DataFrame(columns=columns)
    runs = runs[runs.method.str.split("@").str[0] == "selora"]
    runs = runs.assign(threshold=[settings["method"]["threshold"] for settings in runs.settings])
    return runs[columns].sort_values(["dataset", "threshold", "seed"]).reset_index(drop=True)


def ranks_by_threshold(runs: pd.DataFrame, folder: Path) -> dict[float, pd.DataFrame]:
    """The ranks of some of `ablation_runs` in a results folder by threshold, of the first seed of each."""
    first = runs.sort_values("seed").drop_duplicates("threshold")
    files = {r.threshold: folder_of(folder, r.dataset, r.method, r.seed) for r in first.itertuples()}
    return {threshold: pd.read_csv(file / "ranks.csv", encoding="utf-8") for threshold, file in sorted(files.items())}
