"""One conversion for all formats: each holds the same anatomy in its own way, and must show what a plain 8-bit PNG of
it shows; what holds it in part is refused."""

import io
import struct
import zlib

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    RLELossless,
)
from test_pictures import write_dicom

from selora.data import DataError, DataWarning, grey, open_image

SIZE = 48
y, x = np.mgrid[:SIZE, :SIZE] / (SIZE - 1)
ANATOMY = (0.7 * x + 0.3 * y) * (1 - 0.6 * np.exp(-((x - 0.6) ** 2 + (y - 0.4) ** 2) / 0.02))  # in 0..1, no symmetry
ANATOMY = (ANATOMY - ANATOMY.min()) / np.ptp(ANATOMY)


def levels(greatest: int, dtype) -> np.ndarray:
    return np.rint(greatest * ANATOMY).astype(dtype)


def shown(path) -> np.ndarray:
    return np.asarray(open_image(path, SIZE))[..., 0].astype(int)


@pytest.fixture
def plain(tmp_path) -> np.ndarray:
    """What is shown of the anatomy saved plainly."""
    Image.fromarray(levels(255, np.uint8)).save(tmp_path / "plain.png")
    return shown(tmp_path / "plain.png")


def png(values: np.ndarray, colour: int) -> bytes:
    """A PNG of 16 bits written here: Pillow writes no colour of that depth. values: (H, W, channels)."""
    return png_of(16, colour, b"".join(b"\0" + row.astype(">u2").tobytes() for row in values), size=values.shape[1::-1])


