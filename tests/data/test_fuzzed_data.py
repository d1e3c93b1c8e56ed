"""Whatever bytes a user has: a value that holds what it promises, or a DataError; never another exception."""

import contextlib
import gzip
import io
import json
import shutil
import tarfile
import warnings
import zipfile

import numpy as np
import pydicom
import pytest
from conftest import damaged, fuzzed
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_pictures import write_dicom

from selora.data import FINDINGS, DataError, load_examples, open_image
from selora.data.dicom import naming
from selora.data.fetch.transfer import unpack
from selora.data.iu_xray import read_report
from selora.data.montgomery import parse

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 20), dtype=np.uint8)


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten pictures a.png ... j.png, and nothing else."""
    folder = tmp_path_factory.mktemp("folder")
    for i, name in enumerate("abcdefghij"):
        Image.fromarray(np.roll(PIXELS, i)).save(folder / f"{name}.png")
    return folder


def saved(**options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(options.pop("pixels", PIXELS)).save(file, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def dicom(tmp_path_factory):
    path = tmp_path_factory.mktemp("dicom") / "a.dcm"
    return write_dicom(path, WindowCenter=2000, WindowWidth=3000, RescaleSlope=2, PixelPaddingValue=7).read_bytes()


FILES = {
    "a.png": saved(format="PNG"),
    "deep.png": saved(format="PNG", pixels=PIXELS.astype(np.uint16) * 16),
    "a.jpg": saved(format="JPEG"),
    "a.tiff": saved(format="TIFF", pixels=PIXELS.astype(np.float32)),
    "lzw.tiff": saved(format="TIFF", compression="tiff_lzw"),
    "a.bmp": saved(format="BMP"),
    "a.webp": saved(format="WEBP"),
    "a.gif": saved(format="GIF"),
    "a.ppm": saved(format="PPM"),
}


def opened(path, content):
    path.write_bytes(content)
    try:
        image = open_image(path, 16)
    except DataError as error:
        assert path.name in str(error)
    else:
        assert (image.mode, image.size) == ("RGB", (16, 16))


@pytest.mark.parametrize("name", FILES)
def test_pictures(name, tmp_path):
    @fuzzed
    @given(damaged(FILES[name]))
    def check(content):
        opened(tmp_path / name, content)

    check()


@pytest.mark.parametrize("name", ["a.dcm", "a"])
def test_dicom(name, tmp_path, dicom):
    @fuzzed
    @given(damaged(dicom))
    def check(content):
        opened(tmp_path / name, content)

    check()


ELEMENTS = (
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
    "PhotometricInterpretation", "NumberOfFrames", "PlanarConfiguration", "RescaleSlope", "RescaleIntercept",
    "WindowCenter", "WindowWidth", "VOILUTFunction", "PresentationLUTShape", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "PixelSpacing", "PixelAspectRatio", "ModalityLUTSequence", "VOILUTSequence", "PatientID",
    "StudyInstanceUID", "RedPaletteColorLookupTableDescriptor", "SharedFunctionalGroupsSequence",
)  # fmt: skip
NUMBER = st.one_of(st.integers(-70000, 70000), st.floats(), st.sampled_from([0, 1, 8, 12, 16, 24, 255, 4095]))
HELD = st.one_of(
    st.none(), NUMBER, st.lists(NUMBER, max_size=3), st.text(max_size=8),
    st.sampled_from(["MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "PALETTE COLOR", "INVERSE", "SIGMOID", "1\\2"]),
)  # fmt: skip


@st.composite
def sequences(draw):
    """Items of a sequence that hold anything, a LUT's parts among it."""
    item = pydicom.Dataset()
    for name, vr in (("LUTDescriptor", "US"), ("LUTData", "US"), ("LUTData", "OW"), ("RescaleSlope", "DS")):
        if draw(st.booleans()):
            entries = draw(st.lists(st.integers(0, 65535), max_size=5))
            value = np.array(entries, "<u2").tobytes() if vr == "OW" else entries
            item.add_new(pydicom.datadict.tag_for_keyword(name), vr, value)
    return pydicom.Sequence([item] * draw(st.integers(0, 2)))


