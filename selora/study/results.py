"""A run, and what lies in its folder: the one place that knows where a run's result.json is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from selora.files import RESULTS, read_json
from selora.methods import BUILDS_ON, named
from selora.scoring.labels import mean_auroc
from selora.study.profiles import Profile


@dataclass(frozen=True)
class Run:
    """One run of a study, by what names it. Its method may be a name of the ablation's, as 'selora@1.05'."""

    profile: Profile
    dataset: str
    method: str
    seed: int
    results: Path = RESULTS  # the folder of all profiles' results

    @property
    def folder(self) -> Path:
        """Where the run's files are."""
        return folder_of(self.results / self.profile.name, self.dataset, self.method, self.seed)

    @property
    def record(self) -> Path:
        """The file that is written last: a run that has it is done."""
        return self.folder / "result.json"

    @property
    def checkpoint(self) -> Path:
        """What an interrupted training goes on from."""
        return self.folder / "checkpoint.safetensors"

    @property
    def done(self) -> bool:
        return self.record.exists()

    @property
    def builds_on(self) -> "list[Run]":
        """The runs of the same data set and seed that this one's method reads."""
        return [replace(self, method=needed) for needed in BUILDS_ON.get(named(self.method)[0], ())]

    def result(self) -> dict:
        """What stands in its result.json."""
        return read_json(self.record)

    def table(self, name: str) -> pd.DataFrame:
        """One of its tables: 'history', 'ranks', 'expansions' or 'scores'."""
        return pd.read_csv(self.folder / f"{name}.csv", encoding="utf-8")

    def rows(self, name: str) -> list[dict]:
        """The rows of one of its tables; none where the run has no such table."""
        return self.table(name).to_dict("records") if (self.folder / f"{name}.csv").exists() else []

    def samples(self, ids: Sequence[str]) -> list[Path]:
        """The generated images, by the ids of the examples they were prompted with: PNG, of published runs WebP."""
        paths = [self.folder / "samples" / f"{name}.png" for name in ids]
        kept = {path.name for path in (self.folder / "samples").glob("*.webp")}
        return [webp if (webp := path.with_suffix(".webp")).name in kept else path for path in paths]


def folder_of(results: Path, dataset: str, method: str, seed: int) -> Path:
    """Where a run's files are, below the folder of its profile's results."""
    return results / "runs" / dataset / method / f"seed{seed}"


def finished_runs(folder: Path) -> pd.DataFrame:
    """All finished runs below a profile's results folder, one row each, as their result.json has them.

    Runs made before there was one have an empty `bootstrap`, and no `kid_clip`; `auroc` is the mean over findings.
    """
    runs = [read_json(path) for path in sorted(folder.glob("runs/*/*/*/result.json"))]
    return pd.DataFrame([{"bootstrap": {}, "kid_clip": float("nan"), **run, "auroc": mean_auroc(run)} for run in runs])