def png_of(depth: int, colour: int, raw: bytes, *more: tuple[bytes, bytes], size=(SIZE, SIZE), interlaced=0) -> bytes:
    """A PNG of lines that are packed here, with more chunks, (name, content), before them."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, interlaced)
    chunks = ((b"IHDR", header), *more, (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, content) for name, content in chunks)


def tiff(values: np.ndarray, photometric: int | None, sample_format: int = 1, order: str = "<", more=()) -> bytes:
    """An uncompressed TIFF written here, by the tags of its specification. values: (H, W) or (H, W, channels).
    photometric: None for a file without that tag. more: other entries (tag, type, count, value)."""
    height, width, *rest = values.shape
    channels, bits = (rest or [1])[0], 8 * values.itemsize
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    entries = [(256, 4, 1, width), (257, 4, 1, height), (259, 3, 1, 1), (277, 3, 1, channels), (279, 4, 1, len(data)),
               (339, 3, 1, sample_format), *more]  # fmt: skip
    entries += [(262, 3, 1, photometric)] if photometric is not None else []
    start = 8 + 2 + (len(entries) + 2) * 12 + 4
    after = start + 2 * channels  # BitsPerSample of several channels stands outside of its entry
    entries = sorted([*entries, (258, 3, channels, bits if channels == 1 else start), (273, 4, 1, after)])
    ifd = struct.pack(order + "H", len(entries))
    for tag, kind, count, value in entries:
        short = kind == 3 and count == 1
        ifd += struct.pack(order + ("HHIHxx" if short else "HHII"), tag, kind, count, value)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return head + ifd + b"\0" * 4 + struct.pack(order + f"{channels}H", *[bits] * channels) + data


def in_colour(values: np.ndarray, *alpha: int) -> np.ndarray:
    return np.stack([values] * 3 + [np.full_like(values, a) for a in alpha], axis=-1)


PLAIN = {
    "png, 16-bit RGB, 12 bits used": ("a.png", png(in_colour(levels(4095, np.uint16)), 2)),
    "png, 16-bit RGB, 10 bits used": ("a.png", png(in_colour(levels(1023, np.uint16)), 2)),
    "png, 16-bit RGBA": ("a.png", png(in_colour(levels(4095, np.uint16), 65535), 6)),
    "png, 16-bit grey with alpha": (
        "a.png",
        png(np.stack([levels(4095, np.uint16), np.full((SIZE, SIZE), 65535, np.uint16)], -1), 4),
    ),
    "tiff, 16 bits, white is zero": ("a.tiff", tiff(4095 - levels(4095, np.uint16), 0)),
    "tiff, 16 bits, big-endian": ("a.tif", tiff(levels(900, np.uint16), 1, order=">")),
    "tiff, 8 bits, white is zero": ("a.tiff", tiff(255 - levels(255, np.uint8), 0)),
    "tiff, float, white is zero": ("a.tiff", tiff(np.float32(1 - ANATOMY), 0, 3)),
    "tiff, float": ("a.tiff", tiff(np.float32(7e5 * ANATOMY - 3e4), 1, 3)),
    "tiff, signed 16 bits": ("a.tiff", tiff(levels(4095, np.int16) - np.int16(1024), 1, 2)),
    "tiff, signed 8 bits": ("a.tiff", tiff((levels(255, np.int16) - 128).astype(np.int8), 1, 2)),
    "tiff, unsigned 32 bits": ("a.tiff", tiff(levels(2**32 - 1, np.uint32), 1)),
    "tiff, 16-bit RGB, 12 bits used": ("a.tiff", tiff(in_colour(levels(4095, np.uint16)), 2)),
    "tiff, 16-bit RGB, big-endian": ("a.tiff", tiff(in_colour(levels(4095, np.uint16)), 2, order=">")),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_the_same_anatomy_in_every_format(kind, tmp_path, plain):
    name, content = PLAIN[kind]
    (tmp_path / name).write_bytes(content)
    assert np.abs(shown(tmp_path / name) - plain).max() <= 1


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_a_compressed_tiff_of_which_white_is_zero(compression, tmp_path, plain):
    inverse = Image.fromarray(4095 - levels(4095, np.uint16))
    inverse.save(tmp_path / "a.tiff", compression=compression, tiffinfo={262: 0})
    assert np.abs(shown(tmp_path / "a.tiff") - plain).max() <= 1


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_black_and_changes_nothing_else(odd, tmp_path, plain):
    values = np.float32(ANATOMY)
    values[10:14, 20:25] = odd
    (tmp_path / "a.tiff").write_bytes(tiff(values, 1, 3))
    found = shown(tmp_path / "a.tiff")
    assert (found[10:14, 20:25] == 0).all()
    rest = np.isfinite(values)
    assert np.abs(found - plain)[rest].max() <= 1


def test_a_picture_of_no_valid_value_is_refused(tmp_path):
    (tmp_path / "a.tiff").write_bytes(tiff(np.full((SIZE, SIZE), np.nan, np.float32), 1, 3))
    with pytest.raises(DataError, match="a.tiff cannot be read .it holds no valid pixel"):
        open_image(tmp_path / "a.tiff", SIZE)


def test_a_transparent_value_of_16_bits_does_not_count(tmp_path, plain):
    """65535 around the picture is transparent: it must be black, and not press the anatomy together."""
    values = np.where(x < 0.1, np.uint16(65535), levels(1000, np.uint16))
    Image.fromarray(values).save(tmp_path / "a.png", transparency=65535)
    found = shown(tmp_path / "a.png")
    assert (found[x < 0.1] == 0).all() and np.abs(found - plain)[x >= 0.1].max() <= 30  # its own least value is black
    assert np.corrcoef(found[x >= 0.1], plain[x >= 0.1])[0, 1] > 0.999 and found.max() == 255


def test_colours_of_which_8_bits_would_be_read_are_refused(tmp_path):
    colours = in_colour(levels(4095, np.uint16)).astype(">u2").tobytes()
    (tmp_path / "a.ppm").write_bytes(f"P6 {SIZE} {SIZE} 65535\n".encode() + colours)
    with pytest.raises(DataError, match="a.ppm cannot be read .it has more than 8 bits a value"):
        open_image(tmp_path / "a.ppm", SIZE)


def planar(values: np.ndarray, order: str, compression: str | None = None) -> bytes:
    """A TIFF of 16 bits whose colours, (H, W, channels), lie in planes."""
    height, width, channels = values.shape
    data = np.moveaxis(values, 2, 0).astype(order + "u2").tobytes()
    start = 8 + 2 + 11 * 12 + 4
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, channels, start), (259, 3, 1, 1), (262, 3, 1, 2),
               (273, 4, channels, start + 2 * channels), (277, 3, 1, channels), (278, 4, 1, height),
               (279, 4, channels, start + 6 * channels), (284, 3, 1, 2), (338, 3, 1, 2)]  # fmt: skip
    entries = entries[: 10 + (channels == 4)]
    ifd = struct.pack(order + "H", len(entries))
    for tag, kind, count, value in entries:
        ifd += struct.pack(order + ("HHIHxx" if kind == 3 and count == 1 else "HHII"), tag, kind, count, value)
    behind = struct.pack(order + f"{channels}H", *[16] * channels)
    size, first = 2 * width * height, start + 10 * channels
    behind += struct.pack(order + f"{channels}I", *(first + size * i for i in range(channels)))
    behind += struct.pack(order + f"{channels}I", *[size] * channels)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return (head + ifd).ljust(start, b"\0") + behind + data


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("alpha", [(), (65535,)])
def test_planes_of_16_bits_are_refused(order, alpha, tmp_path):
    (tmp_path / "a.tiff").write_bytes(planar(in_colour(levels(4095, np.uint16), *alpha), order))
    with pytest.raises(DataError, match="a.tiff cannot be read .it has more than 8 bits a value"):
        open_image(tmp_path / "a.tiff", SIZE)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("key", [0, -1, "second"])
def test_a_transparent_grey_of_few_bits_is_black(depth, key, tmp_path):
    most = 2**depth - 1
    key = {0: 0, -1: most, "second": 1}[key]
    values = np.minimum(levels(most + 1, int), most)
    bits = (values[..., None] >> np.arange(depth)[::-1] & 1).reshape(SIZE, -1)
    raw = b"".join(b"\0" + np.packbits(row).tobytes() for row in bits)
    (tmp_path / "a.png").write_bytes(png_of(depth, 0, raw, (b"tRNS", struct.pack(">H", key))))
    assert np.array_equal(shown(tmp_path / "a.png"), np.where(values == key, 0, values * (255 // most)))


@pytest.mark.parametrize(("dtype", "sample_format"), [(np.float32, 3), (np.int16, 2), (np.uint16, 1), (np.uint8, 1)])
@pytest.mark.parametrize("empty", [-9999, 255, 3.4e38])
def test_what_gdal_names_no_data_is_black_and_presses_nothing(dtype, sample_format, empty, tmp_path, plain):
    name = str(np.float32(empty).astype(float)) if empty > 1e9 else str(empty)
    values = (ANATOMY * 254).round().astype(dtype)
    hole = np.s_[10:14, 20:25]
    if fits := np.dtype(dtype).kind == "f" or np.iinfo(dtype).min <= empty <= np.iinfo(dtype).max:
        values[hole] = empty
    pixels = Image.fromarray(values)
    pixels.save(tmp_path / "a.tiff", tiffinfo={42113: name, 339: sample_format})
    found = shown(tmp_path / "a.tiff")
    assert not fits or (found[hole] == 0).all()
    plain[hole] = found[hole] = 0
    assert np.abs(found - plain).max() <= 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 1000), (500, 3), (2000, 7)])
def test_what_is_too_small_for_a_radiograph_is_refused(shape, tmp_path):
    Image.fromarray(np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=f"it is {shape[1]} x {shape[0]} pixels, no picture of a chest"):
        open_image(tmp_path / "a.png", SIZE)


def test_a_strip_is_named(tmp_path):
    Image.fromarray(np.arange(2000, dtype=np.uint8).reshape(10, 200)).save(tmp_path / "a.png")
    with pytest.warns(DataWarning, match="a.png is suspicious: it is 200 x 10 pixels, of which only the middle"):
        open_image(tmp_path / "a.png", SIZE)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
FITS = [b"SIMPLE  =                    T", b"BITPIX  =                   16", b"NAXIS   =                    2",
        b"NAXIS1  =                    9", b"NAXIS2  =                    9", b"END"]  # fmt: skip
FITS = b"".join(card.ljust(80) for card in FITS).ljust(2880) + bytes(range(162)).ljust(2880)
WMF = struct.pack("<IHhhhhHIH", 0x9AC6CDD7, 0, 0, 0, 9, 9, 72, 0, 0) + struct.pack("<HHHIHIH", 1, 9, 0x300, 9, 0, 3, 0)


@pytest.mark.parametrize(("name", "content"), [("a.eps", EPS), ("a.fits", FITS), ("a.wmf", WMF)])
@pytest.mark.parametrize("ending", ["", ".png"])  # whatever it is called
def test_formats_that_run_programs_or_that_pillow_misreads_are_refused(name, content, ending, tmp_path):
    (tmp_path / f"{name}{ending}").write_bytes(content)
    with pytest.raises(DataError, match=f"it is {name[2:].upper()}, of which .*save it as PNG"):
        open_image(tmp_path / f"{name}{ending}", SIZE)


# ---- DICOM ----------------------------------------------------------------------------------------------------------


def lut(entries: np.ndarray, vr: str = "US") -> Dataset:
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [len(entries), 0, 16])
    table.add_new("LUTData", vr, entries.astype("<u2").tobytes() if vr == "OW" else entries.tolist())
    return table


U12 = levels(4095, np.uint16)
HALF = np.uint16(np.rint(2000 + 300 * ANATOMY))  # of which a window shows all
DICOM = {
    "MONOCHROME2": (U12, {"BitsStored": 12, "HighBit": 11}),
    "MONOCHROME1": (4095 - U12, {"kind": "MONOCHROME1"}),
    "MONOCHROME1, INVERSE": (4095 - U12, {"kind": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}),
    "MONOCHROME2, IDENTITY": (U12, {"PresentationLUTShape": "IDENTITY"}),
    "MONOCHROME2, INVERSE": (4095 - U12, {"PresentationLUTShape": "INVERSE"}),
    "negative slope": (4095 - U12, {"RescaleSlope": -1, "RescaleIntercept": 4095}),
    "empty slope": (U12, {"RescaleSlope": None, "RescaleIntercept": None}),
    "empty intercept": (U12, {"RescaleSlope": "2", "RescaleIntercept": None}),
    "slope 0": (U12, {"RescaleSlope": 0, "RescaleIntercept": 0}),
    "width 0": (U12, {"WindowCenter": 40, "WindowWidth": 0}),
    "empty window": (U12, {"WindowCenter": None, "WindowWidth": None}),
    "the first window that is one": (HALF, {"WindowCenter": [7, 2150, 9], "WindowWidth": [0, 301, 5]}),
    "an empty centre": (HALF, {"WindowCenter": ["", "2150"], "WindowWidth": ["1", "301"]}),
    "an empty width": (HALF, {"WindowCenter": ["40", "2150", "9"], "WindowWidth": ["", "301", "5"]}),
    "window, LINEAR_EXACT": (HALF, {"WindowCenter": 2150, "WindowWidth": 300, "VOILUTFunction": "LINEAR_EXACT"}),
    "VOI LUT": (levels(255, np.uint8), {"VOILUTSequence": [lut(np.arange(256) * 16, "OW")]}),
    "VOI LUT of 12 bits": (U12, {"VOILUTSequence": [lut(np.arange(1000, 5096))], "WindowCenter": 1, "WindowWidth": 2}),
    "inverting VOI LUT": (255 - levels(255, np.uint8), {"VOILUTSequence": [lut(np.arange(256)[::-1])]}),
    "Modality LUT": (levels(255, np.uint8), {"ModalityLUTSequence": [lut(np.arange(256) * 7 + 3)]}),
    "8 bits": (levels(255, np.uint8), {}),
    "8 bits, rescaled": (levels(255, np.uint8), {"RescaleSlope": 3, "RescaleIntercept": -90}),
    "16-bit RGB": (in_colour(U12), {"kind": "RGB"}),
    "square pixels, said twice": (U12, {"PixelAspectRatio": [3, 3], "PixelSpacing": [0.15, 0.15]}),
    "lower case": (4095 - U12, {"PhotometricInterpretation": "monochrome1"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", DICOM)
def test_the_same_anatomy_in_every_dicom(kind, tmp_path, plain):
    pixels, elements = DICOM[kind]
    assert np.abs(shown(write_dicom(tmp_path / "a.dcm", pixels, **elements)) - plain).max() <= 1


def changed(path, **elements):
    data = pydicom.dcmread(path)
    for name, value in elements.items():
        setattr(data, name, value)
    data.save_as(path)
    return path


@pytest.mark.parametrize("groups", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_the_same_anatomy_in_an_enhanced_dicom(groups, tmp_path, plain):
    """Its rescaling inverts; its window shows all; its pixels are three times as high as wide."""
    rescale, window, measures, group = Dataset(), Dataset(), Dataset(), Dataset()
    rescale.RescaleSlope, rescale.RescaleIntercept = -1, 300
    window.WindowCenter, window.WindowWidth = 150.5, 301
    measures.PixelSpacing = [0.6, 0.2]
    group.PixelValueTransformationSequence, group.FrameVOILUTSequence = [rescale], [window]
    group.PixelMeasuresSequence = [measures]
    path = write_dicom(tmp_path / "a.dcm", (2300 - HALF)[1::3].copy())
    path = changed(path, **{groups: [group]})
    assert np.abs(shown(path) - plain)[4:-4, 4:-4].mean() < 6


def test_values_in_the_upper_bits_are_refused(tmp_path):
    path = changed(write_dicom(tmp_path / "a.dcm", U12 << 4), BitsStored=12, HighBit=15)
    with pytest.raises(DataError, match="a.dcm cannot be read .its values lie in other bits"):
        open_image(path, SIZE)


def test_a_lut_that_is_cut_is_refused(tmp_path):
    table = lut(np.arange(100))
    table.LUTDescriptor = [4096, 0, 12]
    path = write_dicom(tmp_path / "a.dcm", U12, VOILUTSequence=[table])
    with pytest.raises(DataError, match="a.dcm cannot be read .its LUT has 100 of 4096 entries"):
        open_image(path, SIZE)


def test_a_sigmoid_window(tmp_path):
    """PS3.3 C.11.2.1.3.1, worked out here."""
    path = write_dicom(tmp_path / "a.dcm", U12, WindowCenter=1500, WindowWidth=900, VOILUTFunction="SIGMOID")
    assert np.abs(shown(path) - 255 / (1 + np.exp(-4 * (U12 - 1500.0) / 900))).max() <= 0.51


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_narrow_8_bits_are_not_stretched(dtype, tmp_path):
    narrow = (60 + 100 * ANATOMY).astype(np.uint8)
    Image.fromarray(narrow).save(tmp_path / "a.png")
    path = write_dicom(tmp_path / "a.dcm", narrow.astype(dtype), BitsStored=8, HighBit=7)
    assert np.array_equal(shown(path), shown(tmp_path / "a.png")) and np.ptp(shown(path)) <= 101


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("elements", "dtype", "fill"),
    [
        ({"PixelPaddingValue": -2000}, np.int16, -2000),
        ({"PixelPaddingValue": 63536}, np.int16, -2000),  # -2000, written as unsigned
        ({"PixelPaddingValue": 65535}, np.uint16, 65535),
        ({"PixelPaddingValue": 60000, "PixelPaddingRangeLimit": 65535}, np.uint16, 63000),
        ({"PixelPaddingValue": 65535, "PixelPaddingRangeLimit": 60000}, np.uint16, 63000),
    ],
)  # fmt: skip
def test_padding_is_black_and_presses_nothing(kind, elements, dtype, fill, tmp_path, plain):
    """A frame of 4 pixels is padding; the least and greatest values of the anatomy lie within."""
    anatomy = (4095 - U12 if kind == "MONOCHROME1" else U12).astype(dtype)
    pixels = np.pad(anatomy, 4, constant_values=fill)
    path = tmp_path / "a.dcm"
    write_dicom(path, pixels.view(np.uint16), kind)
    data = pydicom.dcmread(path)
    data.PixelRepresentation = int(dtype == np.int16)
    for name, value in elements.items():
        data.add_new(pydicom.datadict.tag_for_keyword(name), "SS" if value < 0 else "US", value)
    data.save_as(path)
    found = np.asarray(open_image(path, SIZE + 8))[..., 0].astype(int)
    assert np.abs(found[4:-4, 4:-4] - plain).max() <= 1
    found[4:-4, 4:-4] = 0
    assert (found == 0).all()


def test_bits_above_those_stored_are_no_values(tmp_path, plain):
    """Old files keep overlays there."""
    overlay = np.where((x > 0.3) & (x < 0.5), 0xF000, 0).astype(np.uint16)
    path = write_dicom(tmp_path / "a.dcm", U12 | overlay, BitsStored=12, HighBit=11)
    with pytest.warns(DataWarning, match="a.dcm is suspicious: values have more bits than the 12 that BitsStored says"):
        assert np.abs(shown(path) - plain).max() <= 1


@pytest.mark.parametrize("stored", [8, 10])
@pytest.mark.parametrize("signed", [0, 1])
def test_values_of_more_bits_than_are_stored_are_named(stored, signed, tmp_path):
    values = dict(BitsStored=stored, HighBit=stored - 1, PixelRepresentation=signed)
    with pytest.warns(DataWarning, match=f"more bits than the {stored} that BitsStored says"):
        open_image(write_dicom(tmp_path / "a.dcm", U12, **values), SIZE)


@pytest.mark.parametrize("elements", [{"PixelPaddingValue": 0xF000}, {}, {"PixelRepresentation": 1}])
def test_padding_signs_and_named_overlays_are_no_values(elements, tmp_path, recwarn):
    pixels = U12.copy()
    if elements.get("PixelRepresentation"):
        pixels = (levels(4095, np.int16) - np.int16(2048)).view(np.uint16)
    else:
        pixels[:4] = 0xF000
    path = write_dicom(tmp_path / "a.dcm", pixels, BitsStored=12, HighBit=11, **elements)
    if not elements:
        data = pydicom.dcmread(path)
        data.add_new((0x6002, 0x0102), "US", 12)
        data.save_as(path)
    open_image(path, SIZE)
    assert not [w for w in recwarn if issubclass(w.category, DataWarning)]


@pytest.mark.parametrize(
    ("entries", "greatest"),
    [
        (np.arange(256) * 257, 255),
        (np.arange(256), 255),
        (np.arange(256) * 80, 80 * 255 / 257),
        (np.arange(256) * 4, 4),
    ],
)
def test_a_palette_of_greys(entries, greatest, tmp_path, plain):
    colours = {}
    for colour in ("Red", "Green", "Blue"):
        colours[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        colours[f"{colour}PaletteColorLookupTableData"] = entries.astype("<u2").tobytes()
    path = write_dicom(tmp_path / "a.dcm", levels(255, np.uint8), **colours)
    data = pydicom.dcmread(path)
    data.PhotometricInterpretation = "PALETTE COLOR"
    data.save_as(path)
    assert np.abs(shown(path) - plain * greatest / 255).max() <= 1


def compressed(path, frame: bytes, syntax, kind: str, samples: int) -> None:
    write_dicom(path, levels(255, np.uint8))
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID, data.PhotometricInterpretation, data.SamplesPerPixel = syntax, kind, samples
    if samples == 3:
        data.PlanarConfiguration = 0
    data.PixelData = encapsulate([frame])
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.save_as(path)


def encoded(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


GREY = Image.fromarray(levels(255, np.uint8))
JPEG = encoded(GREY, format="JPEG", quality=95)
COMPRESSED = {
    "YBR_FULL_422": (encoded(GREY.convert("RGB"), format="JPEG", quality=95), JPEGBaseline8Bit, 3),
    "YBR_FULL": (encoded(GREY.convert("RGB"), format="JPEG", quality=95, subsampling=0), JPEGBaseline8Bit, 3),
    "YBR_RCT": (encoded(GREY.convert("RGB"), format="JPEG2000", mct=1, no_jp2=True), JPEG2000, 3),
    "MONOCHROME2": (JPEG, JPEGBaseline8Bit, 1),
}


@pytest.mark.parametrize("kind", COMPRESSED)
def test_a_compressed_dicom(kind, tmp_path, plain):
    frame, syntax, samples = COMPRESSED[kind]
    compressed(tmp_path / "a.dcm", frame, syntax, kind, samples)
    assert np.abs(shown(tmp_path / "a.dcm") - plain).max() <= 6


def test_a_jpeg_of_12_bits_says_what_to_install(tmp_path):
    if get_decoder(JPEGExtended12Bit).available_plugins != ("pillow",):
        pytest.skip("a decoder of 12-bit JPEG is installed")
    compressed(tmp_path / "a.dcm", JPEG, JPEGExtended12Bit, "MONOCHROME2", 1)
    data = pydicom.dcmread(tmp_path / "a.dcm")
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.save_as(tmp_path / "a.dcm")
    with pytest.raises(DataError, match=r"a.dcm is compressed as JPEG Extended.*pip install 'pylibjpeg"):
        open_image(tmp_path / "a.dcm", SIZE)


def test_rle_and_deflated_dicom(tmp_path, plain):
    data = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", U12))
    data.compress(RLELossless)
    data.save_as(tmp_path / "rle.dcm")
    data = pydicom.dcmread(tmp_path / "a.dcm")
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(tmp_path / "deflated.dcm")
    for name in ("rle.dcm", "deflated.dcm"):
        assert np.abs(shown(tmp_path / name) - plain).max() <= 1


@pytest.mark.parametrize(("implicit", "little"), [(True, True), (False, True), (False, False)])
def test_a_dicom_without_preamble(implicit, little, tmp_path, plain):
    data = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", U12))
    del data.file_meta
    if not little:
        data.PixelData = U12.astype(">u2").tobytes()
    file = io.BytesIO()
    pydicom.dcmwrite(file, data, implicit_vr=implicit, little_endian=little)
    (tmp_path / "bare.dcm").write_bytes(file.getvalue())
    assert np.abs(shown(tmp_path / "bare.dcm") - plain).max() <= 1


@pytest.mark.parametrize("name", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("bare", [False, True])
def test_a_lut_of_a_big_endian_dicom(name, bare, tmp_path, plain):
    table = lut(np.arange(1024) * 60)
    table.add_new("LUTData", "OW", (np.arange(1024) * 60).astype(">u2").tobytes())
    data = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", levels(1023, np.uint16)))
    data.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    data.PixelData = levels(1023, ">u2").tobytes()
    setattr(data, name, [table])
    if bare:
        del data.file_meta
    pydicom.dcmwrite(tmp_path / "big.dcm", data, implicit_vr=False, little_endian=False)
    assert np.abs(shown(tmp_path / "big.dcm") - plain).max() <= 1


@pytest.mark.parametrize(("name", "sides"), [("PixelAspectRatio", [3, 1]), ("ImagerPixelSpacing", [0.6, 0.2])])
def test_pixels_that_are_not_square_are_shown_in_their_shape(name, sides, tmp_path, plain):
    """Every third row alone, each three times as high as wide."""
    path = write_dicom(tmp_path / "a.dcm", U12[1::3].copy(), **{name: sides})
    assert np.abs(shown(path) - plain)[4:-4, 4:-4].mean() < 6
    assert open_image(path, 16).size == (16, 16)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"PhotometricInterpretation": None}, "has no PhotometricInterpretation, so that white and black are not told"),
        ({"PhotometricInterpretation": "XYZ"}, "a.dcm cannot be read"),
        ({"PixelData": None}, "a.dcm cannot be read .it holds no pixel data"),
        ({"NumberOfFrames": 3}, "MONOCHROME2 with values of shape .3, 48, 48.: only a single picture"),
        ({"Rows": 60000, "Columns": 60000}, "a.dcm cannot be read .it is 60000 x 60000 pixels"),
        ({"RescaleSlope": "much"}, "a.dcm cannot be read"),
        ({"PixelAspectRatio": [1, 40]}, "a.dcm cannot be read .its PixelAspectRatio is 1 to 40"),
    ],
)
def test_a_dicom_that_is_refused(elements, message, tmp_path):
    path = write_dicom(tmp_path / "a.dcm", U12)
    data = pydicom.dcmread(path)
    for name, value in elements.items():
        if value is None:
            del data[name]
        elif value == "much":
            data.add_new(name, "LO", value)
        else:
            setattr(data, name, value)
    data.save_as(path)
    with pytest.raises(DataError, match=message):
        open_image(path, SIZE)


# ---- what is there in part ------------------------------------------------------------------------------------------

LARGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 160), dtype=np.uint8))


def bad_checksum(content: bytes) -> bytes:
    end = content.index(b"IEND") - 8  # behind the IDAT chunk's checksum... of whose 4 bytes the last is changed
    return content[: end + 3] + bytes([content[end + 3] ^ 1]) + content[end + 4 :]


def holed(content: bytes) -> bytes:
    half = len(content) // 2
    return content[:half] + bytes(len(content) - half - 2) + content[-2:]  # a JPEG's end is still there


WHOLE = {
    "jpg": encoded(LARGE, format="JPEG", quality=90),
    "progressive.jpg": encoded(LARGE, format="JPEG", quality=90, progressive=True),
    "colour.jpg": encoded(LARGE.convert("RGB"), format="JPEG"),
    "inks.jpg": encoded(LARGE.convert("CMYK"), format="JPEG"),
    "png": encoded(LARGE, format="PNG"),
    "tiff": encoded(LARGE, format="TIFF", compression="tiff_lzw"),
    "bmp": encoded(LARGE, format="BMP"),
    "webp": encoded(LARGE, format="WEBP"),
    "gif": encoded(LARGE, format="GIF"),
    "jp2": encoded(LARGE, format="JPEG2000"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_file_is_read_and_a_cut_one_refused(name, tmp_path, recwarn):
    (tmp_path / f"whole.{name}").write_bytes(WHOLE[name])
    open_image(tmp_path / f"whole.{name}", SIZE)
    assert not [w for w in recwarn if issubclass(w.category, DataWarning)]
    (tmp_path / f"cut.{name}").write_bytes(WHOLE[name][: len(WHOLE[name]) * 2 // 3])
    with pytest.raises(DataError, match=f"cut.{name} cannot be read"):
        open_image(tmp_path / f"cut.{name}", SIZE)


@pytest.mark.parametrize("name", ["jpg", "progressive.jpg", "colour.jpg"])
@pytest.mark.parametrize("damage", [holed, lambda content: content[: len(content) // 2] + b"\xff\xd9"])
def test_a_jpeg_with_a_hole_or_an_end_too_early(name, damage, tmp_path):
    (tmp_path / name).write_bytes(damage(WHOLE[name]))
    with pytest.raises(DataError, match=f"{name} cannot be read"):
        open_image(tmp_path / name, SIZE)


def test_a_cut_jpeg_inside_a_dicom(tmp_path):
    compressed(tmp_path / "a.dcm", JPEG[: len(JPEG) // 2] + b"\xff\xd9", JPEGBaseline8Bit, "MONOCHROME2", 1)
    with pytest.raises(DataError, match="a.dcm cannot be read"):
        open_image(tmp_path / "a.dcm", SIZE)


def test_a_png_of_a_wrong_checksum(tmp_path):
    (tmp_path / "a.png").write_bytes(bad_checksum(WHOLE["png"]))
    with pytest.raises(DataError, match="a.png cannot be read .its chunk 'IDAT'"):
        open_image(tmp_path / "a.png", SIZE)


def test_a_dicom_with_more_or_less_than_its_pixels(tmp_path):
    data = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", U12))
    whole = data.PixelData
    for content in (whole + whole, whole[: len(whole) // 2]):
        data.PixelData = content
        data.save_as(tmp_path / "a.dcm")
        with pytest.raises(DataError, match="a.dcm cannot be read"):
            open_image(tmp_path / "a.dcm", SIZE)


@pytest.mark.parametrize("name", ["a.tiff", "a.gif", "a.webp", "a.png"])
def test_several_pictures_in_a_file(name, tmp_path):
    LARGE.save(tmp_path / name, save_all=True, append_images=[LARGE.rotate(90), LARGE.rotate(180)])
    with pytest.raises(DataError, match=f"{name} cannot be read .it holds 3 pictures"):
        open_image(tmp_path / name, SIZE)


STRIPS = encoded(LARGE, format="TIFF", tiffinfo={278: 80})  # three
DEEP_STRIPS = encoded(Image.fromarray(np.asarray(LARGE) * np.uint16(9)), format="TIFF", tiffinfo={262: 0, 278: 80})
LZW_STRIPS = encoded(LARGE, format="TIFF", compression="tiff_lzw", tiffinfo={278: 80})


def edited(content: bytes, tag: int, count: int | None = None) -> bytes:
    """A TIFF of which a tag lists fewer values; or, without a count, whose second value is 0."""
    with Image.open(io.BytesIO(content)) as opened:
        values = opened.tag_v2[tag]
    if count is None:
        packed = struct.pack(f"<{len(values)}I", *values)
        assert content.count(packed) == 1
        return content.replace(packed, packed[:4] + bytes(4) + packed[8:])
    entry = struct.pack("<HHI", tag, 4, len(values))
    assert content.count(entry) == 1
    return content.replace(entry, entry[:4] + struct.pack("<I", count))


def tiled(tiles: int) -> bytes:
    """An uncompressed TIFF of 160 x 200 pixels in tiles of 80 x 112, of which the first ones are there."""
    pixels, start = np.pad(np.asarray(LARGE), ((0, 24), (0, 0))), 8 + 2 + 10 * 12 + 4
    parts = [pixels[y : y + 112, x : x + 80].tobytes() for y in (0, 112) for x in (0, 80)][:tiles]
    entries = [(256, 4, 1, 160), (257, 4, 1, 200), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1),
               (322, 4, 1, 80), (323, 4, 1, 112), (324, 4, tiles, start),
               (325, 4, tiles, start + 4 * tiles)]  # fmt: skip
    ifd = struct.pack("<H", 10) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    offsets = [start + 8 * tiles + 8960 * i for i in range(tiles)]
    return b"II*\0\x08\0\0\0" + ifd + struct.pack(f"<{2 * tiles}I", *offsets, *[8960] * tiles) + b"".join(parts)


def tile_lost(content: bytes) -> bytes:
    """A JPEG 2000 without its second tile-part."""
    at = content.index(b"\xff\x90\0\x0a\0\1")
    length = int.from_bytes(content[at + 6 : at + 10])
    return content[:at] + content[at + length :]


ONE = tiff(np.asarray(LARGE), 1)
TILES = encoded(LARGE, format="JPEG2000", tile_size=(80, 100), no_jp2=True)
LINES = b"".join(b"\0" + row.tobytes() for row in np.asarray(LARGE))
STEPS = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
PASSES = b"".join(b"\0" + row.tobytes() for x0, y0, dx, dy in STEPS for row in np.asarray(LARGE)[y0::dy, x0::dx])
MISSING = {
    "two of three strips": ("a.tiff", STRIPS, edited(STRIPS, 273, 2), "2 of 3 strips"),
    "two of three strips, white is zero": ("a.tiff", DEEP_STRIPS, edited(DEEP_STRIPS, 273, 2), "2 of 3 strips"),
    "a sparse strip": ("a.tiff", STRIPS, edited(STRIPS, 273), "2 of 3 strips"),
    "a sparse strip, compressed": ("a.tiff", LZW_STRIPS, edited(LZW_STRIPS, 273), "2 of 3 strips"),
    "three of four tiles": ("a.tiff", tiled(4), tiled(3), "3 of 4 tiles"),
    "a sparse tile": ("a.tiff", tiled(4), edited(tiled(4), 324), "3 of 4 tiles"),
    "bytes of half": ("a.tiff", ONE, ONE.replace(struct.pack("<I", 32000), struct.pack("<I", 16000)), "16,000 of 32,0"),
    "lines of a PNG": ("a.png", png_of(8, 0, LINES, size=(160, 200)), png_of(8, 0, LINES[:9000], size=(160, 200)),
                       "9,000 of 32,200 bytes"),
    "lines of an interlaced PNG": ("a.png", png_of(8, 0, PASSES, size=(160, 200), interlaced=1),
                                   png_of(8, 0, PASSES[:-1], size=(160, 200), interlaced=1), "of 32,37"),
    "a tile of JPEG 2000": ("a.j2k", TILES, tile_lost(TILES), "1 of its 4 tiles"),
}  # fmt: skip


@pytest.mark.parametrize("what", MISSING)
def test_a_whole_file_is_read_and_one_with_parts_missing_refused(what, tmp_path):
    name, whole, part, message = MISSING[what]
    (tmp_path / f"whole.{name}").write_bytes(whole)
    open_image(tmp_path / f"whole.{name}", SIZE)
    (tmp_path / name).write_bytes(part)
    with pytest.raises(DataError, match=f"{name} cannot be read .*{message}"):
        open_image(tmp_path / name, SIZE)


def test_a_jpeg_2000_without_a_tile_inside_a_dicom(tmp_path):
    compressed(tmp_path / "a.dcm", tile_lost(TILES), JPEG2000, "MONOCHROME2", 1)
    changed(tmp_path / "a.dcm", Rows=200, Columns=160)
    with pytest.raises(DataError, match="a.dcm cannot be read .1 of its 4 tiles"):
        open_image(tmp_path / "a.dcm", SIZE)


@pytest.mark.parametrize("name", ["webp", "gif", "jp2", "tiff"])
def test_a_compressed_file_whose_second_half_has_not_come(name, tmp_path):
    half = len(WHOLE[name]) // 2
    (tmp_path / f"a.{name}").write_bytes(WHOLE[name][:half] + bytes(half))
    with pytest.raises(DataError, match=f"a.{name} cannot be read"):
        open_image(tmp_path / f"a.{name}", SIZE)


@pytest.mark.parametrize("name", ["a.bmp", "a.ppm", "a.tiff"])
def test_what_only_looks_cut_is_read_and_named(name, tmp_path):
    pixels = np.asarray(LARGE).copy()
    pixels[(slice(None, 90) if name == "a.bmp" else slice(90, None))] = 0  # a BMP begins with the lowest row
    content = {"a.tiff": tiff(pixels, 1)}.get(name) or encoded(Image.fromarray(pixels), format=name[2:])
    (tmp_path / name).write_bytes(content)
    with pytest.warns(DataWarning, match=f"{name} is suspicious: its file ends in zeros"):
        open_image(tmp_path / name, SIZE)


def test_a_picture_of_one_grey_is_named(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", U12, WindowCenter=60000, WindowWidth=10)
    with pytest.warns(DataWarning, match="a.dcm is suspicious: all of it is one grey"):
        open_image(path, SIZE)


def test_image_bombs_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(grey, "LARGEST", 2**20)
    Image.fromarray(np.zeros((12000, 12000), bool)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((8, 60000), np.uint8)).save(tmp_path / "long.png")
    bomb = zlib.compressobj(9, wbits=-15)
    deflated = write_dicom(tmp_path / "a.dcm", U12).read_bytes()
    end = 144 + int.from_bytes(deflated[140:144], "little")
    syntax = deflated[132:end].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    assert len(syntax) == end - 132 + 2
    at = syntax.index(b"1.2.840.10008.1.2.1.99")
    syntax = syntax[: at - 2] + struct.pack("<H", 22) + syntax[at:]
    syntax = syntax[:8] + struct.pack("<I", int.from_bytes(syntax[8:12], "little") + 2) + syntax[12:]
    zeros = bomb.compress(bytes(2**21)) + bomb.flush()
    (tmp_path / "a.dcm").write_bytes(deflated[:132] + syntax + zeros)
    for name, message in (
        ("a.png", "exceeds limit"),
        ("long.png", "no picture of a chest"),
        ("a.dcm", "inflates to more"),
    ):
        with pytest.raises(DataError, match=f"{name} cannot be read .*{message}"):
            open_image(tmp_path / name, 2000 if name == "long.png" else SIZE)
