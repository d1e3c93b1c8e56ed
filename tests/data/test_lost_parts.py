"""Parts of a picture that were lost inside its file, which decoders fill in silence; and what only looks so."""

import io
import struct

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import JPEG2000
from test_picture_kinds import ANATOMY, LARGE, SIZE, changed, compressed, encoded, levels, shown, tiff, write_dicom

from selora.data import DataError, DataWarning, load_splits, open_image

SMOOTH = Image.fromarray(levels(255, np.uint8)).resize((240, 200), Image.Resampling.BICUBIC)
DARK = Image.fromarray(np.pad(np.asarray(SMOOTH), ((1200, 1200), (600, 600))))  # a collimated picture on much black


def parts_of(content: bytes) -> list[tuple[int, int]]:
    """Where the strips of a TIFF file lie: offset and length."""
    with Image.open(io.BytesIO(content)) as opened:
        return list(zip(opened.tag_v2[273], opened.tag_v2[279], strict=True))


def holed(content: bytes, start: float, end: float) -> bytes:
    """A file of which a share of the bytes was lost, from one part of its length to another."""
    first, last = int(start * len(content)), int(end * len(content))
    return content[:first] + bytes(last - first) + content[last:]


@pytest.mark.parametrize("rows", [200, 64])  # in one strip, in four
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg_inside_a_tiff_that_lost_a_part(rows, mode, tmp_path):
    picture = LARGE.resize((240, 200)).convert(mode)
    whole = encoded(picture, format="TIFF", compression="jpeg", quality=90, tiffinfo={278: rows})
    (tmp_path / "whole.tiff").write_bytes(whole)
    open_image(tmp_path / "whole.tiff", SIZE)
    offset, length = parts_of(whole)[-1]
    for start, fill in ((0.3, b"\0"), (0.6, b"\xff\xd9")):
        first = offset + int(start * length)
        lost = (fill * length)[: offset + length - first]
        (tmp_path / "lost.tiff").write_bytes(whole[:first] + lost + whole[offset + length :])
        with pytest.raises(DataError, match="lost.tiff cannot be read"):
            open_image(tmp_path / "lost.tiff", SIZE)


@pytest.mark.parametrize("name", ["webp", "avif", "jp2", "gif"])
@pytest.mark.parametrize(("start", "end"), [(0.92, 1), (0.4, 0.7), (0.6, 0.97)])
def test_a_hole_of_zeros_in_a_compressed_file(name, start, end, tmp_path):
    options = {"webp": {"quality": 80}, "avif": {"quality": 80}, "jp2": {"irreversible": True}}.get(name, {})
    whole = encoded(LARGE, format={"jp2": "JPEG2000"}.get(name, name), **options)
    (tmp_path / f"whole.{name}").write_bytes(whole)
    open_image(tmp_path / f"whole.{name}", SIZE)
    (tmp_path / f"lost.{name}").write_bytes(holed(whole, start, end))
    with pytest.raises(DataError, match=f"lost.{name} cannot be read"):
        open_image(tmp_path / f"lost.{name}", SIZE)


def test_a_hole_in_a_jpeg_2000_inside_a_dicom(tmp_path):
    whole = encoded(LARGE, format="JPEG2000", irreversible=True, no_jp2=True)
    for name, frame in (("whole", whole), ("lost", holed(whole, 0.5, 0.9))):
        compressed(tmp_path / f"{name}.dcm", frame, JPEG2000, "MONOCHROME2", 1)
        changed(tmp_path / f"{name}.dcm", Rows=200, Columns=160)
    open_image(tmp_path / "whole.dcm", SIZE)
    with pytest.raises(DataError, match="lost.dcm cannot be read .it holds 64 zeros"):
        open_image(tmp_path / "lost.dcm", SIZE)


