"""Training length: who learns faster, and who ends better? The paper's four after fewer steps, and after all of them.

A run of fewer steps is a whole one with the method's own schedule of that length, not the first part of a longer one:
AdaLoRA prunes by the end of it, whenever that is.
"""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from selora.study.beside import runs_of_lengths
from selora.study.profiles import Profile
from selora.study.results import Run

SCORES = {"best_val_loss": ("validation loss", 1), "kid": ("KID x 1000", 1000)}  # of both less is better
COLUMNS = ["dataset", "steps", "method", "seed", *SCORES]


def collect(profile: Profile, results: Path) -> pd.DataFrame:
    """The finished runs of all lengths on the data sets that have some beside them, one row each with `COLUMNS`.

    Args:
        results: the folder of all profiles' results.
    """
    runs = [run for run in [*runs_of_lengths(profile, results), *whole_runs(profile, results)] if run.done]
    rows = [run.result() | {"steps": run.profile.steps_of(run.dataset)} for run in runs]
    return pd.DataFrame(rows, columns=COLUMNS)


def whole_runs(profile: Profile, results: Path) -> list[Run]:
    """The study's own runs that have others beside them."""
    runs = [replace(run, profile=profile, results=results) for run in runs_of_lengths(profile, results)]
    return list({run.folder: run for run in runs}.values())


def curves(profile: Profile, results: Path, dataset: str) -> pd.DataFrame:
    """Validation losses during the finished runs of full length: method, seed, step, val_loss."""
    runs = [run for run in whole_runs(profile, results) if run.done and run.dataset == dataset]
    found = [run.table("history").assign(method=run.method, seed=run.seed) for run in runs]
    columns = ["method", "seed", "step", "val_loss"]
    return pd.concat(found)[columns].dropna() if found else pd.DataFrame(columns=columns)


def by_length(runs: pd.DataFrame) -> pd.DataFrame:
    """Each method's scores after each number of steps, one row per data set, score, steps and method.

    Columns: dataset, score, steps, method, seeds, mean, sd (over seeds), place (by the mean, 1 the best), less LoRA
    (the mean over the seeds that both have) and worse (in how many of them). A score that a data set lacks, as the
    validation loss where it has no validation images, has no rows.
    """
    rows = []
    for dataset, own in runs.groupby("dataset", sort=False):
        for score, (words, unit) in SCORES.items():
            for steps, group in own.dropna(subset=score).groupby("steps"):
                values = {m: unit * found.set_index("seed")[score] for m, found in group.groupby("method", sort=False)}
                places = pd.Series({method: found.mean() for method, found in values.items()}).rank()
                for method, found in values.items():
                    more = (found - values["lora"]).dropna() if "lora" in values else found.iloc[:0]
                    figures = len(found), found.mean(), found.std(), int(places[method])
                    worse = f"{(more > 0).sum()} of {len(more)}" if method != "lora" else ""
                    rows.append((dataset, words, steps, method, *figures, more.mean(), worse))
    columns = ["dataset", "score", "steps", "method", "seeds", "mean", "sd", "place", "less LoRA", "worse"]
    return pd.DataFrame(rows, columns=columns)


def sentence(table: pd.DataFrame) -> str:
    """Does the order of methods after few steps last? The answer of one data set and score, in Markdown.

    Args:
        table: `by_length` of one data set and score.
    """
    dataset, score = table.dataset.iloc[0], table.score.iloc[0]
    means = table.pivot(index="steps", columns="method", values="mean").dropna(axis=1)
    if len(means) < 2 or means.shape[1] < 2:
        return f"On {dataset} it cannot be told by {score}: it takes two methods with two lengths each."
    orders = {tuple(row.sort_values().index) for _, row in means.iterrows()}
    words = "the order of methods is the same at every length" if len(orders) == 1 else "the order changes with length"
    told = "; ".join(f"after {steps} steps {listed(row.sort_values())}" for steps, row in means.iterrows())
    gaps = table[table.method == "selora"].set_index("steps")["less LoRA"].dropna().sort_index()
    gap = ""
    if len(gaps) > 1:
        trend = "gains on" if gaps.iloc[-1] < gaps.iloc[0] else "loses to"
        ends = [f"{gaps[steps]:+.3g} after {steps} steps" for steps in (gaps.index[0], gaps.index[-1])]
        gap = f" SeLoRA {trend} LoRA with training: {' and '.join(ends)}."
    few = f"Seeds: {table.seeds.min()}, too few for an interval, so this is a direction and no proof."
    return f"On {dataset}, by {score}, {words}: {told}.{gap} {few}"


def listed(means: pd.Series) -> str:
    """Methods with their means, the best first, as 'lora (0.51), selora (0.53)'."""
    return ", ".join(f"{method} ({value:.3g})" for method, value in means.items())
