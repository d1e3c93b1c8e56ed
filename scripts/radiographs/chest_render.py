"""One case: anatomy and acquisition drawn at random, findings shown, radiograph out."""

from __future__ import annotations

import numpy as np
import torch
from chest import CENTRE, HEART_CENTRE, SIZE, Chest, Finding, develop
from chest_findings import breasts, bump, displace, lift, paint


def draw_anatomy(rng: np.random.Generator) -> dict[str, float]:
    """The parameters of one patient and one exposure; none depends on the findings."""
    return {
        "width": rng.uniform(0.9, 1.1),
        "height": rng.uniform(0.95, 1.05),
        "heart": rng.uniform(0.92, 1.08),
        "breast": max(0.0, rng.uniform(-1, 1)),  # size, 0 for none
        "fat": rng.uniform(0.9, 1.15),  # absorption of the whole body
        "breath": rng.uniform(-12, 12),  # mm the diaphragm is higher
        "tilt": rng.uniform(-2.5, 2.5),  # degrees in the image plane
        "nod": rng.uniform(-4, 4),  # degrees
        "turn": rng.uniform(-4, 4),  # degrees
        "shift_x": rng.uniform(-6, 6),  # mm
        "shift_z": rng.uniform(-6, 6),  # mm
        "exposure": rng.uniform(-10, 10),  # mm of water
        "contrast": rng.uniform(0.85, 1.15),
    }


def shape(
    chest: Chest,
    findings: list[Finding],
    params: dict[str, float],
    anatomy: np.random.Generator,
    lesion: np.random.Generator,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """One patient's chest: densities (nx, ny, nz), and how much each finding changed in every coronal plane (ny,):
    zeros for one that only moves tissue. params: see draw_anatomy. `anatomy` draws the deformation, `lesion` what the
    findings leave open: two generators, so that a patient does not depend on the findings."""
    where = chest.grid
    coarse = torch.from_numpy(anatomy.standard_normal((1, 3, 5, 4, 5))).float()
    wobble = torch.nn.functional.interpolate(coarse, where.shape[:3], mode="trilinear", align_corners=True)[0]
    where = where + 5.0 * wobble.permute(1, 2, 3, 0)
    where = CENTRE + (where - CENTRE) / torch.tensor([params["width"], 1.0, params["height"]])
    swell = bump(where, HEART_CENTRE, (78, 80, 60)) * (1 - 1 / params["heart"])
    where = HEART_CENTRE + (where - HEART_CENTRE) * (1 - swell)

    tissue, changed = chest.tissue.clone(), []
    breasts(chest, tissue, params["breast"])
    for finding in findings:
        before = tissue.clone()
        paint(chest, tissue, finding, lesion)
        changed.append((tissue - before).abs().sum((0, 2)))
        where = displace(where, finding, lesion)
    where = lift(where, params["breath"]).float()
    return chest.warp(tissue, where), changed


def expose(chest: Chest, volume: torch.Tensor, params: dict[str, float], turn: float, grain: np.ndarray) -> np.ndarray:
    """The radiograph of a shaped chest, (128, 128) uint8, the patient turned by `turn` degrees from facing the film."""
    angles = np.array([params["tilt"], params["nod"], turn])
    lines = chest.project(volume, angles, np.array([params["shift_x"], params["shift_z"]]))
    return develop(lines * params["fat"], params["exposure"], params["contrast"], grain)


def draw_grain(rng: np.random.Generator) -> np.ndarray:
    """The noise of one exposure."""
    return rng.normal(0, 0.006, (SIZE, SIZE))


def render(
    chest: Chest,
    findings: list[Finding],
    params: dict[str, float],
    anatomy: np.random.Generator,
    lesion: np.random.Generator,
) -> np.ndarray:
    """The frontal radiograph of one case, (128, 128) uint8. Arguments: see `shape`."""
    volume, _ = shape(chest, findings, params, anatomy, lesion)
    return expose(chest, volume, params, params["turn"], draw_grain(anatomy))
