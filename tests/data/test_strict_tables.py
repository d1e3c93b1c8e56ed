"""Tables of texts as people have them: read rightly, or refused with the line; CSV and JSON Lines by the same rules."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from selora.data import DataError, DataWarning, load_splits
from selora.data.texts import real_text

COUNT = 20
ROWS = [
    {"file_name": f"{i:02d}.png", "text": f"Film {i}, lungs clear", "split": "test" if i % 4 == 0 else "train"}
    for i in range(COUNT)
]


@pytest.fixture
def folder(tmp_path):
    for i in range(COUNT):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (9, 8), dtype=np.uint8)).save(
            tmp_path / f"{i:02d}.png"
        )
    return tmp_path


def as_csv(rows, header=None, **options) -> str:
    file = io.StringIO()
    writer = csv.writer(file, **options)
    writer.writerows([header or list(rows[0]), *(row.values() for row in rows)])
    return file.getvalue()


def as_lines(rows) -> str:
    return "\n".join(map(json.dumps, rows))


def read(folder, content, name="metadata.csv"):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_splits("imagefolder", folder)


def right(parts) -> bool:
    """Whether every text came with its picture to the split that the table says."""
    found = {e.path.name: (e.prompt, split) for split, part in parts.items() for e in part}
    return found == {row["file_name"]: (row["text"], row["split"]) for row in ROWS}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_and_byte_order_marks(encoding, end, folder):
    assert right(read(folder, as_csv(ROWS, lineterminator=end).encode(encoding))[0])
    (folder / "metadata.csv").unlink()
    assert right(read(folder, as_lines(ROWS).replace("\n", end).encode(encoding), "metadata.jsonl")[0])


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_another_separator_is_said(delimiter, folder):
    parts, said = read(folder, as_csv(ROWS, delimiter=delimiter))
    assert right(parts) and f"read with {delimiter!r} between" in said[0]


@pytest.mark.parametrize(
    "header", ["FILE_NAME,Text,SPLIT", "file name,text,Split", "File-Name,TEXT,split ", "filename, text,split"]
)
def test_a_column_that_differs_in_case_or_signs_is_used_and_said(header, folder):
    parts, said = read(folder, as_csv(ROWS, header=header.split(",")))
    assert right(parts) and any("is read as" in sentence for sentence in said)


@pytest.mark.parametrize(
    ("column", "meant"),
    [("splits", "split"), ("spilt", "split"), ("data_split", "split"), ("slpit", "split"), ("finding", "findings"),
     ("Finding Labels", "findings"), ("findngs", "findings"), ("patient_id", "patient"), ("Patients", "patient"),
     ("study_uid", "study"), ("StudyID", "study")],
)  # fmt: skip
@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_a_column_that_is_nearly_one_is_refused(column, meant, name, folder):
    rows = [{"file_name": row["file_name"], "text": row["text"], column: "x"} for row in ROWS]
    with pytest.raises(DataError, match=f"has a column '{column}', which is nearly '{meant}'"):
        read(folder, as_csv(rows) if name.endswith("csv") else as_lines(rows), name)


@pytest.mark.parametrize("column", ["subset", "partition", "fold", "phase", "set", "is_train"])
@pytest.mark.parametrize("words", [("train", "test"), ("Training", "Validation"), ("TEST", ""), ("dev", "train")])
@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_a_column_of_splits_by_another_name_is_refused(column, words, name, folder):
    rows = [{"file_name": r["file_name"], "text": r["text"], column: words[r["split"] == "test"]} for r in ROWS]
    with pytest.raises(DataError, match=f"The column '{column}' of .* holds .*and there is no column 'split'"):
        read(folder, as_csv(rows) if name.endswith("csv") else as_lines(rows), name)


@pytest.mark.parametrize(
    ("column", "words"),
    [("set", ("train", "holdout")), ("part", ("Train", "eval")), ("set", ("train_set", "test-set")),
     ("note", ("training set", "Hold-out")), ("is_test", ("0", "1")), ("test", ("True", "False")),
     ("isTrain", ("1.0", "0.0")), ("in_val", ("no", "yes")), ("holdout", ("", "x"))],
)  # fmt: skip
@pytest.mark.parametrize("more", [[], ["NA"], ["nan"]])
def test_what_people_call_splits_is_not_drawn_anew(column, words, more, folder):
    rows = [{"file_name": r["file_name"], "text": r["text"], column: words[r["split"] == "test"]} for r in ROWS]
    rows[7:8] = [rows[7] | {column: word} for word in more] or rows[7:8]
    with pytest.raises(DataError, match=f"The column '{column}' of .* holds .*and there is no column 'split'"):
        read(folder, as_csv(rows))


@pytest.mark.parametrize(
    ("column", "words"), [("view", ("PA", "AP")), ("label", ("0", "1")), ("tested", ("yes", "no")), ("set", ("a", "b")),
                          ("note", ("test", "stress"))]
)  # fmt: skip
def test_columns_that_tell_no_split_are_let_be(column, words, folder):
    rows = [{"file_name": r["file_name"], "text": r["text"], column: words[r["split"] == "test"]} for r in ROWS]
    assert len(read(folder, as_csv(rows))[0]["test"]) == 4


@pytest.mark.parametrize(
    "column", ["subject", "subject_id", "SubjectID", "MRN", "pid", "StudyInstanceUID", "accession_number", "exam"]
)
def test_a_patient_or_a_study_by_another_name_is_refused(column, folder):
    rows = [row | {column: f"P{i // 2}"} for i, row in enumerate(ROWS)]
    with pytest.raises(DataError, match=f"has a column '{column}', which is nearly '(patient|study)'"):
        read(folder, as_csv(rows))


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_columns_that_are_not_read_are_said(name, folder):
    rows = [row | {"view": "PA", "label": "1", "exam_date": "2001"} for row in ROWS]
    parts, said = read(folder, as_csv(rows) if name.endswith("csv") else as_lines(rows), name)
    assert right(parts) and len(said) == 1 and "that are not read: view, label, exam_date." in said[0]


def test_columns_of_ones_own_are_let_be(folder):
    more = {"view": "PA", "age": "60", "patient_age": "60", "study_date": "2001", "status": "x", "findings_text": "y"}
    assert right(read(folder, as_csv([row | more for row in ROWS]))[0])


@pytest.mark.parametrize(
    "header",
    [
        "file_name,text,split,Text",
        "file_name,text,split,SPLIT ",
        "file_name,text,split,te_xt",
        "file_name,text,note,Note",
    ],
)
def test_a_column_that_stands_twice_is_refused(header, folder):
    with pytest.raises(DataError, match="more than once"):
        read(folder, as_csv([row | {"more": "x"} for row in ROWS], header=header.split(",")))


def test_a_name_that_stands_twice_in_an_object_is_refused(folder):
    for twice in ('"text": "Other."', '"Text": "Other."', '"file_name": "00.png"'):
        with pytest.raises(DataError, match="more than once"):
            read(folder, as_lines(ROWS).replace("}", f", {twice}}}", 1), "metadata.jsonl")


def lines(change: dict[int, str]) -> str:
    """The table as lines, some of them replaced, by their number in the file."""
    whole = as_csv(ROWS, lineterminator="\n").split("\n")
    return "\n".join(change.get(number, line) for number, line in enumerate(whole, start=1))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({7: '05.png,"Film 5,train'}, 7),
        ({7: '05.png,"Film 5,train', 12: '10.png,Film 10",train'}, 7),  # closed by another that is not opened
        ({7: '05.png,Film 5,"train', 8: '06.png,Film 6,train"'}, 7),
        ({7: '"05.png,Film 5,train', 9: '07.png,"Film 7",train'}, 7),
        ({7: '05.png,Film "5,train'}, 7),
        ({7: '05.png,"Film \\"five\\" clear",train'}, 7),
        ({7: '05.png,"\\"",train'}, 7),
        ({7: '05.png,Film \\"five\\" clear,train'}, 7),
        ({7: '05.png,"Film"5,train'}, 7),
        ({7: "05.png,Film 5, clear,train"}, 7),
        ({7: "05.png,Film 5"}, 7),
        ({7: "05.png"}, 7),
        ({8: "06.png,nan,train"}, 8),
        ({8: '06.png,"{""a"": 1}",train'}, 8),
        ({8: "06.png,Film 6,Training"}, 8),
        ({8: "06.png,Film 6,"}, 8),
        ({8: ",Film 6,train"}, 8),
    ],
)
def test_a_line_that_is_refused_is_named(change, line, folder):
    with pytest.raises(DataError, match=f"line {line} of|from line {line} on"):
        read(folder, lines(change))


def test_texts_that_need_quotes_are_read_as_they_are(folder):
    texts = [
        "Lésion à gauche – Änderung.",
        "#3 rib fracture, healed.",
        "No unknown findings",
        "Heart < 5 cm, lungs > 3 & clear",
        'The "silhouette", enlarged',
        'Film 5" wide',
        "two\nlines, one, two",
        "a; b\tc | d",
        "'single'",
        "C:\\films",
    ]
    rows = [row | {"text": text} for row, text in zip(ROWS, texts, strict=False)] + ROWS[len(texts) :]
    parts, _ = read(folder, as_csv(rows))
    found = {e.path.name: e.prompt for part in parts.values() for e in part}
    assert [found[f"{i:02d}.png"] for i in range(len(texts))] == [" ".join(text.split()) for text in texts]


def test_a_line_end_of_html_is_a_space(folder):
    table = as_csv(ROWS).replace("Film 3, lungs", "Film 3,<BR>lungs").replace("Film 4, lungs", "Film 4,<br /> lungs")
    assert right(read(folder, table)[0])


def test_what_excel_leaves_behind_is_nothing(folder):
    """Empty rows and columns at the end, blank lines at the start, a space before a quote."""
    table = (
        "\n,,,,\n" + as_csv(ROWS, header=["file_name", "text", "split", "", ""], lineterminator=",,\n") + ",,,,\n,,,,\n"
    )
    assert right(read(folder, table.replace(',"Film', ', "Film'))[0])


def test_a_column_without_a_name_is_said(folder):
    rows = [{"": str(i)} | row for i, row in enumerate(ROWS)]  # as pandas writes its index
    parts, said = read(folder, as_csv(rows))
    assert right(parts) and "Column 1 of" in said[0]


@pytest.mark.parametrize(
    "text", ["", " ", "nan", "NaN", "None", "none.", "NULL", "n/a", "N/A", "#N/A", "<NA>", "-", "--", "...", "?", "[]",
             "['clear']", "12.5", "0", "undefined", "Lungs \ufffd clear", "Lungs \x07 clear",
             "nan nan", "None. None.", "NaN, NaN", "#NAME?", "#REF!", "#VALUE!", "#DIV/0!", "####", "Err:502",
             "=B2&C2", '=CONCAT(B2," clear")', "reports/05.txt", "05.png", "s50414267.txt", "C:\\reports\\5.docx",
             "lÃ©sion apicale", "lungs clear â€“ no effusion", "1.2E+05", "b'Lungs clear'", "('Lungs clear',)",
             "<p>Lungs clear.</p>", "Lungs&nbsp;clear", "Heart &lt; 5 cm", "Heart normal.\\nLungs clear."]
)  # fmt: skip
@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_a_placeholder_is_no_text(text, name, folder):
    rows = ROWS[:5] + [ROWS[5] | {"text": text}] + ROWS[6:]
    with pytest.raises(DataError, match="05.png in line [67] of"):
        read(folder, as_csv(rows) if name.endswith("csv") else as_lines(rows), name)


PLACEHOLDERS = [
    "\\N", "#N/D", "#¡REF!", "#¿NOMBRE?", "#WERT!", "#SPILL!", "#I/T", "(blank)", "np.nan", "nan;nan", "na/na",
    "n/a; n/a", "pd.NA", "TBA", "No text", "no data.", "<unk>", "[UNK]", "FINDINGS:", "Findings: Impression:",
    "\u3164", "\u2800", "1.#IND", "-1.#QNAN", "XXXX", "xx xxx", "No report available.", "Not reported", "not stated",
    "Unspecified", "REDACTED", "NoneType", "Loading...", "Lorem ipsum",
]  # fmt: skip
PROGRAMS = [
    "Clear._x000D_ No effusion", "l&eacute;sion", "l&#xe9;sion", "nodule &le; 5 mm", "R&amp;D",
    "<strong>Clear</strong>", "<H1>Chest</H1> clear", "no <em>effusion", "a <font color=red>mass",
    "Clear <!-- draft --> lungs", "<o:p> Clear", "l\\u00e9sion", "l\\xe9sion", "l=C3=A9sion", "Lungs%20clear",
    "l%C3%A9sion", "Clear\\nNo effusion", "Clear.\\n", "array(['Clear'], dtype=object)",
    "0    Clear Name: text, dtype: object", "Series(['Clear'])", "<built-in object>", '="Lungs clear"',
    "='Sheet 2'!B2", "https://x.org/r/5", "s3://films/5", "www.x.org/5", "reports/my file.txt",
    "12345678-1234-5678-1234-56781234567a", "d41d8cd98f00b204e9800998ecf8427e", "report.xlsx", "film(2).nii.gz",
    "C:\\My files\\a b.docx",
]  # fmt: skip
DAMAGED = [
    "lÃ©sion ≥ 3 cm", "l√©sion apicale", "l├®sion apicale", "épanchement, lÃ©sion", "nodule â‰¤ 3, à gauche",
    "clear ‚Äì no effusion, ≥ 3", "Ã\xa0 gauche",
]  # fmt: skip
UNSEEN = "\xad\u200b\ufeff\u202e\u2066\ue000\uffff\u200d\u2060\U000e0041\u3164"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (PLACEHOLDERS, "has the text .* which stands for none|is a list|heading without|not seen"),
        (PROGRAMS, "has a text that (is|holds) .*Write it in plain words"),
        (DAMAGED, "its writing damaged"),
        ([f"Cardio{sign}megaly, mild" for sign in UNSEEN], r"a sign that is not seen .*U\+[0-9A-F]+ \(.*sign 7 of the"),
    ],
)
def test_what_is_no_words_of_a_text_is_refused(texts, message):
    for text in texts:
        with pytest.raises(DataError, match=f"^Image a {message}|^Image a has .*{message}"):
            real_text(text, "Image a")


@pytest.mark.parametrize(
    "text",
    ["L’épanchement “état stable”", "«RÉSULTAT NORMALITÉ\xa0: ÉTÉ»", "LESÃO NÃO VISTA – 3 × 4 cm", "‘Über’ 5 °C ± 1",
     "R&D; stable", "EF=55% BP=120", "rib 3/4 & yes\\no", "Oranı %50 idi", "Findings: clear", "مي\u200cخواهم",
     "Compared with <DATE>: clear", "Heart (normal) [sic]", "No unknown or missing ribs", "Größe ≤ 5 mm, √2", "N",
     "Nodule <3 cm, follow-up in html", "Легкие чистые", "Lungs clear. Dr. Smith e.g. agreed", "#3 rib: none",
     "肺野清晰", "Film a/3.png", "see a.png and b.png for it"]
)  # fmt: skip
def test_words_are_let_be(text):
    assert real_text(text, "Image a") == " ".join(text.split())


def test_one_long_line_is_no_table(folder):
    for line in ("file_name,text," + "clear lungs " * 20000, "a,b," * 50000, "x" * 200000):
        with pytest.raises(DataError, match="metadata.csv (cannot be read from line 1|has )") as caught:
            read(folder, line)
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("text", ["Clear, lungs clear", "Heart large,  no effusion"])
def test_a_text_cut_at_its_comma_is_said(text, folder):
    rows = [f"{i:02d}.png,{text if i == 5 else 'Film'},{'' if i == 5 else f'P{i}'}".rstrip(",") for i in range(COUNT)]
    said = read(folder, "\n".join(["file_name,text,patient", *rows]))[1]
    assert any("begins with a blank in 1 lines, first in line 7. If that is the rest of a text" in s for s in said)


@pytest.mark.parametrize("between", [",", ", "])
def test_blanks_that_all_cells_begin_with_or_quotes_hold_are_not_said(between, folder):
    rows = [between.join((f"{i:02d}.png", f'"Film, {i}, clear"', f"P{i}")) for i in range(COUNT)]
    said = read(folder, "\n".join([between.join(("file_name", "text", "patient")), *rows]))[1]
    assert not any("begins with a blank" in sentence for sentence in said)


@pytest.mark.parametrize("value", ["5", "1.5", "true", '["Clear."]', '{"a": 1}', "NaN", "-Infinity", '"\\ud800 clear"'])
def test_a_value_that_is_no_text(value, folder):
    table = as_lines(ROWS).replace('"Film 3, lungs clear"', value)
    with pytest.raises(DataError, match="(?i)line 4 of"):
        read(folder, table, "metadata.jsonl")


@pytest.mark.parametrize(
    "findings", ["normal;cardiomegaly", "opacity; normal", "Normal;opacity", "normal,opacity", "normal|opacity",
                 "normal/device", "nan", "none", "Opacity", "heart"]
)  # fmt: skip
def test_findings_that_are_refused(findings, folder):
    with pytest.raises(DataError, match="A picture is normal or has findings|Choose from: normal"):
        read(folder, as_csv([row | {"findings": findings} for row in ROWS]))


@pytest.mark.parametrize("findings", [["normal", "opacity"], [None], [["opacity"]], 3, {"opacity": 1}])
def test_findings_in_json_that_are_refused(findings, folder):
    with pytest.raises(DataError):
        read(folder, as_lines([row | {"findings": findings} for row in ROWS]), "metadata.jsonl")


def test_pictures_without_a_row_are_listed(folder):
    (folder / "more").mkdir()
    for name in ("more/late.PNG", "scan.dcm", "1.2.840.3"):
        (folder / name).write_bytes(bytes(128) + b"DICM")
    for name in ("notes.txt", ".hidden.png", "2.5"):
        (folder / name).write_text("no picture")
    _, said = read(folder, as_csv(ROWS[:-2]))
    assert len(said) == 1 and "left out: 5 (" in said[0]
    assert all(name in said[0] for name in ("18.png", "19.png", "more/late.PNG", "scan.dcm", "1.2.840.3"))


def test_a_data_warning_reaches_who_asks_for_one_split(folder):
    from selora.data import load_examples

    (folder / "metadata.csv").write_text(as_csv(ROWS[:-2]))
    with pytest.warns(DataWarning, match="left out"):
        load_examples("imagefolder", "train", folder)


def test_thirty_images_without_findings_or_validation_can_be_used(tmp_path):
    rows = [{"file_name": f"{i}.png", "text": f"Film {i}."} for i in range(30)]
    for i, row in enumerate(rows):
        Image.fromarray(np.full((4, 4), i, np.uint8)).save(tmp_path / row["file_name"])
    parts, said = read(tmp_path, as_csv(rows))
    assert {split: len(part) for split, part in parts.items()} == {"train": 24, "val": 0, "test": 6} and not said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sep=;\nfile_name;text\n00.png;Clear\n", "begins with 'sep=;?', which names no column. Remove that line"),
        ("# made on Monday\nfile_name,text\n", "begins with '# made on Monday', which names no column"),
        ("", "is empty. It needs the columns file_name, text"),
        ("\n\n", "is empty. It needs the columns file_name, text"),
    ],
)
def test_what_stands_before_the_columns_or_in_their_place(content, message, folder):
    with pytest.raises(DataError, match=message):
        read(folder, content)
