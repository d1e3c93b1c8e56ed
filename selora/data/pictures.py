"""A radiograph from a DICOM file, as a viewer shows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from .example import DataError, to_8_bits


def read(path: Path) -> Image.Image:
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
