"""Readings of the Montgomery set's form: ages with their unit, no header in a prompt, nothing guessed."""

import codecs
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selora.data import DataError, iu_reports, load_splits
from selora.data.iu_xray import read_report
from selora.data.montgomery import compose, parse

REAL = Path(os.environ.get("SELORA_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data") / "MontgomerySet"


@pytest.fixture
def reading(tmp_path):
    def write(content) -> Path:
        path = tmp_path / "MCUCXR_0001_0.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("age", "words"),
    [("045Y", "45 years"), ("008M", "8 months"), ("6 months", "6 months"), ("3 weeks", "3 weeks"), ("012D", "12 days"),
     ("002W", "2 weeks"), ("45 years", "45 years"), ("45 yrs old", "45 years"), ("027y", "27 years"), ("1Y", "1 year"),
     ("001M", "1 month"), ("18M", "18 months")],
)  # fmt: skip
def test_ages_in_words(age, words, reading):
    sex, found, text = parse(reading(f"Patient's Sex: F \nPatient's Age: {age}\nnormal\n"))
    assert compose(sex, found, text) == f"female, {words} old, normal"


@pytest.mark.parametrize(
    "age",
    [
        "8",
        "008X",
        "45 moons",
        "adult",
        "-3Y",
        "3.5Y",
        "999Y",
        ">89Y",
        "045Y 3M",
        "Y",
        "04 5Y",
        "000Y",
        "0 months",
        "000D",
        "131Y",
        "1600M",
        "45",
        "Y045",
        "forty years",
        "4-5Y",
        "NaN",
        "unknown",
        "1e1Y",
    ],
)
def test_an_age_that_is_not_understood_is_named_with_its_line(age, reading):
    with pytest.raises(DataError, match=r"Line 2 of .*MCUCXR_0001_0.txt has the age"):
        parse(reading(f"Patient's Sex: F\nPatient's Age: {age}\nnormal\n"))


@pytest.mark.parametrize(
    "header",
    [
        "Patient's Sex: M",
        "PATIENT'S SEX: m",
        "Patient’s Sex : M",
        "Patients Sex: M",
        "Sex: Male",
        "Gender = male",
        "\tSex:M",
    ],
)
def test_a_header_is_known_however_it_is_written(header, reading):
    for end in ("\n", "\r\n", "\r"):
        text = end.join([header, "Age: 030Y", "  Scar in", " the apex. "])
        assert parse(reading(text)) == ("M", "30 years", "Scar in the apex.")


@pytest.mark.parametrize(
    "line", ["Patient ID: 12", "Patient's Name: X", "Study Date: 2001", "Modality: CR", "Findings:",
             "Patient's Age 045Y", "Weight: 60 kg", "Exam date: 1/2/2003", "Age 045Y", "age 45 years old", "Sex - F",
             "Gender male", "2001-05-03", "3.5.2001 10:15", "May 3, 2001", "3 May 2001", "-----", "* * *",
             "/s/ J. Smith", "Electronically signed by J. Smith", "Dr. J. Smith", "J. Smith, M.D.",
             "MRN: 7", "mrn 77-1", "DOB 2 Feb 1950", "Accession 4711", "patient no. 7", "ID 77", "name Doe, Jane",
             "MCUCXR_0077_1.txt", "http://lhncbc.nlm.nih.gov", "Impression", "findings.", "TECHNIQUE", "page 2",
             "End of report", "A. Jones MD", "O'Neil PhD", "Verified by A. Jones", "Approved by the chair", "F",
             "Male.", "12 months", "M, 33 years", "2nd June 1999", "June 2nd, 1999", "19990602", "08:30 am"]
)  # fmt: skip
def test_a_line_that_is_no_reading_is_refused_with_its_number(line, reading):
    with pytest.raises(DataError, match="Line 3 of .*MCUCXR_0001_0.txt is no part of a reading"):
        parse(reading(f"Patient's Sex: F\nPatient's Age: 045Y\n{line}\nnormal\n"))


@pytest.mark.parametrize(
    "line",
    [
        "3 x 4 cm nodule",
        "1.5",
        "male breast shadow",
        "age-related change, 3 ribs",
        "5/6 ribs, do",
        "sex-linked ill",
        ".",
        "Impression on the fissure",
        "history of TB, now",
        "patient rotated, 3 films",
        "name-like shadow of 2001",
        "female, thin",
        "report of 1999 confirmed as",
        "10 mm and 12 mm nodules",
        "normally",
    ],
)
def test_lines_that_are_wrapped_are_no_headers(line, reading):
    assert parse(reading(f"Sex: F\nAge: 045Y\nScar\n{line}\nseen"))[2] == f"Scar {line} seen"


@pytest.mark.parametrize("line", ["nan", "N/A", "None", "not available"])
def test_a_line_that_stands_for_none_among_others_is_refused(line, reading):
    with pytest.raises(DataError, match=f"Line 4 of .* stands for none: '{line}'"):
        parse(reading(f"Sex: F\nAge: 045Y\nnormal\n{line}\n"))


