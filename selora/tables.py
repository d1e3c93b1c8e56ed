"""Table 1, computed from the result.json files alone."""

import json
from pathlib import Path

import pandas as pd

from selora.data import DATASETS
from selora.files import write_text
from selora.methods import METHODS

MEASURED = ("fid", "kid", "clip", "auroc")


def collect(folder: Path) -> pd.DataFrame:
    """All finished runs below a profile's results folder, one row each, as their result.json has them.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: where runs were scored in different ways, so that no one table can hold them.
    """
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("runs/*/*/*/result.json"))]
    if not runs:
        raise FileNotFoundError(
            f"no finished run in {folder / 'runs'}: run the numbered notebooks, or make run_all, first"
        )
    table = pd.DataFrame(runs).assign(auroc=[mean_auroc(run) for run in runs])
    for name in ("encoder", "images", "resolution", "base_model", "sampling_steps", "guidance_scale"):
        found = {settings.get(name) for settings in table.settings}
        if len(found) > 1:
            raise ValueError(f"runs in {folder / 'runs'} differ in {name} ({found}): move away those that are outdated")
    order = {name: i for i, name in enumerate([*DATASETS, *METHODS])}
    return table.sort_values(["dataset", "method", "seed"], key=lambda c: c.map(order) if c.dtype == "str" else c)


def mean_auroc(figures: dict) -> float:
    """Mean over findings, their sides not counted again; no number where no finding is frequent enough."""
    values = [record["auroc"] for record in figures["findings"] if ", " not in record["finding"]]
    return sum(values) / len(values) if values else float("nan")


def table1(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation (n - 1) over seeds, one row per data set and method."""
    rows = []
    for (dataset, method), group in runs.groupby(["dataset", "method"], sort=False):
        row = {"dataset": dataset, "method": method, "n_seeds": len(group)}
        for name in MEASURED:
            row |= {f"{name}_mean": group[name].mean(), f"{name}_std": group[name].std()}
        for name in ("unet_params", "text_encoder_params"):
            row[name] = round(group[name].mean())
        for name in ("unet_pct", "text_encoder_pct", "train_seconds", "peak_memory_mb"):
            row[name] = group[name].mean()
        rows.append(row)
    return pd.DataFrame(rows)


def markdown(runs: pd.DataFrame) -> str:
    """Table 1 with its caption: encoder, number of images, sampling, and each data set's floor and ceiling."""
    header = [
        "data set",
        "method",
        "seeds",
        "FID ↓",
        "KID x 1000 ↓",
        "CLIP score ↑",
        "finding AUROC ↑",
        "U-Net",
        "text encoder",
        "training",
        "peak memory",
    ]
    lines = [header, ["---"] * len(header)]
    for dataset, rows in table1(runs).groupby("dataset", sort=False):
        for row in rows.itertuples():
            scores = [spread(row.fid_mean, row.fid_std), spread(1000 * row.kid_mean, 1000 * row.kid_std)]
            scores += [spread(row.clip_mean, row.clip_std), spread(row.auroc_mean, row.auroc_std, 3)]
            sizes = [f"{row.unet_params:,} ({row.unet_pct:.2f} %)"]
            sizes += [f"{row.text_encoder_params:,} ({row.text_encoder_pct:.2f} %)"]
            costs = [f"{row.train_seconds:.0f} s", f"{row.peak_memory_mb:.0f} MB"]
            lines.append([dataset, row.method, str(row.n_seeds), *scores, *sizes, *costs])
        bounds = runs[runs.dataset == dataset].iloc[0]
        floor, ceiling, reference = bounds["floor"], bounds["ceiling"], bounds["reference"]
        for words, distance, prompted in (
            ("floor: reference against reference", floor, reference),
            ("ceiling: autoencoder's reconstruction", ceiling, ceiling),
        ):
            scores = [f"{distance['fid']:.1f}", f"{1000 * distance['kid']:.1f}"]
            scores += [f"{prompted['clip']:.1f}", spread(mean_auroc(prompted), float("nan"), 3)]
            lines.append([dataset, f"*{words}*", "", *scores, "", "", "", ""])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n\n" + caption(runs) + "\n"


def caption(runs: pd.DataFrame) -> str:
    """What a reader must know to read Table 1."""
    settings = runs.iloc[0]["settings"]
    counts = ", ".join(f"{rows.n.iloc[0]} for {dataset}" for dataset, rows in runs.groupby("dataset", sort=False))
    return (
        f"Encoder: {settings['encoder']}, an ImageNet network and not Inception: figures compare only within this "
        f"table. Images: {counts}, for the first prompts of the test split, against the images they belong to. "
        f"Guidance scale {settings['guidance_scale']}, SDE-DPM-Solver++ with {settings['sampling_steps']} steps, "
        f"prompt dropout {settings['prompt_dropout']}. Mean ± standard deviation over seeds; one seed has no "
        "deviation. FID of so few images is mostly bias, to be read beside its floor (as many other images of the "
        f"same set); KID is unbiased and the primary figure. CLIP score by {settings['clip']}, a small CLIP trained on "
        "rendered radiographs: 100 x cosine, with an arbitrary zero, so to be read against its value on the reference "
        "images (the floor's row). Finding AUROC: mean over the findings that 8 or more of the prompts have, of a "
        "classifier's scores against what the prompts say; 0.5 is chance. U-Net and text encoder: trainable parameters "
        f"of the weights scored, as a share of adapter and base together. Base model: {settings['base_model']}."
    )


def spread(mean: float, std: float, digits: int = 1) -> str:
    """'113.4 ± 7.9', the mean alone where one seed has no deviation, nothing where there is no number."""
    if pd.isna(mean):
        return "-"
    return f"{mean:.{digits}f}" if pd.isna(std) else f"{mean:.{digits}f} ± {std:.{digits}f}"


def write_table1(folder: Path) -> pd.DataFrame:
    """Write table1.csv and table1.md into a profile's results folder, and return the table."""
    runs = collect(folder)
    table = table1(runs)
    write_text(folder / "table1.csv", table.to_csv(index=False))
    write_text(folder / "table1.md", markdown(runs))
    return table
