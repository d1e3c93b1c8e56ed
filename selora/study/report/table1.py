"""Table 1, computed from the result.json files alone."""

from pathlib import Path

import pandas as pd

from selora.data import DATASETS
from selora.files import write_text
from selora.methods import METHODS
from selora.study.report.comparison import BETTER, against, marks
from selora.study.report.table1_text import latex, markdown
from selora.study.results import finished_runs

MEASURED = ("fid", "kid", "kid_clip", "clip", "auroc")
SCORING = ("encoder", "clip", "classifier", "images", "resolution", "base_model", "sampling_steps", "guidance_scale")


def collect(folder: Path) -> pd.DataFrame:
    """The runs of Table 1 in the order of the registries: all but the lambda ablation's.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: where runs were scored in different ways, so that no one table can hold them.
    """
    runs = finished_runs(folder)
    runs = runs if runs.empty else runs[~runs.method.str.contains("@")]
    if runs.empty:
        raise FileNotFoundError(
            f"no finished run in {folder / 'runs'}: run the numbered notebooks, or make run_all, first"
        )
    for name in SCORING:
        found = {settings.get(name) for settings in runs.settings}
        if len(found) > 1:
            raise ValueError(f"runs in {folder / 'runs'} differ in {name} ({found}): move away those that are outdated")
    order = {name: i for i, name in enumerate([*DATASETS, *METHODS])}
    runs = runs.sort_values(["dataset", "method", "seed"], key=lambda c: c.map(order) if c.dtype == "str" else c)
    return runs.reset_index(drop=True)


def table1(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation (n - 1) over seeds (of the time of training the median), one row per data set and
    method, and how methods compare.

    The last columns: of KID, CLIP score and AUROC the difference from LoRA with its interval and p-value (Holm's, over
    the data set's rows; none for LoRA itself), then their marks: 'best', 'tied' or ''.
    """
    rows = []
    for dataset, own in runs.groupby("dataset", sort=False):
        marked = {name: marks(own, name) for name in BETTER}
        from_lora = {name: against(own, "lora", name) for name in BETTER}
        for method, group in own.groupby("method", sort=False):
            row = {"dataset": dataset, "method": method, "n_seeds": len(group)}
            for name in MEASURED:
                row |= {f"{name}_mean": group[name].mean(), f"{name}_std": group[name].std()}
            for name in ("unet_params", "text_encoder_params"):
                row[name] = round(group[name].mean())
            for name in ("unet_pct", "text_encoder_pct"):
                row[name] = group[name].mean()
            row["train_seconds"] = group.train_seconds.median()  # a machine that stalled says nothing of a method
            row["peak_memory_mb"] = group.peak_memory_mb.mean()
            for name, table in from_lora.items():
                found = table.loc[method] if method in table.index else [float("nan")] * len(table.columns)
                columns = (f"{name}_diff", f"{name}_diff_low", f"{name}_diff_high", f"{name}_diff_p")
                row |= dict(zip(columns, found, strict=True))
            row |= {f"{name}_best": marked[name].get(method, "") for name in BETTER}
            rows.append(row)
    return pd.DataFrame(rows)


def write_table1(folder: Path) -> pd.DataFrame:
    """Write table1.csv, table1.md and table1.tex into a profile's results folder, and return the table."""
    runs = collect(folder)
    table = table1(runs)
    write_text(folder / "table1.csv", table.to_csv(index=False))
    write_text(folder / "table1.md", markdown(table, runs))
    write_text(folder / "table1.tex", latex(table, runs))
    return table
