"""How an image file becomes a training picture: Pillow's formats here, DICOM in `dicom`, by one conversion (`grey`)."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .dicom import ENDINGS, is_dicom, read_dicom
from .example import DataError, DataWarning, Example
from .grey import (
    LEAST_HOLE,
    check_holes,
    check_jpeg,
    check_jpeg2000,
    check_png,
    check_tiff,
    decoding,
    ends_in_zeros,
    to_grey,
)

LARGEST_FILE = 2**30  # bytes
LEAST_SIDE = 8  # pixels; less is not even one value of the autoencoder's latents, which stands for 8 x 8
LONGEST_SIDE = 4  # times the other; of more, the crop shows less than a quarter
DEEP = ("I", "I;16", "I;16B", "I;16L", "F")  # Pillow's modes of grey with more than 8 bits
REFUSED = {  # Pillow's formats
    "EPS": "reading would run a program",
    "WMF": "reading would run a program",
    "FITS": "values would be read in another order of bytes",
}
COMPRESSED = ("AVIF", "GIF", "WEBP")  # where black is no run of zeros
NARROW, TAIL = 32, 0.1  # grey levels that a picture spans at least, less a share of its pixels at either end
BITS, PHOTOMETRIC, SAMPLE_FORMAT, NO_DATA = 258, 262, 339, 42113  # tags of TIFF, and some of their values
WHITE_IS_ZERO, SIGNED = 0, 2


def open_image(path: Path, size: int) -> Image.Image:
    """Reads a radiograph as the paper does: shortest side resized to `size` pixels, centre crop, RGB of 8 bits.

    Any format of Pillow, any mode, turned as its EXIF data says; and DICOM, by its ending (.dcm, .dicom) or its
    preamble, as a viewer shows it. Values of 8 bits are taken as they are, deeper ones are scaled from the range of the
    picture's finite ones; padding and what is transparent are black.

    Raises DataError for a missing, damaged, cut or too large file, one that holds several pictures, and what nothing
    installed decodes. Warns (DataWarning) of what is read but looks wrong.
    """
    path = Path(path)
    try:
        image = read_image(path)
        scale = size / min(image.size)
        width, height = (max(size, round(side * scale)) for side in image.size)
        if min(image.size) < LEAST_SIDE or width * height > Image.MAX_IMAGE_PIXELS:
            raise ValueError(f"it is {image.width} x {image.height} pixels, no picture of a chest")
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"Image {path} is missing. Restore it, or take its case out of the set.") from None
    except UnidentifiedImageError as error:
        raise DataError(
            f"Image {path} cannot be read (it is of no format or kind that Pillow knows, or damaged where it says what "
            "it is). Replace it with an intact copy, or save it as grey PNG; DICOM without preamble has to end in .dcm."
        ) from error
    except Exception as error:  # decoders raise whatever they meet in a broken file
        said = " ".join(str(error).split())
        raise DataError(f"Image {path} cannot be read ({said}). Replace it with an intact copy.") from error
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size)).convert("RGB")


def is_picture(path: Path) -> bool:
    """Whether a file's ending is a picture's, or it has none and begins as DICOM."""
    if path.name.startswith(".") or not is_file(path):
        return False
    ending = path.suffix.lower()
    if re.fullmatch(r"\.[a-z]\w*", ending):
        return ending in ENDINGS or Image.registered_extensions().get(ending) in Image.OPEN
    return is_dicom(path)  # '1.2.840.10008' has no ending


def is_file(path: Path) -> bool:
    """Whether there is a file, also where its name is too long for one."""
    try:
        return path.is_file()
    except OSError:
        return False


def read_image(path: Path) -> Image.Image:
    """A picture of any format in grey of 8 bits, its whole size. Raises DataError, or what its decoder raises; a
    decoder's warning is an error."""
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"it has more than {LARGEST_FILE:,} bytes")
    data = path.read_bytes()
    if path.suffix.lower() in ENDINGS or data[128:132] == b"DICM":
        image = read_dicom(path, data)
    else:
        with decoding():
            image = read_picture(data)
    if ends_in_zeros(data):
        warnings.warn(f"Image {path} is suspicious: its file ends in zeros, as a broken download does.", DataWarning, 2)
    elif len(set(image.getextrema())) == 1 and max(image.size) > 1:
        warnings.warn(f"Image {path} is suspicious: all of it is one grey.", DataWarning, 2)
    elif max(image.size) > 1 and spread(image) < NARROW:
        said = "nearly all of it is one grey, as where a few pixels have values far from all others"
        warnings.warn(f"Image {path} is suspicious: {said}.", DataWarning, 2)
    if max(image.size) > LONGEST_SIDE * min(image.size):
        said = f"it is {image.width} x {image.height} pixels, of which only the middle is used"
        warnings.warn(f"Image {path} is suspicious: {said}.", DataWarning, 2)
    return image


