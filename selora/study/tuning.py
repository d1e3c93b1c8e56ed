"""Learning rates and scalings of all methods by one protocol: python -m selora.study tune --profile mini

A method gets four trials: four learning rates, or two by two scalings where it has one. All are trained for a fifth of
the steps, the two with the least validation loss to the end. Where the better of them has the least or the largest rate
that was tried, one further rate beyond is trained to the end too. All of iu-drr (montgomery-drr has no validation
images, and takes the choice), with a seed that no scored run has. What is done is read; a killed trial goes on.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import pandas as pd

from selora.figures.tuning import loss_against_rate
from selora.files import RESULTS, write_text
from selora.methods import BUILDS_ON, METHODS, lacks
from selora.study.lock import Busy
from selora.study.preflight import check_needs
from selora.study.profiles import Profile, load_profile
from selora.study.results import Run
from selora.study.shown import shown_figure
from selora.study.trials import Trial, train_trial, trial_of

DATASET, SEED = "iu-drr", 1000
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
GRIDS = {  # what is tried where it is not RATES alone: for other sizes of step, or with a scaling
    "full": {"learning_rate": (1e-4, 3e-4, 1e-3, 3e-3)},
    "vera": {"learning_rate": (1e-2, 3e-2, 1e-1, 3e-1)},
    "adalora": {"learning_rate": (3e-3, 1e-2), "alpha": (32, 96)},
    "increlora": {"learning_rate": (3e-3, 1e-2), "alpha": (32, 96)},
    "elalora": {"learning_rate": (3e-3, 1e-2), "alpha": (6.4, 25.6)},
    "gora": {"learning_rate": (3e-3, 1e-2), "gamma": (0.05, 0.5)},
    "loha": {"learning_rate": (1e-3, 3e-3), "alpha": (1, 4)},
}


def grid(method: str) -> list[dict]:
    """The settings of a method's four trials."""
    tried = GRIDS.get(method, {"learning_rate": RATES})
    return [dict(zip(tried, values, strict=True)) for values in product(*tried.values())]


def make_trial(profile: Profile, method: str, values: dict, results: Path, builds_on: Mapping[str, Trial]) -> Trial:
    """One of tuning's trials by its names; a control's also has the settings of the chosen trials that it builds on."""
    changed = {other: trial.values for other, trial in builds_on.items()}
    return trial_of(Run(profile, DATASET, method, SEED), values, results / profile.name / "tuning", changed)


def tune_method(profile: Profile, method: str, results: Path, builds_on: Mapping[str, Trial]) -> list[Trial]:
    """The trials of a method, the chosen one first, all trained as far as the protocol goes. builds_on: the chosen
    trials of the methods that it builds on, by their names."""
    whole = profile.run_settings(DATASET, method)["steps"]
    first = max(1, whole // 5)
    trials = [make_trial(profile, method, values, results, builds_on) for values in grid(method)]
    for trial in trials:
        train_trial(trial, first, builds_on)
    ends = sorted(trials, key=lambda trial: trial.losses[first])[:2]
    for trial in ends:
        train_trial(trial, whole, builds_on)
    best = min(ends, key=lambda trial: trial.losses[whole])
    if further := beyond([trial.values for trial in trials], best.values):
        trials.append(make_trial(profile, method, further, results, builds_on))
        train_trial(trials[-1], whole, builds_on)
    return sorted(trials, key=lambda trial: trial.losses.get(whole, math.inf))


def beyond(tried: Sequence[dict], best: dict) -> dict | None:
    """The settings of one more trial, a step of the grid beyond the best one's rate; none where that is no end."""
    rates = sorted({values["learning_rate"] for values in tried})
    if best["learning_rate"] not in (rates[0], rates[-1]):
        return None
    near, end = (rates[1], rates[0]) if best["learning_rate"] == rates[0] else rates[-2:]
    return best | {"learning_rate": float(f"{end * end / near:.1g}")}


def table(chosen: dict[str, list[Trial]]) -> pd.DataFrame:
    """One row per trial and length: method, learning_rate, other (settings tried), steps, val_loss (none where it was
    lost), and chosen."""
    rows = []
    for method, trials in chosen.items():
        for trial in trials:
            other = ", ".join(f"{k} {v:g}" for k, v in trial.values.items() if k != "learning_rate")
            for steps, loss in sorted(trial.losses.items()):
                is_chosen = trial is trials[0] and steps == max(trial.losses)
                rows.append((method, trial.values["learning_rate"], other, steps, loss, is_chosen))
    found = pd.DataFrame(rows, columns=["method", "learning_rate", "other", "steps", "val_loss", "chosen"])
    return found.replace({"val_loss": {math.inf: None}})


def lines(profile: Profile, chosen: dict[str, list[Trial]]) -> str:
    """The choices as lines of a profile, each with its reason."""
    found = ["method_settings:   # chosen by validation loss of iu-drr on a seed that is not scored (tuning.csv)"]
    for method, (best, *others) in chosen.items():
        whole = max(best.losses)
        settings = profile.method_settings.get(method, {}) | best.values
        words = ", ".join(f"{name}: {written(value)}" for name, value in settings.items())
        second = [trial for trial in others if whole in trial.losses]
        versus = "".join(f", {t.losses[whole]:.4f} at {said(t.values)}" for t in second)
        found.append(f"  {method}: {{{words}}}   # {best.losses[whole]:.4f}{versus}")
    return "\n".join(found)


def written(value: float | int | str) -> str:
    """A value as YAML reads it back: it takes 1e-3 for text, and 1.0e-03 for a number."""
    return f"{value:.1e}" if isinstance(value, float) and (value < 0.1) else str(value)


def said(values: dict) -> str:
    """Settings in words, as '0.003, alpha 8'."""
    return ", ".join(f"{value:g}" if name == "learning_rate" else f"{name} {value:g}" for name, value in values.items())


def tune(profile: Profile, results: Path) -> dict[str, list[Trial]]:
    """Tune all methods of a profile whose packages are here; tuning.csv and figures/tuning.png are written anew after
    each."""
    folder, chosen = results / profile.name, {}
    methods = [method for method in profile.methods if method != "base" and not lacks(method)]
    needed = [other for method in methods for other in BUILDS_ON.get(method, ())]
    for method in sorted({*methods, *needed}, key=lambda name: (name in BUILDS_ON, list(METHODS).index(name))):
        first = {other: chosen[other][0] for other in BUILDS_ON.get(method, ())}
        chosen[method] = tune_method(profile, method, results, first)
        found = table(chosen)
        write_text(folder / "tuning.csv", found.to_csv(index=False))
        shown_figure(loss_against_rate(found), "tuning", folder)
    return chosen


def main(arguments: list[str] | None = None) -> None:
    """Tune the methods of a profile, or read what was tuned, and print the choices."""
    parser = argparse.ArgumentParser(prog="python -m selora.study tune", description="Choose learning rates.")
    parser.add_argument("--profile", default="mini", help="one of the study's, or a .yaml file of your own")
    parser.add_argument("--methods", default="", help="comma-separated; without it all of the profile's")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results; without it %(default)s")
    args = parser.parse_args(arguments)
    try:
        profile = load_profile(args.profile, datasets=DATASET, methods=args.methods)
        check_needs(profile, args.results)
        print(lines(profile, tune(profile, args.results)))
    except (OSError, ValueError, Busy) as error:
        sys.exit(f"selora: {error}")
