"""Nothing stands twice and nothing leaks, in any data set; ids that name files; and what a set's texts are like."""

import csv
import hashlib
import json
import os
import random
import shutil
import sys

import numpy as np
import pytest
from PIL import Image
from test_pictures import write_dicom

from selora.data import SPLITS, DataError, Example, load_examples, load_splits, open_image
from selora.data.checks import checked, describe, file_name, text_figures


def picture(path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 8), dtype=np.uint8)).save(path)


def write(folder, rows, header=("file_name", "text")) -> None:
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def loaded(folder):
    return load_splits("imagefolder", folder)


@pytest.fixture
def folder(tmp_path):
    for i in range(20):
        picture(tmp_path / f"{i}.png", i)
    return tmp_path


ROWS = [(f"{i}.png", f"Film {i}.") for i in range(20)]


def test_a_picture_named_twice_by_whatever_way(folder):
    os.symlink(folder / "3.png", folder / "link.png")
    os.link(folder / "3.png", folder / "hard.png")
    (folder / "sub").mkdir()
    os.symlink(folder, folder / "sub" / "up")
    for other, message in (
        ("3.png", "both 3 for short"),
        ("./3.png", "both 3 for short"),
        ("link.png", "are one file"),
        ("hard.png", "are one file"),
        ("sub/up/3.png", "are one file"),
    ):
        write(folder, [*ROWS, (other, "Another text.")])
        with pytest.raises(DataError, match=message):
            loaded(folder)


@pytest.mark.parametrize("pair", [("Film.png", "film.png"), ("É.png", "é.PNG"), ("A.png", "a.jpg")])
def test_names_that_some_disks_take_for_one(pair, tmp_path):
    for i, name in enumerate([*pair, "b.png", "c.png", "d.png"]):
        picture(tmp_path / name, i)
    if len({path.name for path in tmp_path.iterdir()}) < 5:
        pytest.skip("this disk takes them for one")
    write(tmp_path, [(name, f"Film {name}") for name in [*pair, "b.png", "c.png", "d.png"]])
    with pytest.raises(DataError, match="are both .* for short .capitals do not count"):
        loaded(tmp_path)


def test_a_copy_in_another_split_is_refused_and_one_in_the_same_is_named(folder):
    shutil.copy(folder / "3.png", folder / "copy.png")
    header = ("file_name", "text", "split")
    rows = [(*row, "test" if i < 4 else "train") for i, row in enumerate(ROWS)]
    write(folder, [*rows, ("copy.png", "Other words.", "train")], header)
    with pytest.raises(DataError, match=r"several splits are the same picture.*copy.png \(train\).*3.png \(test\)"):
        loaded(folder)
    write(folder, [*rows, ("copy.png", "Other words.", "test")], header)
    assert any("copies of others: 1" in sentence and "copy.png" in sentence for sentence in loaded(folder)[1])


