"""Data sets: splits, prompts and every kind of bad input. The real Montgomery set is read in place where it is."""

import csv
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selora.data import (
    DATASETS,
    FINDINGS,
    SPLITS,
    DataError,
    Example,
    folders,
    iu_reports,
    load_examples,
    load_splits,
    open_image,
)
from selora.data.findings import of_terms
from selora.data.montgomery import parse
from selora.files import REPOSITORY

SETS = ("iu-drr", "montgomery-drr")
REAL = Path(os.environ.get("SELORA_DATA") or REPOSITORY.parent / "shared" / "data")
needs_real_set = pytest.mark.skipif(
    not (REAL / "MontgomerySet").is_dir(), reason="the real Montgomery set is not here; give its folder as SELORA_DATA"
)


def table(name: str) -> list[dict[str, str]]:
    with (REPOSITORY / "data" / name / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def montgomery(tmp_path: Path) -> Path:
    """A folder in Montgomery's published layout: ten made-up cases, every second one normal."""
    folder = tmp_path / "MontgomerySet"
    for part in ("CXR_png", "ClinicalReadings"):
        (folder / part).mkdir(parents=True)
    for i in range(10):
        name = f"MCUCXR_{i:04d}_{i % 2}"
        pixels = np.random.default_rng(i).integers(0, 255, (40, 30), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "CXR_png" / f"{name}.png")
        reading = "made-up shadow\n in one lung" if i % 2 else "normal"
        text = f"Patient's Sex: {'FMO'[i % 3]} \nPatient's Age: 0{20 + i}Y\n{reading}\n"
        (folder / "ClinicalReadings" / f"{name}.txt").write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", SETS)
def test_rendered_sets_load_and_splits_are_disjoint(name):
    ids = Counter()
    for split in SPLITS:
        examples = load_examples(name, split)
        ids.update(example.id for example in examples)
        assert all(example.prompt.strip() and "XXXX" not in example.prompt for example in examples)
        assert all(set(example.findings) <= set(FINDINGS) for example in examples)
    assert set(ids.values()) == {1}
    assert len(ids) == len(table(name))
    files = {path.stem for path in (REPOSITORY / "data" / name / "images").iterdir()}
    assert files == set(ids)


def test_iu_drr_counts():
    rows = table("iu-drr")
    assert Counter(row["split"] for row in rows) == {"train": 1440, "val": 160, "test": 400}
    shown = Counter(name for row in rows for name in row["findings"].split(";"))
    assert min(shown.values()) >= 60, shown


def test_iu_drr_findings_agree_with_the_mesh_terms():
    for row in table("iu-drr"):
        mesh = iu_reports.reports()[row["report_id"]].mesh
        assert (row["findings"] == "normal") == (mesh == ("normal",))
        if len(mesh) == 1 and mesh[0].startswith("Pleural Effusion") and "/left" in mesh[0]:
            assert row["places"] == "left"


def test_montgomery_drr_counts():
    rows = table("montgomery-drr")
    assert Counter(row["findings"] == "normal" for row in rows) == {True: 80, False: 58}
    assert load_examples("montgomery-drr", "val") == []
    assert len(load_examples("montgomery-drr", "test")) == 28
    assert all(
        row["id"] if "id" in row else row["case_id"].endswith("_0") == (row["reading"] == "normal") for row in rows
    )


def test_tables_hold_no_report_text():
    """No run of six words of any report used stands in the table or the card."""
    folder = REPOSITORY / "data" / "iu-drr"
    tracked = " ".join((folder / name).read_text().lower() for name in ("cases.csv", "README.md"))
    for row in table("iu-drr"):
        words = iu_reports.prompt(row["report_id"]).lower().split()
        assert not any(" ".join(words[i : i + 6]) in tracked for i in range(len(words) - 5))


@pytest.mark.parametrize("name", SETS)
def test_images_are_128_pixels_and_grey(name):
    for row in table(name)[::20]:
        case = row.get("report_id") or row["case_id"]
        path = REPOSITORY / "data" / name / "images" / f"{case}.webp"
        assert Image.open(path).size == (128, 128)
        pixels = np.asarray(open_image(path, 128))
        assert pixels.shape == (128, 128, 3)
        assert np.ptp(pixels.astype(int), axis=2).max() == 0
        assert pixels.std() > 30


def test_reports_are_all_there_and_an_empty_one_is_named():
    assert len(iu_reports.reports()) == 3955
    empty = next(report.id for report in iu_reports.reports().values() if not report.findings)
    with pytest.raises(DataError, match=f"Report {empty} has an empty FINDINGS"):
        iu_reports.prompt(empty)
    with pytest.raises(DataError, match="CXR0"):
        iu_reports.prompt("CXR0")


def test_cleaning_drops_marks_only():
    assert (
        iu_reports.clean(" There are no XXXX of\n a pleural  effusion. XXXX. ")
        == "There are no of a pleural effusion.."
    )


def test_unknown_names_list_the_choices():
    with pytest.raises(DataError, match="iu-drr, montgomery-drr, montgomery"):
        load_examples("chexpert", "train")
    for name in DATASETS:
        with pytest.raises(DataError, match="train, val, test"):
            load_examples(name, "valid")


def test_a_set_is_read_once_in_one_order_and_no_other_split_is_lost(monkeypatch, tmp_path):
    examples = [Example(name, tmp_path / name, f"Chest {name}.", ("normal",)) for name in ("a", "b", "c")]
    drawn, read = {"test": examples[:1], "train": examples[1:]}, []
    monkeypatch.setitem(DATASETS, "clinic", lambda root: read.append(root) or drawn)
    parts, _ = load_splits("clinic", tmp_path)
    assert list(parts.items()) == [("train", examples[1:]), ("val", []), ("test", examples[:1])]
    assert read == [tmp_path]
    drawn["dev"] = examples[:1]
    with pytest.raises(DataError, match="'clinic' has the splits dev. Choose from: train, val, test"):
        load_splits("clinic", tmp_path)


@pytest.mark.parametrize(
    ("mesh", "names"),
    [("normal;", ("normal",)), ("Normal;normal", ("normal",)), ("; normal ;;", ("normal",)), ("", ()), (";", ()),
     ("Lung /hypoinflation", ("hypoinflation",)), ("Cardiac Shadow/ enlarged", ("cardiomegaly",)),
     (" Opacity / lung / round", ("nodule",)), ("Calcinosis/ lung", ("calcified granuloma",)),
     ("Medical Device / spine", ()), ("normal;No Indexing", ()),
     ("normal;Nodule ", ("normal", "nodule"))],
)  # fmt: skip
def test_terms_however_they_are_spaced(mesh, names):
    assert of_terms(mesh.split(";")) == names


@pytest.mark.parametrize("name", SETS)
def test_rendered_set_elsewhere(name, tmp_path):
    """A root without the set, as for real data, leaves it in the repository; a set without its table is refused."""
    assert load_examples(name, "test", tmp_path) == load_examples(name, "test")
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="cases.csv is missing"):
        load_examples(name, "train", tmp_path)


