"""A radiograph from a DICOM file, as a viewer shows it."""

from __future__ import annotations

import math
import warnings
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .example import DataError, DataWarning
from .grey import check_inflation, check_jpeg, check_jpeg2000, decoding, to_grey
from .texts import is_stand_in

if TYPE_CHECKING:  # it is needed for DICOM alone
    from pydicom.dataset import Dataset

ENDINGS = (".dcm", ".dicom")

Span = tuple[float, float] | None  # the values that are shown black and white; None: the picture's least and greatest


def read_dicom(path: Path, data: bytes) -> Image.Image:
    """A DICOM picture in grey of 8 bits, with square pixels: rescaled, windowed and turned to P-values as PS3.3 C.11
    says, without its padding.

    Raises DataError where pydicom or a decoder is not installed, with what to install, and for what holds no single
    picture; else what pydicom raises.
    """
    try:
        import pydicom
        from pydicom.pixels import get_decoder
    except ImportError as error:
        raise DataError(f"Image {path} is DICOM, which needs pydicom: pip install pydicom.") from error
    check_inflation(data)
    file = pydicom.dcmread(BytesIO(data), force=True)  # forced: some have no preamble
    if not any(f"{prefix}PixelData" in file for prefix in ("", "Float", "DoubleFloat")):
        raise ValueError("it holds no pixel data" + "; is it a DICOM file?" * (data[128:132] != b"DICM"))
    syntax = file.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        implicit, little = file.original_encoding
        explicit = pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian
        syntax = pydicom.uid.ImplicitVRLittleEndian if implicit else explicit
        file.file_meta.TransferSyntaxUID = syntax
    decoder = get_decoder(syntax)
    # Pillow's decoder takes JPEG of 8 bits alone
    deep_jpeg = syntax == pydicom.uid.JPEGExtended12Bit and (file.get("BitsStored") or 8) > 8
    if syntax.is_encapsulated and (not decoder.is_available or deep_jpeg and decoder.available_plugins == ("pillow",)):
        raise DataError(
            f"Image {path} is compressed as {syntax.name}, which nothing installed decodes: "
            "pip install 'pylibjpeg[all]' pyjpegls, or save it uncompressed."
        )
    unfold(file)
    if isinstance(high := file.get("HighBit"), int) and high >= (file.get("BitsStored") or 8 * 2**8):
        raise ValueError(f"its values lie in other bits (HighBit {high}) than the lowest {file.BitsStored}")
    kind = str(file.get("PhotometricInterpretation") or "").strip().upper()
    if not kind:
        raise ValueError("it has no PhotometricInterpretation, so that white and black are not told apart; add it")
    file.PhotometricInterpretation = kind
    if missing := [name for name in ("Rows", "Columns") if not file.get(name)]:
        raise ValueError(f"it does not say its {' and '.join(missing)}; add them")
    if kind.startswith("MONOCHROME") and (file.get("SamplesPerPixel") or 1) != 1:
        raise ValueError(f"it is {kind} with {file.SamplesPerPixel} values a pixel; save it as PNG")
    if "NumberOfFrames" in file and not file.NumberOfFrames:
        del file.NumberOfFrames  # 0 or empty: one, of which pydicom would warn
    frames, shape = int(file.get("NumberOfFrames") or 1), (file.Rows, file.Columns)
    if frames > 1:
        raise DataError(
            f"Image {path} is {kind} with values of shape {(frames, *shape)}: only a single picture can be used. Save "
            "the frame that is meant as PNG."
        )
    if np.prod(shape, dtype=float) > Image.MAX_IMAGE_PIXELS:
        raise ValueError(f"it is {shape[1]} x {shape[0]} pixels, more than any radiograph")
    if syntax in (pydicom.uid.JPEGBaseline8Bit, pydicom.uid.JPEGExtended12Bit) and file.BitsStored <= 8:
        for frame in pydicom.encaps.generate_frames(file.PixelData, number_of_frames=1):
            check_jpeg(frame)
    if syntax in (pydicom.uid.JPEG2000, pydicom.uid.JPEG2000Lossless):
        for frame in pydicom.encaps.generate_frames(file.PixelData, number_of_frames=1):
            check_jpeg2000(frame)
    if exceeds(file):
        said = f"values have more bits than the {file.BitsStored} that BitsStored says, which alone are shown"
        warnings.warn(f"Image {path} is suspicious: {said}.", DataWarning, 2)
    with decoding():
        stored, found = decoder.as_array(file)
    image = shown(file, stored, str(found["photometric_interpretation"]))
    height = round(image.height * pixel_aspect(file))
    return image if height == image.height else image.resize((image.width, height), Image.Resampling.LANCZOS)


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its ending or its preamble."""
    if path.suffix.lower() in ENDINGS:
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


@cache
def naming(path: Path, stamp: tuple[int, int]) -> dict[str, str]:
    """Whose a DICOM file is by its header: 'patient', 'study' and 'image', each '' where it does not say. stamp: when
    the file changed, since this is kept as long as the process runs."""
    try:
        import pydicom

        tags = ("PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID", "AccessionNumber", "SOPInstanceUID")
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=[*tags])
        patient, name, born, study, accession, image = (str(header.get(tag) or "").strip() for tag in tags)
    except Exception:  # `read_dicom` says what is the matter with it
        return {}
    by_name = f"{name} {born}" if name and born and not is_stand_in(name) else ""
    return {"patient": patient or by_name, "study": study or accession, "image": image}


def shown(file: Dataset, stored: np.ndarray, kind: str) -> Image.Image:
    """The stored values (H, W) or (H, W, 3) of a file as a picture. kind: their photometric interpretation."""
    bits = file.get("BitsStored") or 8 * stored.itemsize
    if kind == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        colours = apply_color_lut(stored, file)
        return to_grey(colours, span=(0, 255 if colours.max() <= 255 else 65535))  # some write 8 bits as 16
    if kind == "RGB":
        return to_grey(stored, span=(0, 2**bits - 1) if bits <= 8 else None)
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(f"it is {kind} with values of shape {stored.shape}; save it as PNG")
    values, span = rescaled(file, stored, bits)
    values, span = windowed(file, values, span)
    inverted = kind == "MONOCHROME1" or str(file.get("PresentationLUTShape") or "").strip().upper() == "INVERSE"
    return to_grey(values, ~padding(file, stored, bits), span, inverted)


def unfold(file: Dataset) -> None:
    """Give an enhanced DICOM file's rescaling, window and spacing the place that they have in others: there they stand
    in functional groups."""
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in (file.get(groups) or [])[:1]:
            for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence", "PixelMeasuresSequence"):
                for element in (element for item in (group.get(name) or [])[:1] for element in item):
                    file.add(element)


def padding(file: Dataset, stored: np.ndarray, bits: int) -> np.ndarray:
    """Which stored values (H, W) fill the picture up to a rectangle, by PixelPaddingValue and its RangeLimit."""
    for prefix in ("", "Float", "DoubleFloat"):
        if first := numbers(file, f"{prefix}PixelPaddingValue"):
            last = numbers(file, f"{prefix}PixelPaddingRangeLimit") or first
            ends = [first[0], last[0]]
            if stored.dtype.kind in "iu":  # written as signed or unsigned, whatever the pixels are
                below = 2 ** (bits - 1) if stored.dtype.kind == "i" else 0
                kept = [(end + below) % 2**bits - below for end in ends]
                words = words_of(file)
                if ends[0] == ends[1] and (kept[0] - ends[0]) % 2**16 and words.size >= stored.size:
                    beyond = words[: stored.size].reshape(stored.shape) == ends[0] % 2**16
                    if beyond.any():  # a word with more bits than are stored, which no pixel has
                        return beyond
                ends = kept
            return (stored >= min(ends)) & (stored <= max(ends))
    return np.zeros(stored.shape, dtype=bool)


def rescaled(file: Dataset, stored: np.ndarray, bits: int) -> tuple[np.ndarray, Span]:
    """Stored values (H, W) by the Modality LUT, or slope and intercept; and what those of 8 bits or less span."""
    if table := file.get("ModalityLUTSequence"):
        values, span = looked_up(table[0], stored, file)
        return values, span if bits <= 8 else None
    slope, intercept = (numbers(file, f"Rescale{name}") for name in ("Slope", "Intercept"))
    slope = slope[0] if slope and slope[0] else 1.0  # 0 would make all values one
    values = stored * slope + (intercept[0] if intercept else 0.0)
    if bits > 8 or stored.dtype.kind not in "iu":
        return values, None
    lowest = -(2 ** (bits - 1)) if stored.dtype.kind == "i" else 0
    ends = [slope * end + (intercept[0] if intercept else 0.0) for end in (lowest, lowest + 2**bits - 1)]
    return values, (min(ends), max(ends))


def windowed(file: Dataset, values: np.ndarray, span: Span) -> tuple[np.ndarray, Span]:
    """Values (H, W) by the first VOI LUT, else by the first window that is one; and what is shown black and white."""
    if table := file.get("VOILUTSequence"):
        return looked_up(table[0], values, file)
    function = str(file.get("VOILUTFunction") or "LINEAR").strip().upper()
    centres, widths = (places(file, f"Window{name}") for name in ("Center", "Width"))
    for centre, width in zip(centres, widths, strict=False):
        if not math.isfinite(centre + width):
            continue
        if function == "LINEAR" and width >= 1:
            return values, (centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)
        if function == "LINEAR_EXACT" and width > 0:
            return values, (centre - width / 2, centre + width / 2)
        if function == "SIGMOID" and width > 0:
            return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700))), (0.0, 1.0)
    return values, span


def looked_up(table: Dataset, values: np.ndarray, file: Dataset) -> tuple[np.ndarray, tuple[float, float]]:
    """Values (H, W) by a LUT (PS3.3 C.11.1.1) of a file, and the least and greatest of its entries."""
    count, first, _ = (int(part) for part in table.LUTDescriptor)
    entries = table.LUTData
    if isinstance(entries, bytes):
        wide = f"{order_of(file)}u2"
        entries = np.frombuffer(entries, wide if len(entries) >= 2 * (count or 2**16) else "u1")
    entries = np.asarray(entries)[: count or 2**16]
    if len(entries) < (count or 2**16):
        raise ValueError(f"its LUT has {len(entries)} of {count or 2**16} entries")
    if first >= 2**15 and values.min() < 0:  # a signed number, written as unsigned
        first -= 2**16
    places = np.clip(np.rint(values) - first, 0, len(entries) - 1).astype(int)
    return entries[places], (float(entries.min()), float(entries.max()))


def pixel_aspect(file: Dataset) -> float:
    """How much higher than wide a pixel is. Raises ValueError for what no detector has."""
    for name in ("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        if len(sides := numbers(file, name)) == 2 and min(sides) > 0:
            if not 0.1 <= (aspect := sides[0] / sides[1]) <= 10:
                raise ValueError(f"its {name} is {sides[0]:g} to {sides[1]:g}")
            return aspect if abs(aspect - 1) > 0.01 else 1.0  # less is rounding
    return 1.0


def numbers(file: Dataset, name: str) -> list[float]:
    """The finite numbers of an element; none where it is missing or empty."""
    return [number for number in places(file, name) if math.isfinite(number)]


def places(file: Dataset, name: str) -> list[float]:
    """The numbers of an element, each in its place: an empty one is no number."""
    value = file.get(name)
    several = [value] if value is None or isinstance(value, (str, float, int)) else value
    return [math.nan if v in (None, "") else float(v) for v in several]


def order_of(file: Dataset) -> str:
    """The order of bytes in a file's words."""
    return "<" if file.file_meta.TransferSyntaxUID.is_little_endian else ">"


