"""Trainings of a method with other settings, without samples or scores: what is done is read, a killed one goes on."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from selora.diffusion.finite import NotFinite
from selora.diffusion.method import Earlier
from selora.files import read_json, write_json
from selora.study.fingerprints import check_settings, settings_of
from selora.study.lock import alone
from selora.study.records import write_ranks
from selora.study.results import Run
from selora.study.stages import prepare_training, train_method


@dataclass(frozen=True)
class Trial:
    """A training of a method with other settings, and its losses: by steps, infinite where a number died."""

    run: Run
    values: dict  # the settings that are tried

    @property
    def record(self) -> Path:
        return self.run.folder / "trial.json"

    @property
    def losses(self) -> dict[int, float]:
        found = read_json(self.record)["losses"] if self.record.exists() else {}
        return {int(steps): math.inf if loss is None else loss for steps, loss in found.items()}

    @property
    def sizes(self) -> dict:
        """What `write_ranks` found of its networks; {} before it was trained."""
        return read_json(self.record) if self.record.exists() else {}

    def earlier(self) -> Earlier:
        """What a control reads of it, as of a finished run."""
        return Earlier(read_json(self.record), self.run.rows("expansions"), self.run.rows("ranks"))


def trial_of(run: Run, values: dict, folder: Path, others: Mapping[str, dict] | None = None) -> Trial:
    """A trial of a run's method: its run has a profile of its own, and a folder of its own in that of all trials.

    others: changed settings of further methods, which this one builds on.
    """
    given, changed = run.profile.method_settings, {run.method: values} | (others or {})
    own = {method: given.get(method, {}) | settings for method, settings in changed.items()}
    name = "-".join(f"{key}={value:g}" for key, value in values.items())
    return Trial(replace(run, profile=replace(run.profile, method_settings=given | own), results=folder / name), values)


def train_trial(trial: Trial, steps: int, builds_on: Mapping[str, Trial]) -> None:
    """Train a trial for its first steps, from its checkpoint if there is one, unless that is done.

    Raises:
        ValueError: where its folder holds another trial.
    """
    settings = settings_of(trial.run)
    check_settings(trial.run.folder, settings)
    if steps in trial.losses:
        return
    with alone(trial.run.folder):
        write_json(trial.run.folder / "settings.json", settings)
        earlier = {other: chosen.earlier() for other, chosen in builds_on.items()}
        prepared = prepare_training(trial.run, settings, earlier)
        losses = trial.losses
        try:
            losses[steps] = train_method(trial.run, settings, prepared, steps)["history"][-1]["val_loss"]
        except NotFinite as error:
            print(f"{trial.run.folder}: {error}")
            losses[steps] = math.inf
        known = {steps: None if math.isinf(loss) else loss for steps, loss in losses.items()}
        sizes = write_ranks(prepared.networks, trial.run.folder)
        write_json(trial.record, {"losses": known, "settings": settings, **sizes})
