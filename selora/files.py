"""Small records on disk, written so that a reader finds either the old file or the new one, whole."""

import json
import os
from pathlib import Path


def write_json(path: Path, record: dict) -> None:
    """Write a record as readable JSON."""
    write_text(path, json.dumps(record, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text)
    os.replace(partial, path)
