"""Is a finished run still the run that would be made now? Its settings, with hashes of the models and data it used."""

import functools
import hashlib
import json
from pathlib import Path

from selora.data import NOT_SHIPPED, SPLITS, load_examples
from selora.data.folders import named_root
from selora.files import DATA, REPOSITORY
from selora.study.results import Run


def settings_of(run: Run) -> dict:
    """What determines the outcome of a run: its profile's settings, the weights of the models, and its data if it is
    not the repository's."""
    profile = run.profile
    settings = profile.run_settings(run.dataset, run.method) | {
        "base_weights": fingerprint(REPOSITORY / profile.base_model),
        "clip_weights": fingerprint(REPOSITORY / profile.clip),
        "classifier_weights": fingerprint(DATA / profile.classifier),
    }
    if run.dataset in NOT_SHIPPED:  # everyone has his own
        settings["data"] = hash_examples(run.dataset, named_root(profile.data_root))
    return settings


def check_settings(folder: Path, wanted: dict) -> None:
    """Raise ValueError where a folder holds a run with other settings than the wanted ones, with what differs."""
    path = folder / "settings.json"
    found = json.loads(path.read_text()) if path.exists() else wanted
    differing = [f"{k}: {found.get(k)} -> {wanted.get(k)}" for k in found | wanted if found.get(k) != wanted.get(k)]
    if differing:
        raise ValueError(
            f"{folder} was made with other settings ({'; '.join(differing)}): "
            "move the folder away to run anew, or undo the change of the profile, the model or the data"
        )


def fingerprint(folder: Path) -> str | None:
    """A short hash of all weights below a folder, so that runs with a replaced model are not taken for finished; None
    for a model that is no folder."""
    files = sorted(folder.rglob("*.safetensors"))
    return hash_files(tuple((file, file.stat().st_mtime_ns) for file in files)) if files else None


@functools.cache
def hash_examples(dataset: str, root: str | None) -> str:
    """A short hash of all ids and prompts of a data set by split, so that a run on another folder's is not taken for
    finished. Read once in a process: reading a large set takes seconds, and a study has dozens of runs."""
    listed = [(split, e.id, e.prompt) for split in SPLITS for e in load_examples(dataset, split, root)]
    return hashlib.sha256(repr(listed).encode()).hexdigest()[:12]


@functools.cache
def hash_files(files: tuple[tuple[Path, int], ...]) -> str:
    """A short hash of the contents of files, read anew only where a file's time of change is another."""
    digest = hashlib.sha256()
    for path, _ in files:
        with path.open("rb") as file:
            while chunk := file.read(2**24):
                digest.update(chunk)
    return digest.hexdigest()[:12]
