"""What a profile needs, looked for before anything runs, so that all that is missing is named at once."""

import tempfile
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HTTPError

from selora.data import load_parts
from selora.data.example import DataError
from selora.data.fetch import sets
from selora.data.fetch.sources import SOURCES
from selora.files import CACHE, REPOSITORY, RESULTS
from selora.scoring import SHIPPED
from selora.study.profiles import Profile

ASKED = 5  # seconds that the hub has to answer


def check_needs(profile: Profile, results: Path = RESULTS) -> None:
    """Look for a profile's models and data sets, down to every file that a set's tables name, and for room to write.

    Raises:
        DataError: with all that is missing, and the commands that get it.
    """
    missing = [*unwritable(results), *missing_models(profile), *missing_encoders(profile), *missing_data(profile)]
    if missing:
        raise DataError(f"Profile {profile.name} cannot run here yet:\n- " + "\n- ".join(missing))


def unwritable(results: Path) -> list[str]:
    """The folders of the results and of the cache, where nothing can be written to them, with why."""
    found = []
    for folder, how in ((results, "name another with --results"), (CACHE, "name another by SELORA_CACHE")):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder) as file:
                file.write(bytes(2**16))
        except OSError as error:  # below a file, a full disk, no permission
            found.append(f"nothing can be written to {folder} ({error.strerror}): {how}")
    return found


def missing_models(profile: Profile) -> list[str]:
    """The profile's base model and CLIP, if they are not whole here and the hub does not offer them now."""
    missing = []
    for setting, file in (("base_model", "model_index.json"), ("clip", "config.json")):
        name = getattr(profile, setting)
        last_part = name.rpartition("/")[2]
        source = [key for key, source in SOURCES.items() if source.hub_id.endswith(f"/{last_part}")]
        folder = REPOSITORY / name
        if folder.is_dir():
            lacking = sets.missing(SOURCES[source[0]], folder.parent) if source else []
            whole = not lacking and (folder / file).exists()
        else:
            whole = on_hub(name, file)
        if not whole:
            how = f"python -m selora.data.fetch {source[0]}" if source else f"hf download {name}, or another {setting}"
            missing.append(
                f"the model {name} ({setting}) is no whole folder, nor can the hub be asked for it: {how} "
                f"(one that lies elsewhere: name its folder as {setting} in the profile)"
            )
    return missing


def on_hub(name: str, file: str) -> bool:
    """Whether a hub id's file is in the hub's cache, or the hub can be asked for it."""
    try:
        if isinstance(huggingface_hub.try_to_load_from_cache(name, file), str):
            return True
        huggingface_hub.model_info(name, timeout=ASKED)
    except (OSError, ValueError, HTTPError):  # no network; no hub id; no such model
        return False
    return True


def missing_encoders(profile: Profile) -> list[str]:
    """The profile's image encoder and classifier of findings, where they are not shipped with the study."""
    if {profile.encoder, profile.classifier} <= {*SHIPPED}:
        return []  # before torch is imported
    from selora.scoring.classifier import make_classifier
    from selora.scoring.encoders import make_encoder

    missing = []
    for make, name in ((make_encoder, profile.encoder), (make_classifier, profile.classifier)):
        try:
            make(name)
        except (OSError, RuntimeError, ValueError) as error:
            missing.append(str(error))
    return missing


def missing_data(profile: Profile) -> list[str]:
    """The profile's data sets that cannot be read, with why."""
    missing = []
    for dataset in profile.datasets:
        try:
            load_parts(dataset, profile.data_root)
        except DataError as error:
            missing.append(f"data set {dataset}: {error}")
    return missing
