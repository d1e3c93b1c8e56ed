"""SeLoRA at other thresholds (lambda) and intervals (t): python -m selora.study sensitivity --profile mini

Trainings alone, one after the other, on the profile's first data set and seed: their validation losses, sizes and
growth are kept, and nothing is sampled. What is done is read; a killed training goes on.
"""

import argparse
import sys
from itertools import product
from pathlib import Path

import pandas as pd
from safetensors import safe_open

from selora.data import load_examples
from selora.export.tensors import from_diffusers
from selora.files import RESULTS, WEIGHTS, write_text
from selora.study.lock import Busy
from selora.study.preflight import check_needs
from selora.study.profiles import Profile, load_profile
from selora.study.results import Run
from selora.study.trials import Trial, train_trial, trial_of

METHOD = "selora"
FILES = ("sensitivity.csv", "sensitivity_curves.csv")  # in the folder of a profile's results


def why_not(profile: Profile) -> str:
    """Why a profile has no such trainings; '' where it has."""
    if not profile.sensitivity:
        return f"Profile {profile.name} names no thresholds and intervals to try (sensitivity); mini does."
    if not load_examples(profile.datasets[0], "val", profile.data_root):
        return f"{profile.datasets[0]} has no validation images, by which thresholds and intervals could be told apart."
    return ""


def grid(profile: Profile, results: Path) -> list[Trial]:
    """A trial for each pair of a profile's thresholds and intervals."""
    run, tried = Run(profile, profile.datasets[0], METHOD, profile.seeds[0]), profile.sensitivity
    pairs = [dict(zip(tried, values, strict=True)) for values in product(*tried.values())]
    return [trial_of(run, pair, results / profile.name / "sensitivity") for pair in pairs]


def make_grid(profile: Profile, results: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train what is missing of a profile's grid, and write `table` and `curves` of all to its results.

    Raises:
        ValueError: where a folder holds a trial with other settings, or the profile has no grid.
        Busy: where another process is at work on one.
    """
    if reason := why_not(profile):
        raise ValueError(reason)
    trials, steps = grid(profile, results), profile.steps_of(profile.datasets[0])
    if missing := sum(steps not in trial.losses for trial in trials):
        print(f"{missing} trainings of {steps} steps to make, one after the other", flush=True)
    for trial in trials:
        train_trial(trial, steps, {})
    found = table(trials), curves(trials)
    for name, part in zip(FILES, found, strict=True):
        write_text(results / profile.name / name, part.to_csv(index=False, float_format="%.6g"))
    return found


def read_grid(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """What `make_grid` wrote to a folder of results; None where it did not."""
    paths = [folder / name for name in FILES]
    return tuple(map(pd.read_csv, paths)) if all(path.exists() for path in paths) else None


def table(trials: list[Trial]) -> pd.DataFrame:
    """One row per trial: dataset, seed, threshold, interval, steps, val_loss (the least; none where a number died),
    parameters (of the weights that had it), events (layers that grew, each time)."""
    rows = []
    for trial in trials:
        run, history = trial.run, pd.DataFrame(trial.run.rows("history"), columns=["step", "val_loss"])
        sizes = [trial.sizes[f"{network}_params"] for network in ("unet", "text_encoder")]
        grown = sum(test["expanded"] for test in run.rows("expansions"))
        found = {"steps": max(trial.losses), "val_loss": history.val_loss.min(), "parameters": sum(sizes)}
        rows.append({"dataset": run.dataset, "seed": run.seed} | trial.values | found | {"events": grown})
    return pd.DataFrame(rows)


def curves(trials: list[Trial]) -> pd.DataFrame:
    """Parameters of both adapters after each test of each trial, and at the start and the end: threshold, interval,
    step, parameters."""
    rows = []
    for trial in trials:
        tests = pd.DataFrame(trial.run.rows("expansions"))
        if tests.empty:  # a number died before the end
            continue
        sizes = layer_sizes(trial.run.folder / WEIGHTS)
        per_rank = pd.Series([sizes[key] for key in zip(tests.network, tests.layer, strict=True)], tests.index)
        after = (tests["rank"] * per_rank).groupby(tests.step).sum()
        start = trial.run.profile.run_settings(trial.run.dataset, METHOD)["method"]["rank"] * sum(sizes.values())
        points = {0: start, **after, max(trial.losses): after.iloc[-1]}
        rows += [trial.values | {"step": step, "parameters": count} for step, count in points.items()]
    return pd.DataFrame(rows, columns=["threshold", "interval", "step", "parameters"])


def layer_sizes(weights: Path) -> dict[tuple[str, str], int]:
    """d_in + d_out of each layer, named (network, layer), of a file of LoRA weights: its parameters per rank."""
    sizes = {}
    with safe_open(weights, "pt") as file:
        for name in file.keys():  # noqa: SIM118, it is no dictionary
            network, layer, side = from_diffusers(name)
            shape = file.get_slice(name).get_shape()  # A (r, d_in), B (d_out, r)
            sizes[network, layer] = sizes.get((network, layer), 0) + shape[1 if side == "A" else 0]
    return sizes


def main(arguments: list[str] | None = None) -> None:
    """Train a profile's grid, or read what is trained, and print its table."""
    parser = argparse.ArgumentParser(prog="python -m selora.study sensitivity", description="Try lambda and t.")
    parser.add_argument("--profile", default="mini", help="one of the study's, or a .yaml file of your own")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results; without it %(default)s")
    args = parser.parse_args(arguments)
    try:
        profile = load_profile(args.profile, methods=METHOD)
        check_needs(profile, args.results)
        print(make_grid(profile, args.results)[0].to_string(index=False))
    except (OSError, ValueError, Busy) as error:
        sys.exit(f"selora: {error}")