@pytest.mark.parametrize("column", ["study", "patient"])
def test_a_study_is_kept_together_by_its_column(column, folder):
    write(folder, [(*row, f"P{i // 3}") for i, row in enumerate(ROWS)], ("file_name", "text", column))
    parts, _ = loaded(folder)
    groups = [{int(e.id) // 3 for e in parts[split]} for split in ("train", "test")]
    assert groups[0] and groups[1] and not groups[0] & groups[1]
    rows = [(*row, f"P{i // 3}", "test" if i < 4 else "train") for i, row in enumerate(ROWS)]  # P1 on both sides
    write(folder, rows, ("file_name", "text", column, "split"))
    with pytest.raises(DataError, match=r"several splits are of one study, report or patient: .*3.png \(test\)"):
        loaded(folder)


@pytest.mark.parametrize("spelt", [("P1", "p1"), ("Müller 3", "MÜLLER 3"), ("Ａ9", "A9")])
def test_a_patient_is_one_however_he_is_spelt(spelt, folder):
    rows = [(*row, spelt[i] if i < 2 else f"Q{i}", "test" if i in (0, 5) else "train") for i, row in enumerate(ROWS)]
    write(folder, rows, ("file_name", "text", "patient", "split"))
    with pytest.raises(DataError, match="several splits are of one study, report or patient"):
        loaded(folder)


@pytest.mark.parametrize("value", ["", "nan", "N/A", "-"])
def test_a_patient_who_is_not_named(value, folder):
    write(
        folder, [(*row, value if i == 7 else f"P{i}") for i, row in enumerate(ROWS)], ("file_name", "text", "patient")
    )
    with pytest.raises(DataError, match="7.png in line 9 of .* has no patient"):
        loaded(folder)


def test_a_study_of_two_patients(folder):
    rows = [(*row, f"P{i}", "S1") for i, row in enumerate(ROWS)]
    write(folder, rows, ("file_name", "text", "patient", "study"))
    with pytest.raises(DataError, match="Study S1 in line 3 of .* has another patient"):
        loaded(folder)


@pytest.mark.parametrize(
    "layout", ["S{i}/{view}.png", "all/S{i}/{view}.png", "p{i}/s{view}/film.png", "n{half}/p{i}/s{view}.png"]
)
def test_a_folder_a_study_is_kept_together_without_a_column(layout, tmp_path):
    names = [(layout.format(i=i, view=view, half=i // 8), i) for i in range(15) for view in range(3)]
    for seed, (name, _) in enumerate(names):
        picture(tmp_path / name, seed)
    write(tmp_path, [(name, f"Study {i}, view {name}") for name, i in names])
    parts, said = loaded(tmp_path)
    train, test = ({e.prompt.split(",")[0] for e in parts[split]} for split in ("train", "test"))
    assert train and test and not train & test
    assert any("taken for one study" in sentence for sentence in said)


def dicoms(folder, header) -> list[str]:
    """Twenty DICOM files, the i-th with the elements of header(i)."""
    for i in range(20):
        write_dicom(folder / f"{i}.dcm", np.random.default_rng(i).integers(0, 99, (9, 8), dtype=np.uint8), **header(i))
    return [f"{i}.dcm" for i in range(20)]


NAMED = {
    "PatientID": lambda i: {"PatientID": f"1.2.{i // 3}"},
    "StudyInstanceUID": lambda i: {"StudyInstanceUID": f"1.2.{i // 3}"},
    "AccessionNumber": lambda i: {"AccessionNumber": f"A{i // 3}"},
    "name and birth": lambda i: {"PatientName": f"Roe^J{i // 3}", "PatientBirthDate": "19500101", "PatientID": ""},
    "image": lambda i: {"SOPInstanceUID": f"1.2.3.{i // 3}", "PatientID": str(i)},
}


@pytest.mark.parametrize("element", NAMED)
def test_dicom_headers_keep_a_patient_or_a_study_together(element, tmp_path):
    names = dicoms(tmp_path, NAMED[element])
    write(tmp_path, [(name, f"Film {i // 3}.") for i, name in enumerate(names)])
    parts, said = loaded(tmp_path)
    train, test = ({e.prompt for e in parts[split]} for split in ("train", "test"))
    assert train and test and not train & test and any("by their DICOM headers" in sentence for sentence in said)
    write(tmp_path, [(n, f"Film {i}.", "test" if i < 4 else "train") for i, n in enumerate(names)],
          ("file_name", "text", "split"))  # fmt: skip
    with pytest.raises(DataError, match="several splits are of one study, report or patient"):
        loaded(tmp_path)
    rows = [(n, f"Film {i}.", f"Q{i}", "test" if i < 4 else "train") for i, n in enumerate(names)]
    write(tmp_path, rows, ("file_name", "text", "patient", "split"))  # the table knows better
    assert len(loaded(tmp_path)[0]["test"]) == 4


@pytest.mark.parametrize("patient", [lambda i: "ANON", lambda i: "", lambda i: "ANON" if i < 14 else str(i), str,
                                     lambda i: ("Anonymous^Patient", "unknown", "0000", "XXX")[i % 4]])  # fmt: skip
def test_headers_that_name_nobody_keep_nothing_together(patient, tmp_path):
    write(tmp_path, [(n, f"Film {i}.") for i, n in enumerate(dicoms(tmp_path, lambda i: {"PatientID": patient(i)}))])
    parts, said = loaded(tmp_path)
    assert len(parts["test"]) == 4 and not said


HEADERS = {
    "few patients": lambda i: f"P{i % 4}",
    "three patients": lambda i: f"P{i % 3}",
    "one patient on most": lambda i: "ID9" if i < 11 else f"P{i}",
    "one patient on nearly all": lambda i: "ID9" if i > 2 else f"P{i}",
    "one patient on a few, others without a name": lambda i: "ID9" if i % 5 == 2 else "",
    "numbers behind a word": lambda i: f"ANON{i % 7}",
}


@pytest.mark.parametrize("patient", HEADERS)
@pytest.mark.parametrize("study", [False, True])  # whether the table names one for each image
def test_patients_of_headers_are_kept_together_however_many_images_they_have(patient, study, tmp_path):
    names = dicoms(tmp_path, lambda i: {"PatientID": HEADERS[patient](i), "StudyInstanceUID": f"1.2.{i}"})
    header = ("file_name", "text", *["study"] * study)
    rows = [(n, f"Film {i}.", *[f"S{i}"] * study) for i, n in enumerate(names)]
    write(tmp_path, rows, header)
    parts, said = loaded(tmp_path)
    who = [{HEADERS[patient](int(e.id)) or e.id for e in parts[split]} for split in ("train", "test")]
    assert who[0] and who[1] and not who[0] & who[1] and any("by their DICOM headers" in s for s in said)
    write(tmp_path, [(*row, "test" if i < 4 else "train") for i, row in enumerate(rows)], (*header, "split"))
    with pytest.raises(DataError, match="several splits are of one study, report or patient"):
        loaded(tmp_path)


def test_a_study_links_its_images_of_which_one_alone_names_the_patient(tmp_path):
    names = dicoms(
        tmp_path, lambda i: {"PatientID": "" if i % 2 else f"P{i // 6}", "StudyInstanceUID": f"1.2.{i // 2}"}
    )
    write(tmp_path, [(n, f"Film {i // 6}.") for i, n in enumerate(names)])
    train, test = ({e.prompt for e in loaded(tmp_path)[0][split]} for split in ("train", "test"))
    assert train and test and not train & test


@pytest.mark.parametrize("patients", [("HOSPITAL7",), ("A1", "B2")])
def test_headers_that_name_one_or_two_for_all_are_said(patients, tmp_path):
    names = dicoms(tmp_path, lambda i: {"PatientID": patients[i % len(patients)]})
    write(tmp_path, [(n, f"Film {i}.") for i, n in enumerate(names)])
    parts, (sentence,) = loaded(tmp_path)
    assert len(parts["test"]) == 4 and f"name only {' and '.join(patients).lower()} as patient" in sentence


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes on Linux alone")
def test_a_name_that_is_no_text_can_be_said(folder, capsys):
    picture(folder / os.fsdecode(b"left\xff.png"), 30)
    picture(folder / os.fsdecode(b"f\xe9.png"), 31)
    write(folder, ROWS)
    (sentence,) = loaded(folder)[1]
    assert "left out: 2" in sentence and "left\\udcff.png" in sentence and sentence.encode()
    lines = [
        json.dumps({"file_name": name, "text": text}) for name, text in [*ROWS, (os.fsdecode(b"f\xe9.png"), "Film.")]
    ]
    (folder / "metadata.csv").unlink()
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    ids = [e.id for part in loaded(folder)[0].values() for e in part]
    assert len(ids) == 21 and all(name.encode() for name in ids)
    (folder / "metadata.jsonl").write_text(
        "\n".join([*lines, json.dumps({"file_name": "\ud800.png", "text": "Film."})])
    )
    with pytest.raises(DataError, match="missing") as caught:
        loaded(folder)
    assert str(caught.value).encode()


def test_folders_of_classes_are_no_studies(tmp_path):
    names = [f"{'normal' if i % 2 else 'ill'}/{i}.png" for i in range(20)]
    for i, name in enumerate(names):
        picture(tmp_path / name, i)
    write(tmp_path, [(name, f"Film {name}") for name in names])
    parts, said = loaded(tmp_path)
    assert len(parts["test"]) == 4 and "drawn one by one" in said[0]


@pytest.mark.parametrize("folders", [("train", "test"), ("Training", "valid"), ("x/train", "x/val")])
def test_folders_called_after_splits_need_the_column(folders, tmp_path):
    names = [f"{folders[i % 2]}/{i}.png" for i in range(20)]
    for i, name in enumerate(names):
        picture(tmp_path / name, i)
    write(tmp_path, [(name, f"Film {name}") for name in names])
    with pytest.raises(DataError, match="no column says their split"):
        loaded(tmp_path)


def test_without_groups_the_draw_is_what_it_was(folder):
    write(folder, ROWS)
    drawn = sorted(str(i) for i in range(20))
    random.Random(42).shuffle(drawn)
    parts, _ = loaded(folder)
    assert [e.id for e in parts["test"]] == drawn[:4] and [e.id for e in parts["train"]] == drawn[4:]


@pytest.mark.parametrize(
    "name",
    [
        "1.2.840." + "7" * 56,
        "/".join(["1.2.840." + "7" * 56] * 3),
        "ü" * 60,
        "a?b*c",
        "con",
        "nul.x",
        "é\u0301 x",
        "a:b",
        "ends ",
    ],
)
def test_every_id_names_a_file(name, tmp_path):
    for i in range(6):
        picture(tmp_path / f"{name}{'' if i == 0 else i}.png", i)
    write(tmp_path, [(f"{name}{'' if i == 0 else i}.png", f"Film {i}.") for i in range(6)])
    examples = [e for part in loaded(tmp_path)[0].values() for e in part]
    (tmp_path / "samples").mkdir()
    for example in examples:
        assert file_name(example.id) == example.id and len(example.id.encode()) <= 125
        (tmp_path / "samples" / f"{example.id}.png").touch()
    assert len(list((tmp_path / "samples").iterdir())) == len(examples) == 6


def test_an_id_that_is_no_file_name_is_refused(tmp_path):
    picture(tmp_path / "a.png", 0)
    for name in ("a/b", "../a", "", ".", "a\0b", "x" * 300):
        with pytest.raises(DataError, match="no file's name"):
            checked({"train": [Example(name, tmp_path / "a.png", "Clear.", ())]})


# ---- the real sets --------------------------------------------------------------------------------------------------


@pytest.fixture
def kaggle(tmp_path):
    folder = tmp_path / "indiana"
    projections = [("uid", "filename", "projection")]
    reports = [("uid", "MeSH", "findings")]
    for uid in range(1, 21):
        projections.append((uid, f"{uid}_IM.dcm.png", "Frontal"))
        reports.append((uid, "normal", f"Clear, number {uid}."))
        picture(folder / "images" / "images_normalized" / f"{uid}_IM.dcm.png", uid)
    tables = {"indiana_projections.csv": projections, "indiana_reports.csv": reports}

    def save():
        for name, rows in tables.items():
            with (folder / name).open("w", newline="") as file:
                csv.writer(file).writerows(rows)

    save()
    return folder, projections, reports, save


@pytest.mark.parametrize("name", ["iu-xray", "iu-xray-released"])
@pytest.mark.parametrize(
    ("table", "row", "message"),
    [
        (2, (5, "normal", "Other words."), "Report 5 in line 22 of .* is in line 6 of"),
        (2, (5, "normal", "Clear, number 5."), "Report 5 in line 22 of .* is in line 6 of"),
        (1, (5, "5_IM.dcm.png", "Frontal"), "both 5_IM for short"),
        (1, (6, "5_IM.dcm.png", "Frontal"), "both 5_IM for short"),
        (1, (6, "./5_IM.dcm.png", "Frontal"), "5_IM"),
        (1, (6, "../images_normalized/5_IM.dcm.png", "Frontal"), "5_IM|no file's name"),
    ],
)
def test_what_stands_twice_in_kaggles_tables(table, row, message, name, kaggle):
    kaggle[table].append(row)
    kaggle[3]()
    with pytest.raises(DataError, match=message):
        load_examples(name, "train", kaggle[0])


@pytest.mark.parametrize(
    ("mesh", "text", "message"),
    [
        ("normal;Cardiomegaly", "Clear.", "A picture is normal or has findings"),
        ("Opacity/lung; Normal", "Clear.", "A picture is normal or has findings"),
        ("normal", "nan", "Report 21 in line 22 of .* has the text 'nan'"),
        ("normal", "N/A", "Report 21 in line 22 of .* has the text"),
    ],
)
def test_a_report_that_is_refused(mesh, text, message, kaggle):
    folder, projections, reports, save = kaggle
    picture(folder / "images" / "images_normalized" / "21_IM.dcm.png", 21)
    projections.append((21, "21_IM.dcm.png", "Frontal"))
    reports.append((21, mesh, text))
    save()
    with pytest.raises(DataError, match=message):
        load_examples("iu-xray", "train", folder)


def test_two_copies_of_a_set(kaggle):
    folder = kaggle[0]
    shutil.copytree(folder, folder.parent / "zz")
    with pytest.raises(DataError, match="indiana_projections.csv and .*zz.*are both there"):
        load_examples("iu-xray", "train", folder.parent)
    assert load_examples("iu-xray", "train", folder)


def test_copies_leak_in_the_papers_split_and_are_said_in_the_released_one(kaggle):
    folder, _, _, _ = kaggle
    first = load_examples("iu-xray", "test", folder)[0].path
    shutil.copy(first, load_examples("iu-xray", "train", folder)[0].path)
    with pytest.raises(DataError, match="several splits are the same picture"):
        load_examples("iu-xray", "train", folder)
    parts, said = load_splits("iu-xray-released", folder)
    split_of = {e.path: split for split, part in parts.items() for e in part}
    copies = [p for p in split_of if p.read_bytes() == first.read_bytes()]
    assert len(copies) == 2 and said and all(p.name in " ".join(said) for p in copies[1:])


def test_images_that_kaggles_table_does_not_list_are_named(kaggle):
    picture(kaggle[0] / "images" / "images_normalized" / "99_IM.dcm.png", 99)
    said = load_splits("iu-xray", kaggle[0])[1]
    assert any("99_IM.dcm.png" in sentence and "left out" in sentence for sentence in said)


# ---- texts ----------------------------------------------------------------------------------------------------------


class Words:
    """A tokenizer of whole words."""

    model_max_length = 8

    def __call__(self, text, **_):
        from types import SimpleNamespace

        return SimpleNamespace(input_ids=text.split())

    def decode(self, words):
        return " ".join(words)


def test_what_is_said_of_texts(tmp_path):
    def example(name, prompt, *findings):
        return Example(name, tmp_path / name, prompt, findings)

    parts = {
        "train": [
            example("a", "clear lungs"),
            example("b", "one two three four five six enlarged heart", "cardiomegaly"),  # 6 words are read
            example("c", "enlarged heart three four five six cardiomegaly", "cardiomegaly"),
            example("d", "one two three four five six no effusion", "nodule"),
        ],
        "val": [example("e", "one two three four five six effusion nodules", "pleural effusion", "nodule")],
        "test": [example("f", "clear lungs"), example("g", "clear lungs."), example("h", "clear lungs")],
    }
    figures = text_figures(parts, Words())
    assert figures == {
        "prompts": 8, "test_prompts": 3, "test_prompts_in_train": 2, "limit": 8, "prompts_cut": 4,
        "named_in_lost_words": {"cardiomegaly": 1, "pleural effusion": 1, "nodule": 1},
    }  # fmt: skip
    assert describe(figures).startswith("2 of 3 test prompts stand word for word in the training set. 4 of 8 prompts")
    assert "none" in describe(text_figures({"train": [], "test": []}, Words()))


# ---- published results depend on these ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pixels", "texts"),
    [
        ("iu-drr", "625b22f7514801b3", "f99dbf5070e7f966"),
        ("montgomery-drr", "fbf3c944ceea606a", "cdc6be27e00f0523"),
    ],
)
def test_the_shipped_sets_are_what_they_were(name, pixels, texts):
    """Every pixel and prompt, hashed at dbe0aec, before one conversion served all formats."""
    digests = hashlib.sha256(), hashlib.sha256()
    for split in SPLITS:
        for e in load_examples(name, split):
            digests[0].update(np.asarray(open_image(e.path, 128)).tobytes())
            digests[1].update(repr((split, e.id, e.prompt, e.findings, e.places)).encode())
    assert [digest.hexdigest()[:16] for digest in digests] == [pixels, texts]


# ---- names that stand for many, or for one in several spellings -----------------------------------------------------


@pytest.mark.parametrize("column", ["patient", "study"])
@pytest.mark.parametrize("name", ["anonymous", "ANON", "Anonymized", "de-identified", "XXXX", "1.23E+11", "2E+05"])
@pytest.mark.parametrize("count", [14, 20])
def test_a_name_that_stands_for_many_is_refused(name, count, column, folder):
    write(folder, [(*row, name if i < count else f"P{i}") for i, row in enumerate(ROWS)], ("file_name", "text", column))
    with pytest.raises(DataError, match=f"0.png in line 2 of .* has the {column} .*(for many|shortened)"):
        loaded(folder)


@pytest.mark.parametrize("name", ["0", "-1", "patient", "Doe"])
def test_a_name_that_most_images_have_is_said(name, folder):
    write(folder, [(*r, name if i < 14 else f"P{i}") for i, r in enumerate(ROWS)], ("file_name", "text", "patient"))
    assert any("14 of 20 images have the name" in sentence for sentence in loaded(folder)[1])
    write(folder, [(*r, name if i < 3 else f"P{i}") for i, r in enumerate(ROWS)], ("file_name", "text", "patient"))
    assert not loaded(folder)[1]
    for count in (1, 2):
        rows = [(*row, f"{name}{i % count}") for i, row in enumerate(ROWS)]
        write(folder, rows, ("file_name", "text", "patient"))
        with pytest.raises(DataError, match=f"20 images are of {count} patients or studies .*a test set needs 3"):
            loaded(folder)


@pytest.mark.parametrize(
    "spelt",
    [("Doe  John", "Doe John"), ("A\u200b1", "A1"), ("Doe\xa0J", "doe j"), ("So\xadto", "Soto"), ("1", "1.0"),
     ("A\u115f7", "A7"), ("R\ufe0e-1", "R-1"), ("X-7", "X\u20127"), ("X\u20137", "X\u20147"), ("\u0967\u0968", "12"),
     ("01", "1"), ("0040", "40.00")],
)  # fmt: skip
def test_one_patient_in_two_spellings_in_two_splits(spelt, folder):
    rows = [(*row, spelt[i] if i < 2 else f"Q{i}", "test" if i in (0, 5) else "train") for i, row in enumerate(ROWS)]
    write(folder, rows, ("file_name", "text", "patient", "split"))
    with pytest.raises(DataError, match="several splits are of one study, report or patient"):
        loaded(folder)


@pytest.mark.parametrize("names", [("1.1", "1.10"), ("P01", "P1"), ("10", "1"), ("A 1", "A1")])
def test_patients_with_names_that_are_alike(names, folder):
    rows = [(*row, names[i] if i < 2 else f"Q{i}", "test" if i in (0, 5) else "train") for i, row in enumerate(ROWS)]
    write(folder, rows, ("file_name", "text", "patient", "split"))
    assert len(loaded(folder)[0]["test"]) == 2


@pytest.mark.parametrize(
    ("mesh", "names"),
    [("normal;", ("normal",)), ("normal;nan", ("normal",)), ("nan", ()), ("", ()),
     (" Opacity / lung / round", ("nodule",)), ("PLEURAL EFFUSION/LEFT", ("pleural effusion",)),
     ("lung/HYPOINFLATION;airspace disease", ("hypoinflation", "opacity")),
     ("Hernia, Hiatal;scoliosis", ("scoliosis",))],
)  # fmt: skip
def test_mesh_terms_in_kaggles_table(mesh, names, kaggle):
    folder, _, reports, save = kaggle
    reports[3] = (3, mesh, reports[3][2])
    save()
    parts, said = load_splits("iu-xray", folder)
    assert [e.findings for part in parts.values() for e in part if e.study == "3"] == [names]
    assert any("1 reports have no MeSH terms" in s and "such as 3:" in s for s in said) == (not names)


@pytest.mark.parametrize("mesh", ["Cardiomegaly|Opacity/lung", "Cardiomegaly,Opacity", "['Opacity', 'Nodule']"])
def test_mesh_terms_that_would_hide_each_other_are_refused(mesh, kaggle):
    folder, _, reports, save = kaggle
    reports[7] = (7, mesh, reports[7][2])
    save()
    with pytest.raises(DataError, match=r"MeSH terms of report 7 in line 8 of .* are not joined by ';'"):
        load_splits("iu-xray", folder)


LAYOUTS = {  # of the i-th image, and whether two of a kind lie side by side
    "a folder a patient": (lambda i: f"P{i // 2}/{i % 2}.png", True),
    "folders in those of splits": (lambda i: f"{'test' if i % 2 else 'train'}/P{i // 2}/a.png", True),
    "names": (lambda i: f"{i // 2:08d}_{i % 2:03d}.png", True),
    "names of views": (lambda i: f"{i // 2}-{'frontal' if i % 2 else 'lateral'}.png", True),
    "numbers": (lambda i: f"{i}.png", False),
    "numbers behind one word": (lambda i: f"film_{i}.png", False),
    "two classes": (lambda i: f"{'normal' if i % 2 else 'sick'}_{i}.png", False),
    "a folder an image": (lambda i: f"P{i}/a.png", False),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_looks_like_one_patients_images_in_two_splits_is_said(layout, tmp_path):
    name, said_so = LAYOUTS[layout]
    for i in range(20):
        picture(tmp_path / name(i), i)
    header = ("file_name", "text", "split")
    write(tmp_path, [(name(i), f"Film {i}.", "test" if i % 2 else "train") for i in range(20)], header)
    parts, said = loaded(tmp_path)
    assert len(parts["test"]) == 10
    assert any("are in several splits, and nothing names their patients" in sentence for sentence in said) == said_so
    write(tmp_path, [(name(i), f"Film {i}.", "test" if i < 10 else "train") for i in range(20)], header)
    assert not any("several splits" in sentence for sentence in loaded(tmp_path)[1])  # each pair is in one
    rows = [(name(i), f"Film {i}.", "test" if i % 2 else "train", f"Q{i}") for i in range(20)]
    write(tmp_path, rows, (*header, "patient"))
    assert not any("several splits" in sentence for sentence in loaded(tmp_path)[1])  # the table knows
