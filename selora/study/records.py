"""The files that a run leaves: its tables, the sizes of its networks, and result.json with where it was made."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from torch import nn

from selora.adapters import kind, ranks, trainable_parameters
from selora.diffusion import machine
from selora.diffusion.finite import NotFinite, dead_numbers
from selora.files import REPOSITORY, write_json
from selora.study.results import Run

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "torchmetrics")
DIGITS = "%.6g"  # of numbers in CSV files: more are noise, and are tracked with the published results


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, its numbers to six digits."""
    table.to_csv(path, index=False, float_format=DIGITS, encoding="utf-8")


def write_ranks(networks: Mapping[str, nn.Module], folder: Path) -> dict:
    """Write ranks.csv, if there are ranks, and return the networks' sizes, of the weights that are scored."""
    rows = [
        {"network": network, "layer": layer, "kind": kind(layer), "rank": rank}
        for network, model in networks.items()
        for layer, rank in ranks(model).items()
    ]
    sizes = {}
    for network, model in networks.items():
        adapter = trainable_parameters(model)
        sizes[f"{network}_params"] = adapter
        sizes[f"{network}_pct"] = 100 * adapter / sum(p.numel() for p in model.parameters())
        own = [row["rank"] for row in rows if row["network"] == network]
        sizes[f"{network}_mean_rank"] = sum(own) / len(own) if own else None
    if rows:
        write_table(pd.DataFrame(rows), folder / "ranks.csv")
    return sizes


def record(run: Run, settings: dict, trained: dict, measured: dict, replicates: dict, costs: dict) -> None:
    """Write result.json, which ends the run.

    Args:
        settings: what determined the run.
        trained: what `loop.train` returned.
        measured: scores of the images and sizes of the networks; replicates: of the scores.
        costs: seconds, memory, and the graphs that torch.compile compiled.

    Raises:
        NotFinite: for a number that is not; nothing is written then.
    """
    if dead := dead_numbers(measured | trained["own"]):
        raise NotFinite(f"numbers of {run.folder} are not finite: {', '.join(dead)}; its samples and weights are kept")
    result = {
        "dataset": run.dataset,
        "method": run.method,
        "seed": run.seed,
        **measured,
        **trained["own"],
        "best_step": trained["best_step"],
        "best_val_loss": trained["best_loss"],
        **costs,
        "settings": settings,
        "device": machine.device_name(),
        "processes": machine.state().num_processes,
        "commit": commit(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in LIBRARIES},
        "bootstrap": replicates,
    }
    write_json(run.record, result)


def commit() -> str:
    """The repository's commit, with '+' where files differ from it; 'unknown' outside a clone."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            cwd=REPOSITORY, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()
