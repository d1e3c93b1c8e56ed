"""Atomic checkpoints: one safetensors file holding named tensors and a JSON record."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from selora.files import replacing


def save_checkpoint(path: Path, tensors: dict[str, torch.Tensor], record: dict) -> None:
    """Write tensors and record so that a reader finds either the old file or the new one, whole. Raises OSError, as of
    a full disk."""
    whole = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with replacing(path) as partial:
        try:
            save_file(whole, partial, {"record": json.dumps(record)})
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written ({error}): make room, and start again to go on") from error


def load_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """The tensors and the record that `save_checkpoint` wrote."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["record"])


def hash_tensors(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """A hash of the values of some tensors, in their order."""
    digest = hashlib.sha256()
    for tensor in tensors.values():
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.digest()
