"""The real data and models of the paper's scale: python -m selora.data.fetch NAME [--to FOLDER]

Runs read what lies on the disk. Only the encoders and classifiers of the paper's scale (Inception, torchxrayvision's,
RAD-DINO) fetch their own weights, when they are first used.
"""

from pathlib import Path

import huggingface_hub
import pandas as pd
from huggingface_hub.errors import HTTPError

from selora.data.example import DataError
from selora.data.fetch.sources import SOURCES, Archive, Source
from selora.data.fetch.transfer import check_space, download_file, unpack
from selora.files import RAW


def fetch(name: str, folder: Path = RAW) -> None:
    """Fetch a set into a folder, going on where an earlier call was broken off; a whole set is left as it is.

    Raises:
        DataError: for an unknown name, with the choices; for too little space; for what cannot be fetched, with what to
            do by hand.
    """
    if name not in SOURCES:
        raise DataError(f"Unknown set {name!r}. Choose from: {', '.join(SOURCES)}.")
    source = SOURCES[name]
    if not missing(source, folder):
        print(f"{name} is already in {folder}")
        return
    by_hand = f"By hand: {source.by_hand} All goes into {folder}; then run the command again."
    if not (source.archives or source.hub_id):
        raise DataError(f"{name} cannot be fetched by a program. {by_hand}")
    if source.hub_id and huggingface_hub.is_offline_mode():
        raise DataError("HF_HUB_OFFLINE is set, which keeps the hub away: set HF_HUB_OFFLINE=0 for this command.")
    check_space(folder, space_needed(source, folder))
    print(f"{name}: {source.what}. Terms: {source.terms}.", flush=True)
    try:
        if source.hub_id:
            fetch_from_hub(source, folder)
        for archive in source.archives:
            fetch_archive(archive, folder)
    except DataError as error:
        raise DataError(f"{error} {by_hand}") from error
    if lacking := missing(source, folder):
        unpacked = " and ".join(str(folder / archive.folder) for archive in source.archives)
        anew = f"Remove {unpacked} and run the command again to fetch it anew. " if unpacked else ""
        raise DataError(f"{name} is incomplete: {'; '.join(lacking)}. {anew}{by_hand}")
    print(f"{name} is in {folder}")


def present(source: Source, folder: Path) -> dict[str, int]:
    """How many files of each of a set's patterns a folder has."""
    return {pattern: len(list(folder.glob(pattern))) for pattern in source.holds}


def missing(source: Source, folder: Path) -> list[str]:
    """What a set lacks in a folder, as 'pattern: found of wanted'; nothing for a whole set."""
    found = present(source, folder)
    return [f"{p}: {found[p]} of {wanted}" for p, wanted in source.holds.items() if found[p] < wanted]


def space_needed(source: Source, folder: Path) -> int:
    """Bytes that fetching a set still takes at the most: what is to come, and what it unpacks to."""
    gigabytes = source.size
    kept = [folder / source.hub_id.rpartition("/")[2]] if source.hub_id else []
    for archive in source.archives:
        if not (folder / archive.folder).exists():
            gigabytes += archive.size + archive.unpacked
            kept += folder.glob(f"{Path(archive.url).name}*")  # the archive, or the part of it that has come
    files = [file for path in kept for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
    return max(0, round(gigabytes * 1e9) - sum(file.stat().st_size for file in files))


def fetch_archive(archive: Archive, folder: Path) -> None:
    """Fetch and unpack an archive, and remove it; one that lies in the folder already is taken as it is."""
    if (folder / archive.folder).exists():
        return
    path = folder / Path(archive.url).name
    if not path.exists():
        download_file(archive.url, path, archive.sha256)
    print(f"unpacking {path.name}", flush=True)
    unpack(path, folder / archive.folder)
    path.unlink()


def fetch_from_hub(source: Source, folder: Path) -> None:
    """Fetch a model's files; huggingface_hub resumes by itself. Raises DataError where the hub cannot be reached."""
    target = folder / source.hub_id.rpartition("/")[2]
    files = [pattern.removeprefix(f"{target.name}/") for pattern in source.holds]
    try:
        huggingface_hub.snapshot_download(
            source.hub_id, revision=source.revision, local_dir=target, allow_patterns=files
        )
    except (OSError, HTTPError) as error:
        raise DataError(f"{source.hub_id} could not be fetched ({error}). Run the command again to go on.") from error


def overview(folder: Path = RAW) -> pd.DataFrame:
    """All sets: what each is, its terms and size, how to get it, and how much of it is in the folder."""
    rows = {
        name: {
            "what": source.what,
            "terms": source.terms,
            "GB": round(source.gigabytes, 1),
            "command": f"python -m selora.data.fetch {name}" if source.archives or source.hub_id else source.by_hand,
            "here": f"{sum(present(source, folder).values()):,} of {sum(source.holds.values()):,} files",
        }
        for name, source in SOURCES.items()
    }
    return pd.DataFrame(rows).T
