"""One process at a time in a folder of results."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

PATIENCE = 10  # seconds: the kernel of a killed notebook lives on for a few


class Busy(RuntimeError):
    """Another process holds the folder."""


@contextmanager
def alone(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Hold a folder as long as the block runs; the hold ends with its process, however that ends.

    Raises:
        Busy: where another process holds it for longer than `patience` seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        raise Busy(f"another process is at work in {folder}: wait for it, or name another folder of results") from None
    try:
        yield
    finally:
        lock.release()
