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
JPEG_IN_TIFF = 7  # the kind of compression, by its number
CHECKED_BY_LIBTIFF = (1, 5, 8, 32773, 32946, 34925, 50000)  # not compressed, LZW, deflate, PackBits, LZMA, Zstandard
LARGEST = 2**30  # bytes that a file may inflate to
DEFLATED = b"1.2.840.10008.1.2.1.99"  # the transfer syntax
LEAST_HOLE = 64  # zeros; the longest run that any coder but one was seen to write of much black is 16


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
    components, finest = jpeg_scans(data)
    if rough := [name for name in components if not finest.get(name, set()) >= {"first", "last"}]:
        raise ValueError(f"the scans with the details of {len(rough)} of its {len(components)} components are missing")


def jpeg_scans(data: bytes) -> tuple[bytes, dict[int, set[str]]]:
    """The components of a progressive JPEG, and of which its first and last coefficients come to their last bit in some
    scan: scans may be missing without any damage to the others. Of another there are no components."""
    at, components, finest = 2, b"", {}
    while at + 4 <= len(data) and (marker := data[at : at + 2]) != b"\xff\xd9":
        if marker[0] != 0xFF or marker[1] in (0x00, 0xFF, *range(0xD0, 0xD8)):  # a scan's own bytes, or fill
            found = data.find(b"\xff", at + 1)
            at = found if found > 0 else len(data)
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker[1] in (0xC0, 0xC1, 0xC3):  # baseline, extended, lossless: each value stands in one scan
            break
        if marker[1] in (0xC2, 0xCA):  # a progressive frame
            components = data[at + 10 : end : 3]
        if marker[1] == 0xDA:
            count = data[at + 4]
            first, last, bits = data[end - 3 : end]
            for name in data[at + 5 : at + 5 + 2 * count : 2] if not bits & 15 else b"":
                finest.setdefault(name, set()).update([*["first"] * (not first), *["last"] * (last == 63)])
        at = end
    return components, finest


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


def check_tiff(tags: Mapping[int, Any], data: bytes) -> None:
    """Raise ValueError where strips or tiles are missing, for which Pillow leaves the picture black, or damaged in a
    way that libtiff does not report; where black and white are not told apart; and for a small copy of a picture that
    stands elsewhere in the file."""
    if 262 not in tags:
        raise ValueError("it has no PhotometricInterpretation, so that white and black are not told apart; add it")
    if tags.get(254, 0) & 1:
        raise ValueError("its first picture is a small copy of another; save the one that is meant by itself")
    width, height, planes = tags[256], tags[257], tags.get(277, 1) if tags.get(284) == 2 else 1
    if 324 in tags:
        what, sides, offsets, lengths = "tiles", (tags[322], tags[323]), tags[324], tags.get(325, ())
    else:
        what, sides, offsets = "strips", (width, tags.get(278, height)), tags.get(273, ())
        lengths = tags.get(279, ())
    needed = planes * -(-width // sides[0]) * -(-height // sides[1])
    found = sum(offset > 0 for offset in offsets)
    if found < needed:
        raise ValueError(f"it holds {found} of {needed} {what}")
    found, needed = sum(tags.get(279, ())), width * height * tags.get(258, (1,))[0] * tags.get(277, 1) // 8
    if tags.get(259, 1) == 1 and tags.get(262) != 6 and 0 < found < needed:  # neither compressed nor subsampled
        raise ValueError(f"it holds {found:,} of {needed:,} bytes of pixels")
    for offset, length in zip(offsets, lengths, strict=False):
        part = data[offset : offset + length]
        if tags.get(259) == JPEG_IN_TIFF:  # its tables may stand once for all parts
            check_jpeg(tags[347][:-2] + part[2:] if 347 in tags else part)
        elif tags.get(259, 1) not in CHECKED_BY_LIBTIFF:
            check_holes(part)


def check_jpeg2000(data: bytes) -> None:
    """Raise ValueError where a tile, or a part of one, is missing; Pillow fills such in silence."""
    start = data.find(b"\xff\x4f\xff\x51")
    if start < 0:
        raise ValueError("it holds no codestream")
    check_holes(data[start:])
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


def check_holes(data: bytes, longest: int = LEAST_HOLE) -> None:
    """Raise ValueError for a run of so many zeros, which a compressed picture has only where part of it is lost."""
    if (start := data.find(bytes(longest))) >= 0:
        raise ValueError(f"it holds {longest} zeros on end from byte {start} on, as a broken download does")


def check_inflation(data: bytes) -> None:
    """Raise ValueError for a deflated DICOM file that inflates to more than any radiograph."""
    if DEFLATED in data[132:1024]:
        start = 144 + int.from_bytes(data[140:144], "little")  # behind the file's meta information
        inflated = zlib.decompressobj(-zlib.MAX_WBITS)
        inflated.decompress(data[start:], LARGEST)
        if inflated.unconsumed_tail:
            raise ValueError(f"it inflates to more than {LARGEST:,} bytes")


def ends_in_zeros(data: bytes) -> bool:
    """Whether the last eighth of a file is zeros: such are the parts of a download that have not come. A picture that
    is not compressed may be black there."""
    return not any(data[-(len(data) // 8) :])