@pytest.mark.parametrize("name", SETS)
def test_missing_rendered_image_is_named(name, tmp_path):
    (tmp_path / name / "images").mkdir(parents=True)
    (tmp_path / name / "cases.csv").write_bytes((REPOSITORY / "data" / name / "cases.csv").read_bytes())
    with pytest.raises(DataError, match=r"\.webp is missing"):
        load_examples(name, "train", tmp_path)


def test_montgomery_layout(montgomery):
    train, test = (load_examples("montgomery", split, montgomery) for split in ("train", "test"))
    assert (len(train), len(test)) == (8, 2)
    assert load_examples("montgomery", "val", montgomery) == []
    assert not {e.id for e in train} & {e.id for e in test}
    assert train == load_examples("montgomery", "train", montgomery / "MontgomerySet")
    prompts = {e.id: e.prompt for e in train + test}
    assert prompts["MCUCXR_0000_0"] == "female, 20 years old, normal"
    assert prompts["MCUCXR_0001_1"] == "male, 21 years old, made-up shadow in one lung"
    assert prompts["MCUCXR_0002_0"] == "22 years old, normal"  # sex O
    assert {e.findings for e in train + test} == {("normal",), ("tuberculosis",)}


def test_montgomery_from_the_environment(montgomery, monkeypatch):
    monkeypatch.setenv("SELORA_DATA", str(montgomery))
    assert len(load_examples("montgomery", "train")) == 8
    monkeypatch.delenv("SELORA_DATA")
    monkeypatch.setattr(folders, "RAW", montgomery / "raw")
    with pytest.raises(DataError, match="raw is not there.*National Library of Medicine.*SELORA_DATA"):
        load_examples("montgomery", "train")


@pytest.mark.parametrize("part", ["CXR_png", "ClinicalReadings"])
def test_montgomery_without_a_partner(montgomery, part):
    lost = next((montgomery / "MontgomerySet" / part).iterdir())
    lost.unlink()
    with pytest.raises(DataError, match=lost.stem):
        load_examples("montgomery", "train", montgomery)