def test_a_hole_in_a_fax(tmp_path):
    bits = Image.fromarray(np.asarray(LARGE) > 100)
    for compression in ("group3", "group4"):
        whole = encoded(bits, format="TIFF", compression=compression, tiffinfo={278: 200})
        (tmp_path / "whole.tiff").write_bytes(whole)
        open_image(tmp_path / "whole.tiff", SIZE)
        ((offset, length),) = parts_of(whole)
        lost = whole[: offset + length // 3] + bytes(length // 2) + whole[offset + length // 3 + length // 2 :]
        (tmp_path / "lost.tiff").write_bytes(lost)
        with pytest.raises(DataError, match="lost.tiff cannot be read"):
            open_image(tmp_path / "lost.tiff", SIZE)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("webp", {"quality": 80}),
        ("webp", {"lossless": True}),
        ("avif", {"quality": 80}),
        ("JPEG2000", {"irreversible": True}),
        ("gif", {}),
        ("tiff", {"compression": "jpeg"}),
        ("tiff", {"compression": "tiff_adobe_deflate"}),
        ("jpeg", {"progressive": True}),
    ],
)
def test_much_black_is_no_hole(name, options, tmp_path, recwarn):
    """A coder writes next to nothing for it, and that is not all zeros."""
    (tmp_path / f"a.{name}").write_bytes(encoded(DARK, format=name, **options))
    DARK.save(tmp_path / "plain.png")
    grey, plain = (np.asarray(open_image(tmp_path / file, 300)).astype(int) for file in (f"a.{name}", "plain.png"))
    assert np.abs(grey - plain).max() < 40
    assert not [str(w.message) for w in recwarn if "zeros" in str(w.message)]


@pytest.mark.parametrize("name", ["webp", "avif"])
def test_zeros_beside_the_picture_are_no_hole(name, tmp_path):
    """Programs leave room in EXIF data, for what they may write there later."""
    exif = Image.Exif()
    exif[0xEA1C] = bytes(3000)
    (tmp_path / f"a.{name}").write_bytes(encoded(LARGE, format=name, quality=80, exif=exif))
    open_image(tmp_path / f"a.{name}", SIZE)


def scans_of(content: bytes) -> list[int]:
    """Where the scans of a JPEG without thumbnail begin."""
    return [place for place in range(len(content)) if content[place : place + 2] == b"\xff\xda"]


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("kept", [1, 2, -1])
def test_a_progressive_jpeg_without_its_last_scans(mode, kept, tmp_path):
    whole = encoded(LARGE.convert(mode), format="JPEG", quality=92, progressive=True)
    (tmp_path / "whole.jpg").write_bytes(whole)
    open_image(tmp_path / "whole.jpg", SIZE)
    (tmp_path / "lost.jpg").write_bytes(whole[: scans_of(whole)[kept]] + b"\xff\xd9")
    with pytest.raises(DataError, match="lost.jpg cannot be read .the scans with the details of . of its"):
        open_image(tmp_path / "lost.jpg", SIZE)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_that_does_not_tell_white_from_black(dtype, tmp_path):
    values = levels(200, dtype)
    (tmp_path / "said.tiff").write_bytes(tiff(values, 1))
    open_image(tmp_path / "said.tiff", SIZE)
    (tmp_path / "not.tiff").write_bytes(tiff(values, None))
    with pytest.raises(DataError, match="not.tiff cannot be read .it has no PhotometricInterpretation"):
        open_image(tmp_path / "not.tiff", SIZE)


def test_a_tiff_that_begins_with_a_small_copy(tmp_path):
    (tmp_path / "a.tiff").write_bytes(tiff(levels(255, np.uint8)[::3, ::3], 1, more=[(254, 4, 1, 1)]))
    with pytest.raises(DataError, match="its first picture is a small copy of another"):
        open_image(tmp_path / "a.tiff", SIZE)


@pytest.mark.parametrize("magic", [b"P5", b"P6"])
def test_a_second_picture_behind_the_first(magic, tmp_path):
    values = levels(255, np.uint8)
    one = magic + f" {SIZE} {SIZE} 255\n".encode() + (values if magic == b"P5" else np.dstack([values] * 3)).tobytes()
    (tmp_path / "one.pnm").write_bytes(one + b"\n")
    open_image(tmp_path / "one.pnm", SIZE)
    (tmp_path / "two.pnm").write_bytes(one + b"\n" + one)
    with pytest.raises(DataError, match="two.pnm cannot be read .it holds several pictures"):
        open_image(tmp_path / "two.pnm", SIZE)


