"""The sets that the user keeps: IU X-Ray in both layouts and splits, and a folder of images with texts, all made up
here; and a run on each."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.model_selection import train_test_split
from test_pictures import write_dicom

from selora.data import SPLITS, DataError, findings, folders, iu_reports, load_examples
from selora.data.iu_frontal import frontal_images
from selora.files import DATA, write_json
from selora.study import stages
from selora.study.fingerprints import hash_examples
from selora.study.profiles import load_profile
from selora.study.results import Run
from selora.study.run import make_run

REPORTS = 150  # of each made-up IU set, with findings and a frontal image


def picture(path: Path, seed: int = 0, colour: bool = False) -> None:
    shape = (24, 20, 3) if colour else (24, 20)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)


def splits(name: str, root: Path) -> dict[str, list]:
    return {split: load_examples(name, split, root) for split in SPLITS}


def report_of(example) -> str:
    return example.id.removeprefix("CXR").split("_")[0]


@pytest.fixture
def kaggle(tmp_path):
    """The redistribution: every report has a lateral image, every fifth two frontal ones; two have no findings."""
    folder, projections, texts = tmp_path / "indiana", [], []
    for uid in range(1, REPORTS + 3):
        names = [f"{uid}_IM-{uid:04d}-1001.dcm.png"] + [f"{uid}_IM-{uid:04d}-3001.dcm.png"] * (uid % 5 == 0)
        for name in names:
            projections.append((uid, name, "Frontal"))
            picture(folder / "images" / "images_normalized" / name, uid)
        projections.append((uid, f"{uid}_IM-{uid:04d}-2001.dcm.png", "Lateral"))  # whose file is not even there
        findings = f"Enlarged heart XXXX,\nnumber {uid}." if uid <= REPORTS else " XXXX "
        texts.append((uid, "Cardiomegaly/mild;Opacity/lung/base/left;Spine/degenerative", findings))
    for name, header, rows in (
        ("indiana_projections.csv", ("uid", "filename", "projection"), projections),
        ("indiana_reports.csv", ("uid", "MeSH", "findings"), texts),
    ):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
    return folder


@pytest.fixture
def openi(tmp_path):
    """The original layout, of as many real image names: the first reports with a frontal and another image."""
    frontal, made = frontal_images(), 0
    (tmp_path / "ecgen-radiology").mkdir()
    for report in iu_reports.reports().values():
        if made < REPORTS + 2 and len(report.images) > 1 and frontal & set(report.images):
            made += 1
            findings = f"Enlarged heart XXXX, number {report.id}." if made <= REPORTS else ""
            images = "".join(f'<parentImage id="{name}"/>' for name in report.images)
            (tmp_path / "ecgen-radiology" / f"{report.id[3:]}.xml").write_text(
                f'<eCitation><uId id="{report.id}"/><AbstractText Label="FINDINGS">{findings}</AbstractText>'
                f"<MeSH><major>Cardiomegaly/mild</major></MeSH>{images}</eCitation>"
            )
            for name in report.images:
                picture(tmp_path / "NLMCXR_png" / f"{name}.png", made)
    return tmp_path


@pytest.fixture
def folder(tmp_path):
    """A folder of thirty colour images."""
    rows = [{"file_name": f"images/{i:02d}.png", "text": f"Heart, number {i}", "findings": ""} for i in range(30)]
    rows[3]["findings"] = "cardiomegaly;opacity"
    for i, row in enumerate(rows):
        picture(tmp_path / row["file_name"], i, colour=True)
    pd.DataFrame(rows).to_csv(tmp_path / "metadata.csv", index=False)
    return tmp_path


# ---- IU X-Ray -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["kaggle", "openi"])
def test_the_papers_split_is_by_report(layout, request):
    parts = splits("iu-xray", request.getfixturevalue(layout))
    drawn = {split: {report_of(e) for e in examples} for split, examples in parts.items()}
    assert {split: len(reports) for split, reports in drawn.items()} == {"train": 120, "val": 24, "test": 6}
    assert len(set.union(*drawn.values())) == REPORTS  # none in two splits
    assert len({e.id for examples in parts.values() for e in examples}) == sum(map(len, parts.values()))


def test_kaggle_layout(kaggle):
    examples = [e for part in splits("iu-xray", kaggle).values() for e in part]
    assert len(examples) == REPORTS + REPORTS // 5  # lateral images and reports without findings are left out
    example = next(e for e in examples if e.id == "7_IM-0007-1001")
    assert example.prompt == "Enlarged heart, number 7."
    assert example.findings == ("cardiomegaly", "opacity")
    assert example.path == kaggle / "images" / "images_normalized" / "7_IM-0007-1001.dcm.png"
    assert splits("iu-xray", kaggle.parent) == splits("iu-xray", kaggle)  # one folder further up


@pytest.mark.parametrize("images", ["NLMCXR_png/NLMCXR_png", "NLMCXR_png", "."])
def test_openi_layout_wherever_the_archives_were_unpacked(openi, images):
    before = splits("iu-xray", openi)
    ids = {e.id for part in before.values() for e in part}
    listed = {name for path in openi.glob("*/*.png") for name in [path.stem]}
    assert ids < listed & frontal_images()
    assert {e.prompt for e in before["test"]} == {f"Enlarged heart, number CXR{report_of(e)}." for e in before["test"]}
    assert {e.findings for e in before["test"]} == {("cardiomegaly",)}
    (openi / "NLMCXR_png").rename(openi / "unpacked")
    (openi / images).mkdir(parents=True, exist_ok=True)
    for path in (openi / "unpacked").iterdir():
        path.rename(openi / images / path.name)
    (openi / "NLMCXR_reports").mkdir()
    (openi / "ecgen-radiology").rename(openi / "NLMCXR_reports" / "ecgen-radiology")
    assert {s: [e.id for e in part] for s, part in splits("iu-xray", openi).items()} == {
        s: [e.id for e in part] for s, part in before.items()
    }


@pytest.mark.parametrize("layout", ["kaggle", "openi"])
def test_the_released_split_is_scikit_learns(layout, request):
    """Drawn here by number: image i of the set in its order is i."""
    root = request.getfixturevalue(layout)
    if layout == "kaggle":
        table = pd.read_csv(root / "indiana_projections.csv")
        names = table[(table.projection == "Frontal") & (table.uid <= REPORTS)].filename.str.split(".").str[0].tolist()
    else:
        order = sorted((int(path.stem), path.stem) for path in root.glob("ecgen-radiology/*.xml"))
        ours = [iu_reports.reports()[f"CXR{number}"] for number, _ in order]
        with_findings = {e.prompt.split()[-1][:-1] for part in splits("iu-xray", root).values() for e in part}
        names = [n for r in ours if r.id in with_findings for n in r.images if n in frontal_images()]
    train, held_out = train_test_split(np.arange(len(names)), test_size=0.2, random_state=42)
    val, test = train_test_split(held_out, test_size=0.2, random_state=42)
    found = {split: [e.id for e in part] for split, part in splits("iu-xray-released", root).items()}
    assert found == {
        "train": [names[i] for i in train],
        "val": [names[i] for i in val],
        "test": [names[i] for i in test],
    }


def test_what_is_known_of_views():
    """The counts in the docstring, and no image that the DICOM field or the pixels call lateral."""
    frontal = frontal_images()
    of_reports = {name for report in iu_reports.reports().values() for name in report.images}
    assert len(frontal) == 3733 and frontal <= of_reports and len(of_reports) == 7470
    assert len({name.split("_")[0] for name in frontal}) == 3686
    fields = pd.read_csv(iu_reports.package_data("nlmcxr_dicom_metadata.csv.gz"), usecols=["imageid", "View Position"])
    assert not frontal & set(fields.imageid[fields["View Position"].str.contains("L", na=False)])
    pixels = pd.read_csv(iu_reports.package_data("nlmcxr_tsne_pa.csv.gz"))
    assert not frontal & set(pixels.imageid[pixels["tsne-view"] == "L"])
    assert frontal >= set(pixels.imageid[pixels["tsne-view"] == "PA"])
    assert "CXR1_1_IM-0001-4001" in frontal  # Kaggle's table calls it frontal, and 3001 lateral


def test_findings_of_mesh_terms_are_those_that_were_rendered():
    for row in pd.read_csv(DATA / "iu-drr" / "cases.csv").itertuples():
        assert set(findings.of_terms(iu_reports.reports()[row.report_id].mesh)) == set(row.findings.split(";")), (
            row.report_id
        )
    assert findings.of_terms(("Spine/degenerative", "No Indexing")) == ()


def test_iu_errors_name_the_file(kaggle):
    table = kaggle / "indiana_projections.csv"
    whole = table.read_text()

    def refused(message: str) -> None:
        with pytest.raises(DataError, match=message):
            load_examples("iu-xray", "train", kaggle)

    table.write_text(whole.replace("Lateral", "Oblique"))
    refused("has projection 'Oblique', not Frontal or Lateral")
    table.write_text(whole + "999,999.png,Frontal\n")
    refused("Image 999.png in .*indiana_projections.csv has uid '999', which .*indiana_reports.csv lacks")
    table.write_text(whole.replace("projection\n", "view\n").replace("projection\r", "view\r"))
    refused("indiana_projections.csv has no column 'projection', only uid, filename, view")
    table.write_text("\n".join(whole.splitlines()[:10]))
    refused("has 5 reports with findings and a frontal image; its splits need 13")
    table.write_text(whole)
    (kaggle / "images" / "images_normalized" / "7_IM-0007-1001.dcm.png").unlink()
    refused("7_IM-0007-1001.dcm.png, listed in .*indiana_projections.csv, is missing")
    (kaggle / "indiana_reports.csv").unlink()
    refused("indiana_reports.csv is missing")
    table.unlink()
    refused(
        "neither indiana_projections.csv with indiana_reports.csv .*, nor ecgen-radiology with NLMCXR_png .*Get the IU"
    )


def test_openi_errors_name_the_file(openi):
    def refused(message: str) -> None:
        with pytest.raises(DataError, match=message):
            load_examples("iu-xray-released", "train", openi)

    lost = load_examples("iu-xray", "test", openi)[0]
    lost.path.unlink()
    refused(f"Image {lost.id}.png, listed in .*{report_of(lost)}.xml, is not in")
    picture(lost.path)
    picture(openi / "NLMCXR_png" / "CXR9999_IM-0001-1001.png")
    refused("CXR9999_IM-0001-1001.png is in no report in .*ecgen-radiology")
    (openi / "ecgen-radiology" / "1.xml").write_text("<html>")
    refused("1.xml cannot be read")
    (openi / "NLMCXR_png").rename(openi.parent / f"{openi.name}-elsewhere")
    refused("No images such as NLMCXR_png/CXR1_1_IM-0001-3001.png")


def test_no_folder_is_given_or_there(tmp_path, monkeypatch):
    monkeypatch.delenv("SELORA_DATA", raising=False)
    monkeypatch.setattr(folders, "RAW", tmp_path / "raw")
    for name in ("iu-xray", "iu-xray-released", "imagefolder"):
        with pytest.raises(DataError, match="raw is not there.* SELORA_DATA"):
            load_examples(name, "train")
        with pytest.raises(DataError, match="nowhere is not there"):
            load_examples(name, "train", tmp_path / "nowhere")


# ---- a folder of images ---------------------------------------------------------------------------------------------


def test_imagefolder(folder, monkeypatch):
    parts = splits("imagefolder", folder)
    assert {split: len(part) for split, part in parts.items()} == {"train": 24, "val": 0, "test": 6}
    by_id = {e.id: e for part in parts.values() for e in part}
    assert len(by_id) == 30
    assert by_id["images_03"].findings == ("cardiomegaly", "opacity") and by_id["images_04"].findings == ()
    assert by_id["images_03"].prompt == "Heart, number 3" and by_id["images_03"].path == folder / "images" / "03.png"
    rows = pd.read_csv(folder / "metadata.csv", keep_default_na=False)
    rows.iloc[::-1].to_csv(folder / "metadata.csv", index=False)  # the order of rows decides nothing
    monkeypatch.setenv("SELORA_DATA", str(folder))
    assert {e.id for e in load_examples("imagefolder", "test")} == {e.id for e in parts["test"]}


def test_imagefolder_in_json_lines_and_with_splits_of_its_own(folder):
    rows = pd.read_csv(folder / "metadata.csv", keep_default_na=False)
    rows["split"] = ["train", "val", "test"] * 10
    rows.to_csv(folder / "metadata.csv", index=False)
    parts = splits("imagefolder", folder)
    assert [e.id for e in parts["val"]] == [f"images_{i:02d}" for i in range(1, 30, 3)]
    records = [
        row | {"findings": row["findings"].split(";")} if row["findings"] else row for row in rows.to_dict("records")
    ]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, records)))
    with pytest.raises(DataError, match="both there"):
        load_examples("imagefolder", "train", folder)
    (folder / "metadata.csv").unlink()
    assert splits("imagefolder", folder) == parts


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("../secret.png,x", r"file_name '../secret.png', which is no path below its folder"),
        ("/etc/secret.png,x", r"file_name '/etc/secret.png', which is no path below its folder"),
        ("gone.png,x", "gone.png, listed in .*metadata.csv, is missing"),
        ("images/01.png, ", "images/01.png in .*metadata.csv has no text"),
        ("images/01.png,x,heart", "has finding 'heart'. Choose from: normal, cardiomegaly"),
        ("images/01.png,x,normal,dev", "has split 'dev'. Choose from: train, val, test"),
        ("images/01.png,x,normal,train", "gives 1 images, none of them for test"),
        ("images/01.png,x,normal,test\nimages/01.png,y,normal,train", "both images_01 for short"),
        ("images/01.png,heart, and lungs,normal,train", "images/01.png in .* has too many cells. Put text with commas"),
    ],
)
def test_imagefolder_refuses_a_row(folder, row, message):
    picture(folder.parent / "secret.png")
    header = ["file_name", "text", "findings", "split"][: max(line.count(",") + 1 for line in row.split("\n"))]
    (folder / "metadata.csv").write_text(f"{','.join(header)}\n{row}\n")
    with pytest.raises(DataError, match=message):
        load_examples("imagefolder", "train", folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.csv", "file,text\na.png,x\n", "has no column 'file_name', only file, text"),
        ("metadata.csv", b"file_name,text\na.png,caf\xe9\n", "cannot be read .* in UTF-8"),
        ("metadata.jsonl", '{"file_name": "a.png", "text": "x"}\n{"file_name"', "Line 2 of .*jsonl is no JSON"),
        ("metadata.jsonl", '{"file_name": "a.png", "text": "gr\xf6\xdfe"}'.encode("latin-1"), "no JSON in UTF-8"),
        ("metadata.jsonl", '{"file_name": "a.png", "text": null}', "Line 1 of .*jsonl is no object with file_name and"),
        ("other.csv", "", "No metadata.csv or metadata.jsonl in"),
    ],
)
def test_imagefolder_refuses_a_table(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        load_examples("imagefolder", "train", tmp_path)


# ---- a run on each --------------------------------------------------------------------------------------------------


@pytest.fixture
def dicoms(folder):
    """A folder of thirty DICOM images, every second one of inverted grey levels, without ending."""
    rows = pd.read_csv(folder / "metadata.csv", keep_default_na=False)
    for i, row in enumerate(rows.itertuples()):
        pixels = np.random.default_rng(i).integers(0, 4096, (24, 20), dtype=np.uint16)
        write_dicom(folder / f"1.2.{i}", pixels, "MONOCHROME1" if i % 2 else "MONOCHROME2")
        rows.loc[row.Index, "file_name"] = f"1.2.{i}"
    rows.to_csv(folder / "metadata.csv", index=False)
    return folder


@pytest.mark.parametrize(
    ("layout", "dataset", "method"),
    [
        ("kaggle", "iu-xray-released", "lora"),
        ("openi", "iu-xray", "selora"),
        ("folder", "imagefolder", "selora"),
        ("dicoms", "imagefolder", "lora"),
    ],
)
def test_a_run_on_each_kind_of_data(layout, dataset, method, request, tmp_path_factory, monkeypatch):
    results = tmp_path_factory.mktemp("results")
    monkeypatch.setattr(stages, "CACHE", results / "cache")
    monkeypatch.setattr(stages, "DIVERSITY", (1, 2))  # else three quarters of what is sampled
    root = request.getfixturevalue(layout)
    profile = load_profile("smoke", datasets=dataset, methods=method, data_root=str(root))
    profile = replace(profile, steps={"other": 3}, batch_size=2, images=6, sampling_steps=1, validation_images=1)
    run = Run(profile, dataset, method, 0, results)
    result = make_run(run)
    assert result["n"] == 6 and np.isfinite(result["kid"])
    scored = [e.id for e in load_examples(dataset, "test", root)][:6]
    assert sorted(path.name for path in (run.folder / "samples").iterdir()) == sorted(f"{name}.png" for name in scored)
    assert (run.folder / "pytorch_lora_weights.safetensors").is_file()


def test_a_run_on_another_folder_is_not_taken_for_finished(folder, tmp_path):
    """Nor one whose texts were edited."""
    profile = load_profile("smoke", datasets="imagefolder", data_root=str(folder))
    run = Run(profile, "imagefolder", "lora", 0, tmp_path / "results")
    found = hash_examples("imagefolder", str(folder))
    write_json(run.folder / "settings.json", {"data_contents": found})
    other = folder.parent / "other"
    shutil.copytree(folder, other)
    assert hash_examples("imagefolder", str(other)) == found
    rows = pd.read_csv(other / "metadata.csv", keep_default_na=False)
    rows.assign(text=rows.text + " Normal.").to_csv(other / "metadata.csv", index=False)
    with pytest.raises(ValueError, match=rf"data_contents: {found} -> .*undo the change of .* the data"):
        make_run(replace(run, profile=replace(profile, data_root=str(other))))


def test_json_lines_keep_signs_that_look_like_line_ends(folder):
    rows = pd.read_csv(folder / "metadata.csv", keep_default_na=False).to_dict("records")
    rows[0]["text"] = "Clear.\u2028Normal."
    (folder / "metadata.csv").unlink()
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    found = [e for part in splits("imagefolder", folder).values() for e in part]
    assert "Clear. Normal." in {e.prompt for e in found} and len(found) == 30


def test_too_few_images_to_score_end_a_run_before_it_trains(folder, tmp_path):
    rows = pd.read_csv(folder / "metadata.csv", keep_default_na=False)
    rows[:20].to_csv(folder / "metadata.csv", index=False)
    profile = load_profile("smoke", datasets="imagefolder", data_root=str(folder))
    with pytest.raises(DataError, match="4 test images and 16 to train on are too few: scores need 6 of each"):
        make_run(Run(profile, "imagefolder", "lora", 0, tmp_path))
    assert not (tmp_path / "smoke").exists()
