"""How an image file becomes a training picture: any picture of Pillow's, and DICOM as a viewer shows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .example import DataError, Example


def open_image(path: Path, size: int) -> Image.Image:
    """Reads a radiograph as the paper does: shortest side resized to `size` pixels, centre crop, RGB of 8 bits.

    Any format of Pillow, any mode, turned as its EXIF data says; and DICOM, by its ending (.dcm, .dicom) or its
    preamble. 16-bit images are scaled from their own range. Raises DataError for a missing, corrupt or truncated file.
    """
    try:
        image = (read_dicom if is_dicom(path) else read_picture)(path)
    except DataError:
        raise
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


def load_images(examples: Sequence[Example], size: int) -> np.ndarray:
    """All images of some examples, (N, size, size, 3) uint8; a broken one raises DataError with its name."""
    return np.stack([np.asarray(open_image(example.path, size)) for example in examples])


def is_dicom(path: Path) -> bool:
    """Whether a file's ending or its preamble says DICOM. Raises FileNotFoundError where it is missing."""
    with Path(path).open("rb") as file:
        return Path(path).suffix.lower() in (".dcm", ".dicom") or file.read(132)[128:] == b"DICM"


def read_picture(path: Path) -> Image.Image:
    """A picture in RGB of 8 bits, its whole size. Raises what Pillow raises."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
        image = Image.fromarray(to_8_bits(np.asarray(image, dtype=np.float32)))
    if image.has_transparency_data:  # what lies under a transparent pixel is arbitrary; around a radiograph is black
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return image.convert("L").convert("RGB")  # WebP knows no grey: its channels may differ by one level


def to_8_bits(values: np.ndarray) -> np.ndarray:
    """Values of any range, scaled so that the least is 0 and the greatest 255, as uint8."""
    values = np.asarray(values, dtype=np.float32)
    return np.uint8(np.rint((values - values.min()) / (float(np.ptp(values)) or 1.0) * 255))


def read_dicom(path: Path) -> Image.Image:
    """A DICOM image in RGB of 8 bits, its whole size: rescaled and windowed as the file says, then scaled from its own
    range, and inverted where low values are bright (MONOCHROME1).

    Raises DataError where pydicom or a decoder is not installed, with what to install, and for a file that holds no
    single picture.
    """
    try:
        import pydicom
        from pydicom.pixels import apply_modality_lut, apply_voi_lut
    except ImportError as error:
        raise DataError(f"Image {path} is DICOM, which needs pydicom: pip install pydicom.") from error
    try:
        data = pydicom.dcmread(path)
        check_decoder(path, data)
        pixels = data.pixel_array
        if pixels.ndim == 2:
            pixels = apply_voi_lut(apply_modality_lut(pixels, data), data)
    except (DataError, FileNotFoundError):
        raise
    except Exception as error:  # pydicom and its decoders raise whatever they meet in a broken file
        raise DataError(f"Image {path} cannot be read ({error}). Replace it with an intact copy.") from error
    kind = data.PhotometricInterpretation
    if kind not in ("MONOCHROME1", "MONOCHROME2", "RGB") or pixels.ndim != (3 if kind == "RGB" else 2):
        raise DataError(
            f"Image {path} is {kind} with values of shape {pixels.shape}: only a single grey or RGB picture can be "
            "used. Save it as PNG."
        )
    grey = np.asarray(Image.fromarray(to_8_bits(pixels)).convert("L"))
    return Image.fromarray(255 - grey if kind == "MONOCHROME1" else grey).convert("RGB")


def check_decoder(path: Path, data) -> None:
    """Raise DataError where a pydicom data set is compressed in a way that nothing installed decodes."""
    from pydicom.pixels import get_decoder

    syntax = data.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated and not get_decoder(syntax).is_available:
        raise DataError(
            f"Image {path} is compressed as {syntax.name}, which nothing installed decodes: "
            "pip install 'pylibjpeg[all]' pyjpegls, or save it uncompressed."
        )