@fuzzed
@given(changes=st.dictionaries(st.sampled_from(ELEMENTS), HELD, max_size=5), sequence=sequences(), data=st.data())
def test_dicom_headers(changes, sequence, data, tmp_path, dicom):
    """Elements of any value, as their dictionary has them or as another kind."""
    file = pydicom.dcmread(io.BytesIO(dicom))
    for name, value in changes.items():
        tag = pydicom.datadict.tag_for_keyword(name)
        vr = pydicom.datadict.dictionary_VR(tag).split(" ")[0]
        with contextlib.suppress(ValueError, TypeError, AttributeError, OverflowError):  # what pydicom does not take
            if vr == "SQ":
                file.add_new(tag, vr, sequence)
            else:
                file.add_new(tag, data.draw(st.sampled_from([vr, vr, "LO", "FD", "US"])), value)
    try:
        file.save_as(tmp_path / "a.dcm")
    except Exception:  # what cannot be written is no file of a user's
        return
    opened(tmp_path / "a.dcm", (tmp_path / "a.dcm").read_bytes())
    assert all(isinstance(part, str) for part in naming.__wrapped__(tmp_path / "a.dcm", (0, 0)).values())


@fuzzed
@given(content=st.binary(max_size=300), name=st.sampled_from(["a.png", "a.dcm", "a.tiff", "a", "a.jp2"]))
def test_bytes_that_are_no_picture(content, name, tmp_path):
    opened(tmp_path / name, content)


CELL = st.one_of(
    st.sampled_from(["", "a.png", "./b.png", "c.png", "nan", "train", "test", "val", "normal", "cardiomegaly;opacity",
                     "Clear lungs.", '"', '""', "\\", "p1", "\n", "\r", ";", "normal;nodule", "x" * 300]),
    st.text(max_size=12),
)  # fmt: skip
NAME = st.sampled_from(
    ["file_name", "text", "split", "findings", "patient", "study", "Text", " split", "finding", "", "x"]
)


@st.composite
def csv_tables(draw) -> bytes:
    """Something like a CSV file: any separator, line end and encoding, quotes where they may not belong."""
    comma, end = draw(st.sampled_from([",", ",", ",", ";", "\t", "|"])), draw(st.sampled_from(["\n", "\r\n", "\r"]))
    header = draw(st.one_of(st.just(["file_name", "text"]), st.lists(NAME, max_size=5)))
    rows = draw(st.lists(st.lists(CELL, max_size=len(header) + 1), max_size=12))
    quote = draw(st.sampled_from(["", '"']))
    text = end.join([comma.join(header), *(comma.join(f"{quote}{cell}{quote}" for cell in row) for row in rows)])
    return text.encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])), "replace")


def loaded(folder, name, content):
    for path in folder.glob("metadata.*"):
        path.unlink()
    (folder / name).write_bytes(content)
    try:
        parts = {split: load_examples("imagefolder", split, folder) for split in ("train", "val", "test")}
    except DataError as error:
        assert str(error)
    else:
        examples = [example for part in parts.values() for example in part]
        assert len({e.id for e in examples}) == len({e.path.resolve() for e in examples}) == len(examples) > 1
        assert all(e.prompt.strip() == e.prompt and any(map(str.isalpha, e.prompt)) for e in examples)
        assert all(set(e.findings) <= set(FINDINGS) for e in examples)


@fuzzed
@given(content=st.one_of(csv_tables(), st.binary(max_size=200)))
def test_csv(content, folder):
    loaded(folder, "metadata.csv", content)


VALUE = st.one_of(CELL, st.none(), st.booleans(), st.integers(), st.floats(), st.lists(CELL, max_size=3))