def test_a_sign_that_is_not_seen_is_named_in_a_reading(reading):
    with pytest.raises(
        DataError, match=r"Reading .*_0.txt has a sign that is not seen .*U\+00AD \(SOFT HYPHEN\), sign 4"
    ):
        parse(reading("Sex: F\nAge: 045Y\nles\xadion"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Sex: F\nAge: 045Y\nSex: M\nnormal", "Line 3 of .* tells the sex again"),
        ("Sex: X\nAge: 045Y\nnormal", "Line 1 of .* has the sex 'X', which is not understood"),
        ("Sex: FM\nAge: 045Y\nnormal", "Line 1 of .* has the sex 'FM'"),
        ("Age: 045Y\nnormal", "has no sex"),
        ("Sex: F\nnormal", "has no age"),
        ("Sex: F\nAge:\nnormal", "has no age"),
        ("Sex: F\nAge: 045Y\n\n", "has no reading"),
        ("Sex: F\nAge: 045Y\nN/A", "has the text 'N/A', which stands for none"),
        ("Sex: F\nAge: 045Y\nl\ufffdsion", "that its writing damaged"),
    ],
)
def test_a_reading_that_is_refused(text, message, reading):
    with pytest.raises(DataError, match=message):
        parse(reading(text))


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le"])
def test_a_reading_in_another_encoding_is_refused(encoding, reading):
    text = "Sex: F\nAge: 045Y\nlésion apicale – gauche".replace("–", "-" if encoding == "latin-1" else "–")
    with pytest.raises(DataError, match="MCUCXR_0001_0.txt cannot be read .*it is no text in UTF-8"):
        parse(reading(text.encode(encoding)))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_signs_stay_what_they_are(encoding, reading):
    assert parse(reading("Sex: F\nAge: 045Y\nlésion à gauche".encode(encoding)))[2] == "lésion à gauche"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real Montgomery set is not here; give its folder as SELORA_DATA")
def test_every_real_reading_is_understood():
    paths = sorted((REAL / "ClinicalReadings").glob("*.txt"))
    assert len(paths) == 138
    for path in paths:
        sex, age, reading = parse(path)
        assert sex in "MFO" and age.endswith("years") and reading in " ".join(path.read_text().split())


@pytest.mark.parametrize(
    "name", ["MCUCXR_0009", "MCUCXR_0009_2", "MCUCXR_0009_10", "MCUCXR_0009_1 copy", "MCUCXR_0009-1"]
)
def test_a_name_that_tells_no_finding_is_refused(name, tmp_path):
    """It would count as tuberculosis."""
    for part, ending in (("CXR_png", "png"), ("ClinicalReadings", "txt")):
        (tmp_path / "MontgomerySet" / part).mkdir(parents=True)
        (tmp_path / "MontgomerySet" / part / f"{name}.{ending}").write_text("Sex: F\nAge: 045Y\nnormal")
    with pytest.raises(DataError, match=f"{name}.png has a name without _0"):
        load_splits("montgomery", tmp_path)


def test_pictures_that_are_not_read_are_named(tmp_path):
    folder = tmp_path / "MontgomerySet"
    for part in ("CXR_png", "ClinicalReadings"):
        (folder / part).mkdir(parents=True)
    for i in range(5):
        Image.fromarray(np.full((4, 4), i, np.uint8)).save(folder / "CXR_png" / f"MCUCXR_{i}_0.png")
        (folder / "ClinicalReadings" / f"MCUCXR_{i}_0.txt").write_text("Sex: F\nAge: 045Y\nnormal")
    Image.fromarray(np.full((4, 4), 9, np.uint8)).save(folder / "CXR_png" / "MCUCXR_9_1.jpg")
    parts, said = load_splits("montgomery", tmp_path)
    assert len(parts["train"]) == 4 and "MCUCXR_9_1.jpg" in said[0]


# ---- reports of IU X-Ray --------------------------------------------------------------------------------------------

XML = '<eCitation><uId id="CXR1"/><AbstractText Label="{label}">{text}</AbstractText></eCitation>'


def test_a_text_with_marks_in_it_is_read_whole(tmp_path):
    (tmp_path / "1.xml").write_text(XML.format(label=" Findings ", text="Large <i>heart</i>, clear lungs."))
    assert read_report(tmp_path / "1.xml").findings == "Large heart, clear lungs."


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused(encoding, tmp_path):
    bomb = '<!DOCTYPE a [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;">]>'
    text = f'<?xml version="1.0" encoding="{encoding}"?>{bomb}{XML.format(label="FINDINGS", text="&b;")}'
    (tmp_path / "1.xml").write_bytes(text.encode(encoding))
    with pytest.raises(DataError, match="1.xml cannot be read"):
        read_report(tmp_path / "1.xml")


@pytest.mark.parametrize(
    "content",
    [b"", b"<a", b"<a/>", codecs.BOM_UTF8, b'<?xml version="1.0" encoding="klingon"?><a/>',
     b"<eCitation><uId/></eCitation>", b" " * (iu_reports.LARGEST + 1)],
)  # fmt: skip
def test_what_is_no_report(content, tmp_path):
    (tmp_path / "1.xml").write_bytes(content)
    with pytest.raises(DataError, match="1.xml cannot be read"):
        read_report(tmp_path / "1.xml")


def test_a_damaged_archive_of_reports_is_named(tmp_path, monkeypatch):
    whole = iu_reports.package_data("NLMCXR_reports.tgz").read_bytes()
    (tmp_path / "NLMCXR_reports.tgz").write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr(iu_reports, "package_data", lambda name: tmp_path / name)
    with pytest.raises(DataError, match="NLMCXR_reports.tgz cannot be read"):
        iu_reports.reports.__wrapped__()
