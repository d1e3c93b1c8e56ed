"""The views of the CT as the base learns from them: their latents, and what stands beside each."""

from __future__ import annotations

import json

import numpy as np
import torch
from pretrain_base import WORK, encode_pictures, load_vae
from pretrain_captions import ABSENT
from pretrain_loop import save

from selora.scoring.classifier import label_matrix

VIEWS = ("coronal", "inverted coronal", "left oblique", "right oblique", "lateral")
FINDINGS = tuple(ABSENT)
KINDS = ("pacemaker", "port", "line", "wires", "tube", "clips")
HELD = 40  # one block in so many is kept for validation: whole cases


def load_views() -> tuple[torch.Tensor, list[dict], np.ndarray]:
    """Latents (n, 4, 16, 16) in fp16, what each view shows (case, view, findings), and which are held out.

    Each block of views that is there is encoded once. Raises FileNotFoundError where there is none.
    """
    blocks = sorted((WORK / "views").glob("*.npz"))
    if not blocks:
        raise FileNotFoundError(f"no views in {WORK / 'views'}: make them with scripts/pretrain_views.py")
    vae, latents, told, held_out = load_vae(), [], [], []
    for block in blocks:
        kept = block.with_suffix(".pt")
        with np.load(block) as stored:
            if not kept.exists():
                save(kept, {"latents": encode_pictures(vae, stored["pictures"])})
            beside = json.loads(str(stored["told"]))
        latents.append(torch.load(kept, weights_only=True)["latents"])
        told += beside
        held_out += [int(block.stem) // 20 % HELD == 0] * len(beside)
    return torch.cat(latents), told, np.array(held_out)


def named(told: list[dict]) -> torch.Tensor:
    """Labels (n, LABELS + VIEWS) of views, 0 and 1 as float."""
    findings = label_matrix(
        [[f["name"] for f in t["findings"]] for t in told], [[f["side"] for f in t["findings"]] for t in told]
    )
    views = torch.tensor([[t["view"] == view for view in VIEWS] for t in told])
    return torch.cat([findings, views], 1).float()
