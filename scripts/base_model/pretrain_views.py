"""Renders the views of the chest CT that the mini base learns findings from. None is a frontal radiograph.

    pip install -e '.[render]'
    python scripts/base_model/pretrain_views.py --cases 3000

Each case is a patient drawn at random with no, one or a few findings, by the same code that renders the study's
cases, but seen otherwise: coronal slabs (means over 28 to 80 mm from front to back, in parallel rays, with linear
windows, some inverted), obliques (turned by 25 to 60 degrees), and laterals. Beside each picture stands what it shows:
its view, and those findings of the case that the view holds. A finding that a slab cuts through or misses is not named.

Blocks of cases go to data/raw/pretrain/views, which is not tracked; a block that is there is skipped. About a second a
case on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from selora.files import RAW

sys.path.append(str(Path(__file__).resolve().parents[1] / "radiographs"))
from chest import CENTRE, SIZE, VOXEL, Chest, Finding
from chest_render import draw_anatomy, draw_grain, expose, shape
from PIL import Image
from pretrain_scenes import level
from tqdm import tqdm

OUT = RAW / "pretrain/views"
BLOCK = 20  # cases a file: what an interruption costs at most
SEED = 5000  # of no set of the study
COUNTS = {0: 0.12, 1: 0.55, 2: 0.23, 3: 0.10}  # findings of a case: mostly one, so that its word has one meaning
SHARES = {  # how often a finding is drawn; large ones more, since they decide a picture early
    "cardiomegaly": 0.13,
    "pleural effusion": 0.17,
    "opacity": 0.17,
    "hyperinflation": 0.09,
    "hypoinflation": 0.10,
    "atelectasis": 0.09,
    "nodule": 0.06,
    "calcified granuloma": 0.05,
    "scarring": 0.04,
    "scoliosis": 0.05,
    "device": 0.05,
}
ZONES = ("", "apex", "upper", "middle", "lower", "base", "hilum", "lingula")
ZONED = ("opacity", "nodule", "calcified granuloma", "scarring")
KINDS = ("pacemaker", "port", "line", "wires", "tube", "clips")
SLABS = 3  # of each case
DEPTH = (28.0, 80.0)  # mm
FIELD = (270.0, 320.0)  # mm, a side of a slab's picture
INVERTED = 0.15  # share of the slabs
TURN = (25.0, 60.0)  # degrees, to either side
HELD = 0.5  # share of a painted finding that a slab has to hold, for the finding to be named
HEART_PLANES = (90.0, 200.0)  # mm from the back, where a slab of more than half its depth shows the heart's width
SPINE_PLANES = (0.0, 90.0)


def draw_findings(rng: np.random.Generator) -> list[Finding]:
    """What one case shows."""
    names = rng.choice(
        list(SHARES), rng.choice(list(COUNTS), p=list(COUNTS.values())), replace=False, p=list(SHARES.values())
    )
    findings = []
    for name in map(str, names):
        if name == "hyperinflation" and "hypoinflation" in names:
            continue  # a chest is the one or the other
        side, zone, kind, severity = "", "", "", int(rng.integers(3))
        if name in ("opacity", "pleural effusion", "atelectasis", "nodule", "calcified granuloma", "scarring"):
            side = str(rng.choice(["left", "right", "both"], p=[0.4, 0.4, 0.2]))
        if name in ZONED:
            zone = str(rng.choice(ZONES))
            side = {"middle": "right", "lingula": "left"}.get(zone, side)
        if name == "opacity" and rng.random() < 0.15:
            side, zone = "both", "diffuse"
        if name == "scoliosis":
            side = str(rng.choice(["left", "right"]))
        if name == "device":
            kind = str(rng.choice(KINDS))
            side = str(rng.choice(["left", "right"])) if kind in ("pacemaker", "port", "line") else ""
        findings.append(Finding(name, side, zone, severity, kind))
    return findings


def held(finding: Finding, changed: torch.Tensor, low: float, high: float) -> bool:
    """Whether a coronal slab from `low` to `high` mm (from the back) shows a finding. changed: see `shape`."""
    planes = torch.arange(len(changed)) * VOXEL
    inside = (planes >= low) & (planes < high)
    if finding.name in ("hyperinflation", "hypoinflation"):
        return True  # every plane has the diaphragm
    if finding.name in ("cardiomegaly", "scoliosis"):
        first, last = HEART_PLANES if finding.name == "cardiomegaly" else SPINE_PLANES
        return min(high, last) - max(low, first) > (high - low) / 2
    return bool(changed[inside].sum() >= HELD * changed.sum() > 0)


def slab(volume: torch.Tensor, low: float, high: float, params: dict, rng: np.random.Generator) -> np.ndarray:
    """A coronal slab as a picture (128, 128), patient's right on its left. volume: see `shape`; low, high: mm."""
    plane = volume[:, int(low / VOXEL) : int(high / VOXEL)].clamp(0, 1.8).mean(1).T.numpy()[::-1]  # head up
    side = rng.uniform(*FIELD) / VOXEL
    x, z = CENTRE[0] + params["shift_x"], CENTRE[2] + params["shift_z"]
    left, top = float(x) / VOXEL - side / 2, plane.shape[0] - float(z) / VOXEL - side / 2
    low_grey, high_grey = np.quantile(plane, [rng.uniform(0.0, 0.1), rng.uniform(0.95, 1)])
    grey = np.clip((plane - low_grey) / (high_grey - low_grey + 1e-6), 0, 1)
    picture = Image.fromarray(grey.astype(np.float32)).transform(
        (SIZE, SIZE), Image.Transform.EXTENT, (left, top, left + side, top + side), Image.Resampling.BICUBIC
    )
    return level(np.asarray(picture) + rng.normal(0, 0.006, (SIZE, SIZE)), rng)


