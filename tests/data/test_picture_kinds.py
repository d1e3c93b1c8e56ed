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
from pydicom.uid import JPEG2000, DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit, JPEGExtended12Bit, RLELossless
from test_pictures import write_dicom

from selora.data import DataError, DataWarning, dicom, open_image

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
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(chunk, (b"IHDR", b"IDAT", b"IEND"), (header, zlib.compress(raw), b"")))


def tiff(values: np.ndarray, photometric: int, sample_format: int = 1, order: str = "<") -> bytes:
    """An uncompressed TIFF written here, by the tags of its specification. values: (H, W) or (H, W, channels)."""
    height, width, *rest = values.shape
    channels, bits = (rest or [1])[0], 8 * values.itemsize
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    start = 8 + 2 + 9 * 12 + 4
    after = start + 2 * channels  # BitsPerSample of several channels stands outside of its entry
    inline = bits if channels == 1 else start
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, channels, inline), (259, 3, 1, 1),
               (262, 3, 1, photometric), (273, 4, 1, after), (277, 3, 1, channels), (279, 4, 1, len(data)),
               (339, 3, 1, sample_format)]  # fmt: skip
    if channels > 1:
        entries[-1] = (339, 3, 1, sample_format)
    ifd = struct.pack(order + "H", 9)
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
    assert np.abs(shown(path) - plain).max() <= 1


@pytest.mark.parametrize("entries", [np.arange(256) * 257, np.arange(256)])
def test_a_palette_of_greys(entries, tmp_path, plain):
    colours = {}
    for colour in ("Red", "Green", "Blue"):
        colours[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        colours[f"{colour}PaletteColorLookupTableData"] = entries.astype("<u2").tobytes()
    path = write_dicom(tmp_path / "a.dcm", levels(255, np.uint8), **colours)
    data = pydicom.dcmread(path)
    data.PhotometricInterpretation = "PALETTE COLOR"
    data.save_as(path)
    assert np.abs(shown(path) - plain).max() <= 1


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


def test_a_dicom_without_preamble(tmp_path, plain):
    data = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", U12))
    del data.file_meta
    file = io.BytesIO()
    pydicom.dcmwrite(file, data, implicit_vr=True, little_endian=True)
    (tmp_path / "bare.dcm").write_bytes(file.getvalue())
    assert np.abs(shown(tmp_path / "bare.dcm") - plain).max() <= 1


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
    monkeypatch.setattr(dicom, "LARGEST", 2**20)
    Image.fromarray(np.zeros((12000, 12000), bool)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((1, 60000), np.uint8)).save(tmp_path / "long.png")
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