def spread(image: Image.Image) -> int:
    """How many grey levels a picture spans, less the TAIL of its pixels at either end."""
    below = np.cumsum(image.histogram()) / (image.width * image.height)
    return int(np.diff(np.searchsorted(below, (TAIL, 1 - TAIL)))[0])


# ---- Pillow's formats -----------------------------------------------------------------------------------------------


def read_picture(data: bytes) -> Image.Image:
    """A picture of one of Pillow's formats in grey of 8 bits. Raises what Pillow raises, and ValueError for what it
    would read in part or wrongly."""
    with Image.open(BytesIO(data)) as opened:
        if opened.format in REFUSED:
            raise ValueError(f"it is {opened.format}, of which {REFUSED[opened.format]}; save it as PNG")
        if (frames := getattr(opened, "n_frames", 1)) > 1:
            raise ValueError(f"it holds {frames} pictures; save the one that is meant by itself")
        if opened.format == "PSD" and opened.mode == "1":
            raise ValueError("it is PSD of 1 bit, whose black would be read as white; save it as PNG")
        if opened.format in ("JPEG", "MPO"):
            check_jpeg(data)
        if opened.format == "PNG":
            check_png(data)
        if opened.format == "JPEG2000":
            check_jpeg2000(data)
        if opened.format == "TIFF":
            check_tiff(opened.tag_v2, data)
        if opened.format in COMPRESSED:
            coded = without_metadata(data, opened)
            lossy = opened.format == "WEBP" and b"VP8 " in data  # of black it writes zeros, a fortieth of a file
            check_holes(coded, max(LEAST_HOLE, len(coded) // 16) if lossy else LEAST_HOLE)
        if opened.format == "TIFF" and opened.info.get("compression", "raw") != "raw" and ends_in_zeros(data):
            raise ValueError("its file ends in zeros, as a broken download does")
        if opened.format == "PPM":
            check_ppm(data, opened)
        tags = dict(opened.tag_v2) if opened.format == "TIFF" else {}
        layout = layout_of(opened)
        key = opened.info.get("transparency")
        if layout in ("L;2", "L;4") and key is not None:  # Pillow spreads the values to 8 bits, and not the key
            key = opened.info["transparency"] = key * (85 if layout == "L;2" else 17)
        if ";16" in layout and opened.mode not in DEEP:  # Pillow would keep the high bytes
            values, valid = read_wide(data, layout)
            return to_grey(values, valid if key is None else valid & (values != key).any(-1))
        check_depth(data, opened)
        image = ImageOps.exif_transpose(opened)
    if (empty := str(tags.get(NO_DATA, "")).strip("\0 ")) and image.mode in (*DEEP, "L"):  # GDAL's name for no value
        key = np.float32(empty) if image.mode == "F" else float(empty)
        if image.mode == "L" and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow turned the values round, not the key
            key = 2 ** tags.get(BITS, (1,))[0] - 1 - key
    signed = tags.get(SAMPLE_FORMAT, (1,))[0] == SIGNED
    if image.mode in DEEP:
        values = np.asarray(image)
        if image.mode == "I" and not signed:
            values = values.view(np.uint32)
        return to_grey(values, True if key is None else values != key, inverted=tags.get(PHOTOMETRIC) == WHITE_IS_ZERO)
    if signed:  # 8 bits, which Pillow takes for unsigned
        values = np.asarray(image).view(np.int8)
        return to_grey(values, True if key is None else values != key, span=(-128, 127))
    if image.mode == "L" and key in range(256):
        image.info["transparency"] = int(key)
    if image.has_transparency_data:  # what lies under a transparent pixel is arbitrary; around a radiograph is black
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return image.convert("L")


def without_metadata(data: bytes, opened: Image.Image) -> bytes:
    """A picture's file without its EXIF data and its like, which may hold any run of zeros."""
    for name in ("exif", "icc_profile", "xmp"):
        if isinstance(some := opened.info.get(name), bytes) and some:
            data = data.replace(some.removeprefix(b"Exif\0\0"), b"")
    return data


def check_ppm(data: bytes, opened: Image.Image) -> None:
    """Raise ValueError where another picture follows in the file, as the format allows."""
    deep = opened.mode in DEEP or any(isinstance(arg, int) and arg > 255 for arg in numbers_of(opened))
    size = opened.width * opened.height * len(opened.getbands()) * (2 if deep else 1)
    if data[:2] in (b"P5", b"P6") and re.match(rb"\s*P[1-7]\s", data[opened.tile[0].offset + size :]):
        raise ValueError("it holds several pictures; save the one that is meant by itself")


def numbers_of(opened: Image.Image) -> tuple:
    """What Pillow's decoder is told of a picture: the mode, or with the greatest value, which may stand alone."""
    args = opened.tile[0].args
    return args if isinstance(args, tuple) else (args,)


def layout_of(opened: Image.Image) -> str:
    """How values lie in the file, as Pillow's decoder calls it: 'RGB;16B'; '' where it does not say."""
    args = opened.tile[0].args if opened.tile else ""
    return next((arg for arg in (args if isinstance(args, tuple) else [args]) if isinstance(arg, str)), "")


def read_wide(data: bytes, layout: str) -> tuple[np.ndarray, np.ndarray]:
    """Colours (H, W, 3), times their opacity, of a picture with 16 bits a channel, and which pixels (H, W) are not
    transparent. Pillow gives one of the two bytes of a value: the first for a layout that ends in B, the second for L.
    """

    def read(wanted: str) -> np.ndarray:
        with Image.open(BytesIO(data)) as opened:
            opened._mode = "RGBA" if wanted == "RGBA" else opened.mode
            swapped = [(wanted, *tile.args[1:]) if isinstance(tile.args, tuple) else wanted for tile in opened.tile]
            opened.tile = [tile._replace(args=args) for tile, args in zip(opened.tile, swapped, strict=True)]
            return np.asarray(ImageOps.exif_transpose(opened)).astype(np.float64)

    if layout == "LA;16B":  # the two bytes of grey and the two of opacity, read as if they were four channels
        four = read("RGBA")
        values = 256 * four[..., ::2] + four[..., 1::2]
        values = values[..., [0, 0, 0, 1]]
    elif layout[:-1] in ("RGB;16", "RGBX;16", "RGBA;16"):
        first, second = read(layout[:-1] + "B"), read(layout[:-1] + "L")
        big_endian = layout[-1] == "B" or layout[-1] == "N" and sys.byteorder == "big"
        values = 256 * first + second if big_endian else 256 * second + first
    else:
        raise ValueError(f"its values lie as {layout}, of which 8 bits would be read; save it in grey")
    opacity = values[..., 3] / 65535 if values.shape[-1] == 4 else np.ones(values.shape[:2])
    return values[..., :3] * opacity[..., None], opacity > 0


def check_depth(data: bytes, opened: Image.Image) -> None:
    """Raise ValueError for more than 8 bits a value of a format of which Pillow would give 8."""
    deep = ";16" in layout_of(opened) or any(tile.codec_name == "SGI16" for tile in opened.tile)
    if opened.format == "TIFF":  # whose planes of colours are called R, G and B, of any depth
        deep = max(opened.tag_v2.get(BITS, (1,))) > 8
    if opened.format == "PPM":
        deep = any(isinstance(arg, int) and arg > 255 for arg in numbers_of(opened))
    if opened.format == "JPEG2000" and (start := data.find(b"\xff\x4f\xff\x51")) >= 0:
        deep = data[start + 42] & 127 > 7  # Ssiz: the first component's bits, less one
    if deep and opened.mode not in DEEP:
        raise ValueError("it has more than 8 bits a value, of which 8 would be read; save it as 16-bit grey PNG")


def load_images(examples: Sequence[Example], size: int) -> np.ndarray:
    """All images of some examples, (N, size, size, 3) uint8; a broken one raises DataError with its name."""
    return np.stack([np.asarray(open_image(example.path, size)) for example in examples])