def views(chest: Chest, case: int) -> tuple[list[np.ndarray], list[dict]]:
    """The pictures of one case and what stands beside each: case, view, findings (as dicts)."""
    draw, anatomy, lesion = (np.random.default_rng([SEED, case, stream]) for stream in range(3))
    findings, params = draw_findings(draw), draw_anatomy(draw)
    volume, changed = shape(chest, findings, params, anatomy, lesion)
    pictures, told = [], []

    def add(picture: np.ndarray, view: str, shown: list[Finding]) -> None:
        pictures.append(picture)
        told.append({"case": case, "view": view, "findings": [asdict(f) for f in shown]})

    reach = volume.shape[1] * VOXEL
    for i in range(SLABS):
        depth = draw.uniform(*DEPTH)
        middle = draw.uniform(60, 200)
        if changed and i < 2:  # two of three are laid through a finding
            one = changed[draw.integers(len(changed))]
            if one.sum() > 0:
                middle = draw.choice(
                    len(one), p=(one / one.sum()).double().numpy() / (one / one.sum()).double().sum().item()
                )
                middle = float(middle) * VOXEL + draw.uniform(-depth / 4, depth / 4)
        low = float(np.clip(middle - depth / 2, 20, reach - 20 - depth))
        picture = slab(volume, low, low + depth, params, draw)
        inverted = draw.random() < INVERTED
        shown = [f for f, c in zip(findings, changed, strict=True) if held(f, c, low, low + depth)]
        add(255 - picture if inverted else picture, "inverted coronal" if inverted else "coronal", shown)
    turn = draw.uniform(*TURN) * draw.choice([-1, 1])
    add(
        expose(chest, volume, params, turn, draw_grain(anatomy)),
        "right oblique" if turn > 0 else "left oblique",
        findings,
    )
    if case % 2:
        lateral = expose(chest, volume, params, 90 + params["turn"], draw_grain(anatomy))
        add(lateral, "lateral", [f for f in findings if f.name != "scoliosis"])  # a curve to the side is not seen there
    return pictures, told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--first", type=int, default=0, help="a second process can make the later cases")
    args = parser.parse_args()
    torch.set_num_threads(1)  # two processes of the script then share two cores well
    OUT.mkdir(parents=True, exist_ok=True)
    chest = Chest()
    for start in tqdm(range(args.first, args.cases, BLOCK), unit_scale=BLOCK, unit="case"):
        path = OUT / f"{start:06d}.npz"
        if path.exists():
            continue
        pictures, told = [], []
        for case in range(start, start + BLOCK):
            made, beside = views(chest, case)
            pictures += made
            told += beside
        partial = path.with_suffix(f".{os.getpid()}")
        with partial.open("wb") as file:
            np.savez_compressed(file, pictures=np.stack(pictures), told=json.dumps(told))
        partial.replace(path)


if __name__ == "__main__":
    main()
