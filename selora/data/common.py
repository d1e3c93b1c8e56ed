"""What every data set yields, and how an image becomes a training picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SPLITS = ("train", "val", "test")
RENDERED = Path(__file__).resolve().parents[2] / "data"  # the rendered sets come with the repository
FINDINGS = (
    "normal",
    "cardiomegaly",
    "opacity",
    "nodule",
    "calcified granuloma",
    "pleural effusion",
    "atelectasis",
    "hyperinflation",
    "hypoinflation",
    "scarring",
    "scoliosis",
    "device",
    "cavity",
    "miliary nodules",
    "tuberculosis",
)


class DataError(ValueError):
    """Data that is missing or cannot be used. The message names the file or the choices, and what to do."""


@dataclass(frozen=True)
class Example:
    """One radiograph with the text it belongs to. findings: names out of FINDINGS. places: parallel to them, where each
    is ('left base + right upper'), '' where that is not said; empty for a set that names no places."""

    id: str
    path: Path
    prompt: str
    findings: tuple[str, ...]
    places: tuple[str, ...] = ()


def open_image(path: Path, size: int) -> Image.Image:
    """Reads a radiograph as the paper does: shortest side resized to `size` pixels, centre crop, RGB of 8 bits.

    16-bit images are scaled from their own range. Raises DataError for a missing, corrupt or truncated file.
    """
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
                values = np.asarray(image, dtype=np.float32)
                values = (values - values.min()) / max(float(np.ptp(values)), 1.0)
                image = Image.fromarray(np.uint8(np.rint(values * 255)))
            image = image.convert("L").convert("RGB")  # WebP knows no grey: its channels may differ by one level
    except FileNotFoundError:
        raise DataError(f"Image {path} is missing. Restore it, or take its case out of the set.") from None
    # Pillow raises SyntaxError for some broken PNG files
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"Image {path} cannot be read ({error}). Replace it with an intact copy.") from error
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def check_split(split: str) -> None:
    """Raises DataError for a split that does not exist."""
    if split not in SPLITS:
        raise DataError(f"Unknown split {split!r}. Choose from: {', '.join(SPLITS)}.")
