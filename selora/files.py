"""Where the repository keeps things, and files written so that a reader finds either the old one or the new, whole."""

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
DATA = REPOSITORY / "data"  # the rendered sets, the mini base and the judges
RAW = DATA / "raw"  # what is fetched; not tracked
CACHE = Path(os.environ.get("SELORA_CACHE") or RAW / "cache")  # what is computed once for all runs
RESULTS = REPOSITORY / "results"
PUBLISHED = RESULTS / "published"  # the reference results, tracked
BEGUN = RESULTS / "begun"  # finished runs of a publication that takes several sittings, tracked
NOTEBOOKS = REPOSITORY / "notebooks"
WEIGHTS = "pytorch_lora_weights.safetensors"  # in a run's folder: LoRA, where diffusers looks for it
FULL = "linear_layers.safetensors"  # and what full fine-tuning leaves


def check_clone(package: str) -> None:
    """Raise ImportError, in one line, where this is an installed copy of selora: the study reads its repository."""
    if not NOTEBOOKS.is_dir():
        # `python -m` shows an error that names the package as one line, without a traceback
        raise ImportError(
            f"{package} needs the study's repository, its data and notebooks, and {REPOSITORY} is none: git clone it "
            "and run make env there. Installed alone, selora is the method: from selora import SeLoRA",
            name=package,
        )


def read_json(path: Path) -> dict:
    """A record that `write_json` wrote, or another tool's. Raises ValueError, with its name, where it is none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}): restore it, or remove it to make it anew") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} is damaged (it holds no record): restore it, or remove it to make it anew")
    return record


def write_json(path: Path, record: dict) -> None:
    """Write a record as readable JSON, a list of numbers on one line."""
    text = json.dumps(record, indent=2) + "\n"
    # No string holds a line break, so what starts with one is a list; without quotes or brackets, one of numbers.
    write_text(path, re.sub(r'\[\n([^][{}"]+)\]', lambda found: f"[{' '.join(found[1].split())}]", text))


def write_text(path: Path, text: str) -> None:
    """Write a text."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` once all is written; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)  # of a full disk, or of an error in between


def hash_file(path: Path) -> str:
    """The SHA-256 of a file's contents, computed once in a process as long as the file stays the same one.

    A time of change (ctime) cannot be set: it differs where a file's contents were replaced and its own time put back.
    """
    stat = path.stat()
    return _hash(path, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@functools.cache
def _hash(path: Path, *stamp: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
