"""Atomic checkpoints: one safetensors file holding named tensors and a JSON record."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from selora.export.tensors import save_tensors


def save_checkpoint(path: Path, tensors: dict[str, torch.Tensor], record: dict) -> None:
    """Write tensors and record, as `save_tensors` does."""
    save_tensors(path, tensors, {"record": json.dumps(record)})


def load_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """The tensors and the record that `save_checkpoint` wrote. Raises ValueError, with its name, for a damaged file."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder, and no checkpoint: remove it to make it anew")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            record = json.loads(file.metadata()["record"])
        if not isinstance(record, dict):
            raise ValueError("it holds no record")
    # of a header that is none, has no record, or one of brackets in brackets
    except (SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}): remove it to make it anew") from error
    return tensors, record


def hash_tensors(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """A hash of the values of some tensors, in their order."""
    digest = hashlib.sha256()
    for tensor in tensors.values():
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.digest()
