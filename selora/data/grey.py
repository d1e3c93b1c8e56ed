"""The one conversion of values to a picture, and the checks that a file holds all of them; for every format."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

WHOLE = ((0, 0, 1, 1),)  # the passes of a PNG: first column and row, and the steps to the next
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


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
    """Raise ValueError where a chunk's checksum is wrong, the last chunk or some of the pixels missing; Pillow does not
    check all."""
    start, name, packed = 8, b"", []
    while name != b"IEND":
        length, name = int.from_bytes(data[start : start + 4]), data[start + 4 : start + 8]
        end = start + 8 + length
        if len(data) < end + 4 or zlib.crc32(data[start + 4 : end]) != int.from_bytes(data[end : end + 4]):
            raise ValueError(f"its chunk {name.decode('latin-1')!r} at byte {start} is cut or damaged")
        packed += [data[start + 8 : end]] if name == b"IDAT" else []
        start = end + 4
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    bits = depth * {2: 3, 4: 2, 6: 4}.get(colour, 1)
    passes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in (ADAM7 if interlaced else WHOLE)]
    needed = sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in passes if columns > 0 < rows)
    found = len(zlib.decompressobj().decompress(b"".join(packed), needed))
    if found < needed:
        raise ValueError(f"it holds {found:,} of {needed:,} bytes of pixels")


def check_tiff(tags: Mapping[int, Any]) -> None:
    """Raise ValueError where strips or tiles are missing, for which Pillow leaves the picture black."""
    width, height, planes = tags[256], tags[257], tags.get(277, 1) if tags.get(284) == 2 else 1
    if 324 in tags:
        what, sides, offsets = "tiles", (tags[322], tags[323]), tags[324]
    else:
        what, sides, offsets = "strips", (width, tags.get(278, height)), tags.get(273, ())
    needed = planes * -(-width // sides[0]) * -(-height // sides[1])
    found = sum(offset > 0 for offset in offsets)
    if found < needed:
        raise ValueError(f"it holds {found} of {needed} {what}")
    found, needed = sum(tags.get(279, ())), width * height * tags.get(258, (1,))[0] * tags.get(277, 1) // 8
    if tags.get(259, 1) == 1 and tags.get(262) != 6 and 0 < found < needed:  # neither compressed nor subsampled
        raise ValueError(f"it holds {found:,} of {needed:,} bytes of pixels")


def check_jpeg2000(data: bytes) -> None:
    """Raise ValueError where a tile, or a part of one, is missing; Pillow fills such in silence."""
    start = data.find(b"\xff\x4f\xff\x51")
    if start < 0:
        raise ValueError("it holds no codestream")
    right, bottom, _, _, width, height, left, top = struct.unpack_from(">8I", data, start + 8)
    tiles = -(-(right - left) // width) * -(-(bottom - top) // height)
    needed = dict.fromkeys(range(min(tiles, 2**16)), 1)  # numbers of tiles have 16 bits
    at = start + 2
    while data[at : at + 2] != b"\xff\x90" and at < len(data):  # the main header's segments, up to the first part
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    found = Counter()
    while data[at : at + 2] == b"\xff\x90" and at + 12 <= len(data):
        tile, length, _, parts = struct.unpack_from(">HIBB", data, at + 4)
        needed[tile] = parts or needed.get(tile, 1)
        found[tile] += at + length <= len(data)
        at += length or len(data)  # 0: up to the end
    if missing := [tile for tile, parts in needed.items() if found[tile] < parts]:
        raise ValueError(f"{len(missing)} of its {len(needed)} tiles are missing or cut")


def ends_in_zeros(data: bytes) -> bool:
    """Whether the last eighth of a file is zeros: such are the parts of a download that have not come. A picture that
    is not compressed may be black there."""
    return not any(data[-(len(data) // 8) :])