def words_of(file: Dataset) -> np.ndarray:
    """The words of 16 bits, all of their bits, in which a file holds its values; none where it holds them otherwise."""
    if file.get("BitsAllocated") != 16 or file.file_meta.TransferSyntaxUID.is_encapsulated or "PixelData" not in file:
        return np.empty(0, dtype=np.uint16)
    return np.frombuffer(file.PixelData[: len(file.PixelData) // 2 * 2], f"{order_of(file)}u2")


def exceeds(file: Dataset) -> bool:
    """Whether values of 16 bits need more bits than are said to be stored, and no overlay that is named lies there. The
    sign of a negative value, and padding, may stand in all bits."""
    bits = file.get("BitsStored") or 16
    overlays = any((group, 0x0102) in file and file[group, 0x0102].value for group in range(0x6000, 0x6020, 2))
    words = words_of(file)
    if bits >= 16 or overlays or not words.size:
        return False
    padded = numbers(file, "PixelPaddingValue") + numbers(file, "PixelPaddingRangeLimit")
    above = words >> (bits - 1 if file.get("PixelRepresentation") else bits)
    usual = (0, 2 ** (17 - bits) - 1) if file.get("PixelRepresentation") else (0,)
    return bool((~np.isin(above, usual) & ~np.isin(words, [number % 2**16 for number in padded])).any())