def test_montgomery_with_an_empty_reading(montgomery):
    path = montgomery / "MontgomerySet" / "ClinicalReadings" / "MCUCXR_0003_1.txt"
    path.write_text("Patient's Sex: F \nPatient's Age: 027Y\n \n")
    with pytest.raises(DataError, match="MCUCXR_0003_1.txt has no reading"):
        load_examples("montgomery", "train", montgomery)


def test_montgomery_folder_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="MontgomerySet is not there.*National Library of Medicine"):
        load_examples("montgomery", "train", tmp_path)
    (tmp_path / "MontgomerySet" / "CXR_png").mkdir(parents=True)
    with pytest.raises(DataError, match="ClinicalReadings is not there"):
        load_examples("montgomery", "train", tmp_path)


def test_image_that_is_missing_corrupt_or_cut_short(tmp_path):
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(whole)
    bad = {"cut.png": whole.read_bytes()[:2000], "empty.png": b"", "text.png": b"not a picture"}
    damaged = bytearray(whole.read_bytes())
    damaged[1000] ^= 0xFF
    bad["damaged.png"] = bytes(damaged)
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} cannot be read"):
            open_image(tmp_path / name, 32)
    with pytest.raises(DataError, match="gone.png is missing"):
        open_image(tmp_path / "gone.png", 32)


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (33, 32), (10, 500)])
def test_open_image_resizes_and_crops(tmp_path, shape):
    """The middle of the picture stays in the middle."""
    pixels = np.zeros(shape, dtype=np.uint8)
    pixels[shape[0] // 2 - 3 : shape[0] // 2 + 3, shape[1] // 2 - 3 : shape[1] // 2 + 3] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = open_image(tmp_path / "a.png", 32)
    assert (image.size, image.mode) == ((32, 32), "RGB")
    rows, columns, _ = np.nonzero(np.asarray(image) > 128)
    assert abs(rows.mean() - 15.5) < 1.5 and abs(columns.mean() - 15.5) < 1.5


def test_open_image_of_16_bits(tmp_path):
    ramp = np.tile(np.linspace(1000, 5000, 64).astype(np.uint16), (64, 1))
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    pixels = np.asarray(open_image(tmp_path / "deep.png", 64))
    assert pixels.min() == 0 and pixels.max() == 255
    assert (np.diff(pixels[0, :, 0].astype(int)) > 0).all()


@needs_real_set
def test_real_montgomery_set():
    train, test = (load_examples("montgomery", split, REAL) for split in ("train", "test"))
    assert (len(train), len(test)) == (110, 28)
    assert Counter(e.findings[0] for e in train + test) == {"normal": 80, "tuberculosis": 58}
    by_id = {e.id: e for e in train + test}
    assert by_id["MCUCXR_0080_0"].prompt == "5 years old, normal"  # sex O
    assert by_id["MCUCXR_0001_0"].prompt == "female, 27 years old, normal"
    assert open_image(by_id["MCUCXR_0001_0"].path, 224).size == (224, 224)
    for path in (REAL / "MontgomerySet" / "ClinicalReadings").iterdir():
        sex, age, reading = parse(path)
        assert sex in "MFO" and 0 < int(age.removesuffix(" years")) < 120 and "\n" not in reading


def test_rendering_is_deterministic_and_resumes(tmp_path, monkeypatch):
    """The script gives the committed file for a case, in whatever order; a file that is there is left alone."""
    pytest.importorskip("diffdrr", reason="diffdrr is not installed; pip install -e '.[render]'")
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts" / "radiographs"))
    import render_radiographs

    chest = render_radiographs.Chest()  # loaded once for the runs below
    monkeypatch.setattr(render_radiographs, "Chest", lambda: chest)
    names = [f"DRR_{i:04d}_0.webp" for i in (1, 2)]

    def run(folder: Path) -> Path:
        monkeypatch.setattr(sys, "argv", ["", "--set", "montgomery-drr", "--limit", "2", "--out", str(folder)])
        render_radiographs.main()
        return folder / "montgomery-drr"

    first = run(tmp_path / "a")
    kept = tmp_path / "b" / "montgomery-drr" / "images" / names[0]
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"kept")
    second = run(tmp_path / "b")
    assert kept.read_bytes() == b"kept"
    assert (first / "images" / names[1]).read_bytes() == (second / "images" / names[1]).read_bytes()

    published = REPOSITORY / "data" / "montgomery-drr"
    assert (first / "cases.csv").read_text() == (published / "cases.csv").read_text()
    made, kept = (np.asarray(Image.open(f / "images" / names[1]), dtype=float) for f in (first, published))
    assert np.abs(made - kept).mean() < 2  # other versions of torch or WebP may round differently
