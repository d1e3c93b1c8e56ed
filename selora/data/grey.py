"""The one conversion of values to a picture, and the checks that a file holds all of them; for every format."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import simplejpeg
from PIL import Image


@contextmanager
def decoding() -> Iterator[None]:
    """While a picture is decoded: a decoder's warning tells of damage, or of more pixels than a radiograph has."""
    with warnings.catch_warnings():
        for kind in (UserWarning, Image.DecompressionBombWarning):
            warnings.simplefilter("error", kind)
        yield


def to_grey(values: np.ndarray, valid=True, span: tuple[float, float] | None = None, inverted=False) -> Image.Image:
    """Values (H, W) of grey, or (H, W, 3) of red, green and blue, of any type, as a grey picture of 8 bits.

    valid: which pixels (H, W) belong to the picture; the others, and those that are not finite, become black.
    span: the values that are shown black and white; by default the least and greatest valid one. inverted: low values
    are bright. Raises ValueError where no pixel is valid.
    """
    values = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(values)
    valid = valid & (finite if values.ndim == 2 else finite.all(-1))
    if not valid.any():
        raise ValueError("it holds no valid pixel")
    low, high = span or (values[valid].min(), values[valid].max())
    shown = np.clip((np.where(finite, values, low) - low) / ((high - low) or 1), 0, 1)
    grey = np.asarray(Image.fromarray(np.uint8(np.rint(255 * shown))).convert("L"))
    return Image.fromarray(np.where(valid, 255 - grey if inverted else grey, np.uint8(0)))


def check_jpeg(data: bytes) -> None:
    """Raise ValueError for a JPEG of which part is missing or damaged; Pillow reads such in silence."""
    inks = simplejpeg.decode_jpeg_header(data)[2] in ("CMYK", "YCCK")
    simplejpeg.decode_jpeg(data, "CMYK" if inks else "GRAY", strict=True)


def check_png(data: bytes) -> None:
    """Raise ValueError where a chunk's checksum is wrong or the last chunk missing; Pillow does not check all."""
    start, name = 8, b""
    while name != b"IEND":
        length, name = int.from_bytes(data[start : start + 4]), data[start + 4 : start + 8]
        end = start + 8 + length
        if len(data) < end + 4 or zlib.crc32(data[start + 4 : end]) != int.from_bytes(data[end : end + 4]):
            raise ValueError(f"its chunk {name.decode('latin-1')!r} at byte {start} is cut or damaged")
        start = end + 4


def ends_in_zeros(data: bytes) -> bool:
    """Whether the last eighth of a file is zeros: such are the parts of a download that have not come. A picture that
    is not compressed may be black there."""
    return not any(data[-(len(data) // 8) :])
