"""What each finding does to the chest CT: `paint` adds or removes tissue, `displace` moves it.

Positions are in mm on the axes of `chest.Chest`; densities are relative to water. Sizes are chosen so that a mild
finding can still be seen at 128 pixels, that is at 2.3 mm a pixel in the patient.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from chest import CENTRE, HEART_CENTRE, Chest, Finding, distance, fill
from chest_devices import add_device


def paint(chest: Chest, tissue: torch.Tensor, finding: Finding, rng: np.random.Generator) -> None:
    """Changes `tissue` in place to show a finding. Findings that only move tissue are left to `displace`."""
    if finding.name == "device":
        add_device(chest, tissue, finding, rng)
    elif finding.name in PAINTERS:
        for side in finding.sides:
            PAINTERS[finding.name](chest, tissue, side or str(rng.choice(["left", "right"])), finding, rng)


def displace(where: torch.Tensor, finding: Finding, rng: np.random.Generator) -> torch.Tensor:
    """Moves tissue. where: (nx, ny, nz, 3), for every place of the result the place of the CT shown there, in mm."""
    mover = MOVERS.get(finding.name)
    return mover(where, finding, rng) if mover else where


def opacity(chest: Chest, tissue: torch.Tensor, side: str, finding: Finding, rng: np.random.Generator) -> None:
    """Cloudy soft-edged density, 5 to 8 cm; over a whole lung where the report says so."""
    cloud = (chest.noise(rng, 7) * 0.3 + 0.85).clamp(0, 1)
    if finding.zone == "diffuse":
        amount = 0.34 + 0.06 * finding.severity
        reach = torch.sigmoid((0.85 - chest.height[side]) * 10)
        fill(tissue, amount * reach * chest.side_mask[side] * cloud.square(), 1.0)
        return
    point = chest.spot(rng, side, finding.zone, 12)
    radius = rng.uniform(27, 33) + 4 * finding.severity
    d = distance(chest, point, (radius * rng.uniform(0.9, 1.3), radius * 1.4, radius * rng.uniform(0.8, 1.1)))
    amount = 0.8 + 0.08 * finding.severity
    fill(tissue, amount * torch.sigmoid((1 - d) * 6) * cloud * chest.side_mask[side], 1.0)


def nodule(chest: Chest, tissue: torch.Tensor, side: str, finding: Finding, rng: np.random.Generator) -> None:
    """A round shadow of 19 to 29 mm, denser than tissue so that it also shows beside vessels."""
    radius = rng.uniform(9.5, 12) + 1.2 * finding.severity
    d = distance(chest, chest.spot(rng, side, finding.zone, radius), (radius, radius, radius))
    fill(tissue, torch.sigmoid((1 - d) * 14) * chest.side_mask[side], 2.5)


def granuloma(chest: Chest, tissue: torch.Tensor, side: str, finding: Finding, rng: np.random.Generator) -> None:
    """A calcified speck of 8 to 11 mm: smaller and brighter than a nodule."""
    radius = rng.uniform(4.2, 5.6)
    d = distance(chest, chest.spot(rng, side, finding.zone, 8), (radius, radius, radius))
    fill(tissue, torch.sigmoid((1 - d) * 10) * chest.side_mask[side], 6.0)


def effusion(chest: Chest, tissue: torch.Tensor, side: str, finding: Finding, rng: np.random.Generator) -> None:
    """Fluid at the bottom of one lung. Its upper edge climbs towards the chest wall: the meniscus."""
    mask = chest.side_mask[side]
    rows, columns = mask.any(0).any(0).nonzero() * 2.0, mask.any(1).any(1).nonzero() * 2.0
    span = (columns.max() - columns.min()).item()
    outward = (chest.x - columns.min()) / span if side == "left" else (columns.max() - chest.x) / span
    level = rows.min() + (rows.max() - rows.min()) * (0.25 + 0.07 * finding.severity + rng.uniform(-0.02, 0.04))
    level = level + rng.uniform(35, 50) * outward.clamp(0, 1) ** 3
    fill(tissue, torch.sigmoid((level - chest.z) / 3) * mask, 1.05)


def band(chest: Chest, tissue: torch.Tensor, side: str, zone: str, slope: float, rng: np.random.Generator) -> None:
    """A dense plate seen edge-on: a line of 5 to 9 cm in the radiograph. slope: rise across, towards the outside."""
    point = chest.spot(rng, side, zone, 8)
    outward = 1.0 if side == "left" else -1.0
    across = (chest.z - point[2]) - slope * outward * (chest.x - point[0])
    across = across + 5 * chest.noise(rng, 12)
    thickness, reach = rng.uniform(6, 8), rng.uniform(22, 36)
    d = distance(chest, point, (reach, 34, 60))
    plate = torch.sigmoid((thickness / 2 - across.abs()) * 0.9) * torch.sigmoid((1 - d) * 5)
    fill(tissue, plate * chest.side_mask[side], 1.1)


def atelectasis(chest: Chest, tissue: torch.Tensor, side: str, finding: Finding, rng: np.random.Generator) -> None:
    """Two or three plates low in the lung, and a light density around; `displace` raises the diaphragm."""
    zone = finding.zone if finding.zone not in ("", "lower", "diffuse") else "base"
    for _ in range(2 + finding.severity // 2):
        band(chest, tissue, side, zone, rng.uniform(-0.25, 0.35), rng)
    haze = torch.sigmoid((0.42 - chest.height[side]) * 14) if zone == "base" else 0.4 * torch.ones(1)
    fill(tissue, 0.24 * haze * chest.side_mask[side], 1.0)


def scar(chest: Chest, tissue: torch.Tensor, side: str, finding: Finding, rng: np.random.Generator) -> None:
    """Steep streaks, and a cap of thick pleura where the zone is at the top."""
    sign = rng.choice([-1, 1])
    for _ in range(2 + finding.severity):
        band(chest, tissue, side, finding.zone, sign * rng.uniform(0.7, 2.2), rng)
    if finding.zone in ("apex", "upper"):
        rim = torch.sigmoid((14 - chest.depth) / 2) * torch.sigmoid((chest.height[side] - 0.8) * 30)
        fill(tissue, rim * chest.side_mask[side], 0.9)


def cavity(chest: Chest, tissue: torch.Tensor, side: str, finding: Finding, rng: np.random.Generator) -> None:
    """A thick-walled ring of 4 to 5 cm around air, with some infiltrate outside."""
    radius = rng.uniform(19, 24) + finding.severity
    d = distance(chest, chest.spot(rng, side, finding.zone, 20), (radius, radius, radius))
    mask = chest.side_mask[side]
    fill(tissue, 0.35 * torch.sigmoid((1.7 - d) * 5) * mask, 1.0)
    fill(tissue, torch.sigmoid((1 - d) * 18) * mask, 1.6)
    tissue *= 1 - torch.sigmoid((0.66 - d) * 18) * mask


def miliary(chest: Chest, tissue: torch.Tensor, side: str, finding: Finding, rng: np.random.Generator) -> None:
    """Many soft specks of 3 to 5 mm spread over the lung."""
    seeds = torch.from_numpy(rng.random(tissue.shape, dtype=np.float32)) < 0.0014
    specks = torch.nn.functional.max_pool3d(seeds[None, None].float(), 3, 1, 1)[0, 0]
    fill(tissue, specks * chest.side_mask[side], 1.1)


def emphysema(chest: Chest, tissue: torch.Tensor, side: str, finding: Finding, rng: np.random.Generator) -> None:
    """Both lungs lose tissue and get darker; `displace` pushes the diaphragm down and flattens it."""
    tissue *= 1 - chest.lung * (0.45 + 0.1 * finding.severity)


def breasts(chest: Chest, tissue: torch.Tensor, size: float) -> None:
    """Soft tissue in front of the lower ribs, size 0 (none) to 1."""
    for sign in (-1, 1) if size else ():
        point = CENTRE + torch.tensor([sign * 72.0, 96.0, -30.0])
        d = distance(chest, point, (46.0, 20 + 25 * size, 42.0))
        fill(tissue, torch.sigmoid((1 - d) * 10) * ~chest.lung, 0.9)


def bump(where: torch.Tensor, point: torch.Tensor, radii: tuple[float, float, float]) -> torch.Tensor:
    """1 at a point, flat near it, falling to 0 at a few radii."""
    return torch.exp(-((((where - point) / torch.tensor(radii)) ** 2).sum(-1, keepdim=True) ** 1.5))


def cardiomegaly(where: torch.Tensor, finding: Finding, rng: np.random.Generator) -> torch.Tensor:
    growth = rng.uniform(1.5, 1.62) + 0.12 * finding.severity
    pull = bump(where, HEART_CENTRE, (78, 80, 60)) * torch.tensor([1 - 1 / growth, 0.2, 0.12])
    return where - pull * (where - HEART_CENTRE)


def lift(where: torch.Tensor, amount: float, side: str = "") -> torch.Tensor:
    """Moves the diaphragm by `amount` mm (up if positive), on one side or on both, with all below it."""
    depth = torch.sigmoid((CENTRE[2] - 20 - where[..., 2:]) / 14)
    sign = {"left": 1, "right": -1, "": 0}[side]
    near = torch.sigmoid(sign * (where[..., :1] - CENTRE[0]) / 8) if sign else 1.0
    return where - depth * near * torch.tensor([0.0, 0.0, amount])


def lost_volume(where: torch.Tensor, finding: Finding, rng: np.random.Generator) -> torch.Tensor:
    if finding.side == "both":
        return lift(where, rng.uniform(12, 18))
    return lift(where, rng.uniform(20, 28), finding.side) if finding.side else where


def hyperinflated(where: torch.Tensor, finding: Finding, rng: np.random.Generator) -> torch.Tensor:
    where = lift(where, -rng.uniform(24, 30) - 3 * finding.severity)
    for sign in (-1, 1):  # the domes sink more than the edges: flat
        dome = CENTRE + torch.tensor([sign * 58.0, 10.0, -66.0])
        where = where + bump(where, dome, (46, 90, 45)) * torch.tensor([0.0, 0.0, 16.0])
    narrow = bump(where, HEART_CENTRE, (70, 80, 60)) * torch.tensor([0.22, 0.0, 0.0])
    return where + narrow * (where - HEART_CENTRE)


def hypoinflated(where: torch.Tensor, finding: Finding, rng: np.random.Generator) -> torch.Tensor:
    return lift(where, rng.uniform(33, 40) + 4 * finding.severity)


def scoliosis(where: torch.Tensor, finding: Finding, rng: np.random.Generator) -> torch.Tensor:
    """The spine bends to one side in the middle of the chest and back below. A curve is named by where it bulges."""
    sign = {"left": 1, "right": -1}.get(finding.side) or rng.choice([-1, 1])
    phase = (where[..., 2:] - CENTRE[2] - rng.uniform(-15, 15)) / rng.uniform(250, 300)
    curve = sign * (rng.uniform(14, 18) + 3 * finding.severity) * torch.cos(2 * math.pi * phase)
    near = torch.exp(-(((where[..., :1] - CENTRE[0]) / 80) ** 4))
    return where - near * curve * torch.tensor([1.0, 0.0, 0.0])


PAINTERS = {
    "opacity": opacity,
    "nodule": nodule,
    "calcified granuloma": granuloma,
    "pleural effusion": effusion,
    "atelectasis": atelectasis,
    "hyperinflation": emphysema,
    "scarring": scar,
    "cavity": cavity,
    "miliary nodules": miliary,
}
MOVERS = {
    "cardiomegaly": cardiomegaly,
    "atelectasis": lost_volume,
    "hyperinflation": hyperinflated,
    "hypoinflation": hypoinflated,
    "scoliosis": scoliosis,
}