def test_a_psd_of_one_bit(tmp_path):
    head = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 1, 16, 16, 1, 0) + bytes(12) + struct.pack(">H", 0)
    (tmp_path / "a.psd").write_bytes(head + bytes([0xF0] * 32))
    with pytest.raises(DataError, match="it is PSD of 1 bit, whose black would be read as white"):
        open_image(tmp_path / "a.psd", SIZE)


# ---- values far from all others, and values that stand for none -----------------------------------------------------


@pytest.mark.parametrize("empty", [0, 17, 255])
def test_no_data_where_white_is_zero(empty, tmp_path):
    """The value is the stored one, whichever way round grey is shown."""
    grey = np.clip(levels(255, np.uint8), 1, 254)
    grey[grey == 255 - empty] += 1
    stored = 255 - grey
    stored[:, :9] = empty
    text = f"{empty}\0".encode()  # up to four signs stand in the entry itself
    no_data = (42113, 2, len(text), int.from_bytes(text, "little"))
    (tmp_path / "a.tiff").write_bytes(tiff(stored, 0, more=[no_data]))
    expected = grey.copy()
    expected[:, :9] = 0
    Image.fromarray(expected).save(tmp_path / "a.png")
    assert np.abs(shown(tmp_path / "a.tiff").astype(int) - shown(tmp_path / "a.png")).max() <= 1


@pytest.mark.parametrize("kind", ["a pixel", "a label", "a border", "a signed border"])
def test_values_far_from_all_others_are_named(kind, tmp_path):
    values = {"a pixel": np.float32(ANATOMY), "a border": np.float32(ANATOMY)}.get(kind, levels(4095, np.uint16))
    values = values.copy()
    if kind == "a signed border":
        values = values.astype(np.int16)
        values[:3] = -32768  # three of 48 rows
        path = write_dicom(tmp_path / "a.dcm", values)
    elif kind == "a label":
        values[2:4, 2:9] = 65535
        path = tmp_path / "a.tiff"
        path.write_bytes(tiff(values, 1))
    else:
        values[: 1 if kind == "a pixel" else 4, : 1 if kind == "a pixel" else None] = -3e38
        path = tmp_path / "a.tiff"
        path.write_bytes(tiff(values, 1, sample_format=3))
    with pytest.warns(DataWarning, match="is suspicious: nearly all of it is one grey"):
        open_image(path, SIZE)


def test_a_plain_picture_is_not_suspicious(tmp_path, recwarn):
    path = tmp_path / "a.png"
    Image.fromarray(levels(4095, np.uint16)).save(path)
    open_image(path, SIZE)
    assert not [w for w in recwarn if issubclass(w.category, DataWarning)]


def test_padding_beyond_the_stored_bits_is_no_pixel(tmp_path):
    """0xF800 of 12 stored bits is 0x800 in them, and stands for another thing than a pixel of 0x800."""
    values = levels(4095, np.uint16)
    values[5, 5] = 0x800
    words = values.copy()
    words[:, :6] = 0xF800
    path = write_dicom(tmp_path / "a.dcm", words, BitsStored=12, HighBit=11, PixelPaddingValue=0xF800)
    grey = shown(path)
    assert not grey[:, :6].any()
    there = values[:, 6:] == values[:, 6:].max()
    assert grey[:, 6:][there].min() == 255
    middle = np.abs(values[:, 6:].astype(int) - 0x800) < 8
    assert middle.any() and (grey[:, 6:][middle] > 60).all()


def test_what_no_one_may_read_is_said(tmp_path, monkeypatch):
    """As a file without permission is (which root may read), or a disk that fails."""
    for i in range(30):
        Image.fromarray(np.roll(levels(255, np.uint8), i)).save(tmp_path / f"{i}.png")
    rows = "".join(f"{i}.png,heart {i} clear\n" for i in range(30))
    (tmp_path / "metadata.csv").write_text(f"file_name,text\n{rows}", encoding="utf-8")

    def failing(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("selora.data.studies.is_dicom", failing)
    with pytest.raises(DataError, match="'imagefolder': .*0.png cannot be read .Permission denied"):
        load_splits("imagefolder", tmp_path)