@st.composite
def json_lines(draw) -> bytes:
    """Something like JSON Lines: numbers and lists as texts, NaN, lone surrogates, names twice."""
    lines = []
    for _ in range(draw(st.integers(0, 8))):
        pairs = draw(st.lists(st.tuples(NAME, VALUE), max_size=4))
        pairs += draw(st.sampled_from([[], [("file_name", "a.png"), ("text", "Clear.")]]))
        lines.append("{" + ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in pairs) + "}")
    lines += draw(
        st.lists(st.sampled_from(["[]", "3", "{", "[" * 5000, '{"text": "\\ud800"}', "9" * 5000, ""]), max_size=1)
    )
    return "\n".join(lines).encode()


@fuzzed
@given(content=st.one_of(json_lines(), st.binary(max_size=200)))
def test_json_lines(content, folder):
    loaded(folder, "metadata.jsonl", content)


HEADER = st.sampled_from(["Patient's Sex: ", "Patient's Age:", "Age: ", "SEX:", "Patient ID: ", ""])
VALUES = st.sampled_from(["F", "M ", "027Y", "008M", "5", "3 weeks", "999Y", "normal", "", "n/a"])
LINE = st.one_of(st.builds("{}{}{}".format, HEADER, VALUES, st.text(max_size=4)), st.text(max_size=20))


@fuzzed
@given(
    content=st.one_of(st.lists(LINE, max_size=5).map(lambda lines: "\n".join(lines).encode()), st.binary(max_size=80))
)
def test_readings(content, tmp_path):
    (tmp_path / "a.txt").write_bytes(content)
    try:
        sex, age, reading = parse(tmp_path / "a.txt")
    except DataError as error:
        assert "a.txt" in str(error)
    else:
        number, unit = age.split()
        assert sex in "MFO" and int(number) >= 0 and unit.rstrip("s") in ("year", "month", "week", "day")
        assert reading.strip() and "Patient's" not in reading


def archive(kind: str) -> bytes:
    """Two files and a folder of 'set', packed."""
    file = io.BytesIO()
    parts = {"set/1.xml": b"<a/>" * 30, "set/images/2.png": bytes(range(99))}
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in parts.items():
                packed.writestr(name, content)
    else:
        with tarfile.open(fileobj=file, mode="w:gz") as packed:
            for name, content in parts.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                packed.addfile(member, io.BytesIO(content))
    return file.getvalue()


@st.composite
def archives(draw) -> bytes:
    """A damaged archive; of a .tgz also with damage below its compression."""
    kind = draw(st.sampled_from(["zip", "tgz", "tar in tgz"]))
    if kind == "tar in tgz":
        return gzip.compress(draw(damaged(gzip.decompress(archive("tgz")), until=2048)), 1, mtime=0)
    return draw(damaged(archive(kind)))


@fuzzed
@given(content=archives())
def test_archives(content, tmp_path):
    shutil.rmtree(tmp_path)
    (tmp_path / "raw").mkdir(parents=True)
    (tmp_path / "raw" / "a.tgz").write_bytes(content)
    try:
        unpack(tmp_path / "raw" / "a.tgz", tmp_path / "raw" / "set")
    except DataError as error:
        assert "a.tgz" in str(error) or "archive" in str(error) or "needed" in str(error)
        assert [path.name for path in (tmp_path / "raw").iterdir()] == ["a.tgz"]
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
    assert {path.name for path in (tmp_path / "raw").iterdir()} <= {"a.tgz", "set"}
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


REPORT = (
    b'<?xml version="1.0" encoding="utf-8"?><eCitation><uId id="CXR1"/><AbstractText Label="FINDINGS">Large heart.'
    b'</AbstractText><MeSH><major>Cardiomegaly</major></MeSH><parentImage id="CXR1_1_IM-0001-3001"/></eCitation>'
)
DTD = b'<!DOCTYPE a [<!ENTITY b "bb">]>'


@fuzzed
@given(
    content=st.one_of(damaged(REPORT), damaged(REPORT).map(lambda xml: xml.replace(b"?>", b"?>" + DTD, 1)), st.binary())
)
def test_reports(content, tmp_path):
    (tmp_path / "1.xml").write_bytes(content)
    try:
        report = read_report(tmp_path / "1.xml")
    except DataError as error:
        assert "1.xml" in str(error)
    else:
        assert report.id and b"<!DOCTYPE" not in content and all(report.images)
