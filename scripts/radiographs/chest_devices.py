"""Implanted devices and lines: metal or plastic put into the chest CT."""

from __future__ import annotations

import math

import numpy as np
import torch
from chest import CENTRE, HEART_CENTRE, VOXEL, Chest, Finding, fill

METAL = 16.0  # density that makes a wire of 2 mm stand out even in front of the spine


def tube(tissue: torch.Tensor, points: list[list[float]], radius: float, density: float) -> None:
    """A curved wire through points given in mm."""
    steps, along = np.linspace(0, 1, len(points)), np.linspace(0, 1, 160)
    degree = min(len(points) - 1, 4)  # a polynomial through few points is smooth, as wires are
    curve = np.stack([np.polyval(np.polyfit(steps, axis, degree), along) for axis in np.array(points, float).T], 1)
    mark = torch.zeros_like(tissue)
    for centre in curve / VOXEL:
        box = tuple(slice(max(int(v) - 2, 0), min(int(v) + 4, n)) for v, n in zip(centre, tissue.shape, strict=True))
        grids = torch.meshgrid(*(torch.arange(s.start, s.stop) for s in box), indexing="ij")
        d = sum((grid - v) ** 2 for grid, v in zip(grids, centre, strict=True)).sqrt() * VOXEL
        mark[box] = torch.maximum(mark[box], torch.sigmoid((radius - d) * 2))
    fill(tissue, mark, density)


def add_device(chest: Chest, tissue: torch.Tensor, finding: Finding, rng: np.random.Generator) -> None:
    """Metal or plastic: a pacemaker with its lead, a port or line to the heart, wires of a sternotomy, or clips."""
    cx, _, cz = CENTRE.tolist()
    hx, hy, hz = HEART_CENTRE.tolist()
    side = finding.side if finding.side in ("left", "right") else ("left" if finding.kind == "pacemaker" else "right")
    sign = 1 if side == "left" else -1

    def j(spread: float) -> float:
        return rng.uniform(-spread, spread)

    vein = [cx - 16 + j(3), hy + 5, cz + 42 + j(4)]  # superior vena cava
    if finding.kind == "pacemaker":
        box = [cx + sign * (78 + j(6)), hy + 50, cz + 88 + j(8)]
        d = ((chest.x - box[0]) / 24).abs() ** 4 + ((chest.y - box[1]) / 5).abs() ** 4
        d = d + ((chest.z - box[2]) / 20).abs() ** 4
        fill(tissue, torch.sigmoid((1 - d) * 6), METAL)
        subclavian, atrium = [cx + sign * 35, hy + 20, cz + 92], [hx - 18, hy + 12, hz + 10]
        tube(tissue, [box, subclavian, vein, atrium, [hx + 30 + j(8), hy + 20, hz - 24 + j(5)]], 1.9, METAL)
    elif finding.kind in ("line", "port"):
        start = [cx + sign * (62 + j(8)), hy + 45, cz + 74 + j(8)]
        if finding.kind == "port":
            d = ((chest.x - start[0]) ** 2 + (chest.z - start[2]) ** 2) / 13**2 + ((chest.y - start[1]) / 6) ** 4
            fill(tissue, torch.sigmoid((1 - d) * 6), 0.5 * METAL)
        else:
            start = [cx + sign * (100 + j(6)), hy + 20, cz + 100 + j(10)]
        subclavian = [cx + sign * 45, hy + 15, cz + 96 + j(4)]
        tube(tissue, [start, subclavian, vein, [cx - 18 + j(3), hy + 8, cz + 5 + j(12)]], 2.4, METAL)
    elif finding.kind == "wires":
        for level in np.linspace(cz + 55, cz - 25, 6):
            ring = [[cx + 8 * math.cos(a) + j(0.5), hy + 48, level + 6 * math.sin(a)] for a in np.linspace(0, 5.5, 9)]
            tube(tissue, ring, 1.8, METAL)
    elif finding.kind == "tube":  # in the windpipe, its end above the carina
        larynx, middle = [cx - 4, hy, cz + 148], [cx - 6 + j(3), hy, cz + 110]
        tube(tissue, [larynx, middle, [cx - 7 + j(3), hy, cz + 52 + j(8)]], 3.0, METAL)
    else:  # clips
        middle = [cx + j(30), hy, cz + 25 + j(30)]
        if finding.zone == "abdomen":  # where the gall bladder was
            middle = [cx + sign * 45 + j(8), hy, cz - 102 + j(6)]
        for _ in range(7):
            x, z = middle[0] + j(22), middle[2] + j(28)
            tube(tissue, [[x - 4, hy, z + j(3)], [x + 4, hy, z + j(3)]], 2.3, METAL)
