"""iu-xray and iu-xray-released: the real IU X-Ray set of Indiana University, read where the user keeps it.

Two layouts are in use, and looked for in the folder given and one below it:

- the redistribution on Kaggle ('Chest X-rays (Indiana University)'): `indiana_reports.csv`, `indiana_projections.csv`
  and `images/images_normalized/1_IM-0001-4001.dcm.png`. Where both are there, this one is read: it says of every image
  whether it is frontal.
- Open-i, as published: `NLMCXR_png/CXR1_1_IM-0001-3001.png` and `ecgen-radiology/1.xml`. Which images are frontal is
  known from torchxrayvision (`iu_frontal.py`).

Frontal images alone are used, and reports with findings. The prompt is the text of the findings; the names of the
findings come from the MeSH terms (`findings.py`), none where no term is among them.
"""

from __future__ import annotations

import random
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from . import findings
from .example import DataError, Example, check_split
from .folders import given_folder
from .iu_frontal import frontal_images
from .iu_reports import clean, parse
from .tables import read_table

GET_IT = (
    "Get the IU X-Ray set from Open-i (python -m selora.data.fetch iu-xray) or from Kaggle (raddar, Chest X-rays "
    "(Indiana University)), and name the folder it lies in by SELORA_DATA."
)
PROJECTIONS, REPORTS, XML = "indiana_projections.csv", "indiana_reports.csv", "ecgen-radiology"
FEWEST = 13  # reports, for a test set of 4 %

Case = tuple[str, Example]  # a report's number, and one of its images


def load(split: str, root: Path | None = None) -> list[Example]:
    """The examples of a split: 80 % train, 16 % val and 4 % test of the reports, drawn with seed 42. All images of a
    report are in one split.

    root: the folder the set lies in; by default SELORA_DATA's, else data/raw. Raises DataError where no set is
    there, something of it is missing, or it is too small to split.
    """
    check_split(split)
    cases = read(root)
    reports = sorted({report for report, _ in cases})
    random.Random(42).shuffle(reports)
    test, val = round(0.04 * len(reports)), round(0.16 * len(reports))
    parts = {"test": reports[:test], "val": reports[test : test + val], "train": reports[test + val :]}
    drawn = set(parts[split])
    return [example for report, example in cases if report in drawn]


def load_released(split: str, root: Path | None = None) -> list[Example]:
    """The examples of a split as the authors' released code draws it: by image, scikit-learn's train_test_split with
    random_state 42 holds out 0.2, and the same of that is the test set. Two images of a report may be in two splits.

    The order of the rows decides which images fall where. Here it is that of `indiana_projections.csv`, or of the
    reports' numbers, after lateral images and reports without findings are left out. Else as `load`.
    """
    from sklearn.model_selection import train_test_split

    check_split(split)
    examples = [example for _, example in read(root)]
    train, held_out = train_test_split(examples, test_size=0.2, random_state=42)
    val, test = train_test_split(held_out, test_size=0.2, random_state=42)
    return {"train": train, "val": val, "test": test}[split]


def read(root: Path | None) -> list[Case]:
    """All frontal images with findings, in the order of their table or of the reports' numbers. Raises as `load`."""
    folder = given_folder(root, GET_IT)
    if tables := [*folder.glob(PROJECTIONS), *sorted(folder.glob(f"*/{PROJECTIONS}"))]:
        cases = read_kaggle(tables[0].parent)
    elif written := [*folder.glob(XML), *sorted(folder.glob(f"*/{XML}"))]:
        cases = read_openi(folder, written[0])
    else:
        looked_for = f"neither {PROJECTIONS} with {REPORTS} (Kaggle), nor {XML} with NLMCXR_png (Open-i)"
        raise DataError(f"No IU X-Ray set in {folder.resolve()}: {looked_for}. {GET_IT}")
    count = len({report for report, _ in cases})
    if count < FEWEST:
        raise DataError(
            f"The IU X-Ray set in {folder.resolve()} has {count} reports with findings and a frontal image; its splits "
            f"need {FEWEST}. {GET_IT}"
        )
    return cases


def read_kaggle(folder: Path) -> list[Case]:
    """The cases of the redistribution, in the order of its table of projections. Raises DataError as `load`."""
    reports = {row["uid"]: row for row in read_table(folder / REPORTS, ("uid", "MeSH", "findings"))}
    cases = []
    for row in read_table(folder / PROJECTIONS, ("uid", "filename", "projection")):
        uid, name, view = row["uid"], row["filename"], row["projection"]
        if view not in ("Frontal", "Lateral"):
            raise DataError(f"Image {name} in {folder / PROJECTIONS} has projection {view!r}, not Frontal or Lateral.")
        if uid not in reports:
            raise DataError(f"Image {name} in {folder / PROJECTIONS} has uid {uid!r}, which {folder / REPORTS} lacks.")
        prompt = clean(reports[uid]["findings"])
        if view == "Frontal" and prompt:
            path = folder / "images" / "images_normalized" / name
            if not path.is_file():
                raise DataError(f"Image {path}, listed in {folder / PROJECTIONS}, is missing. Restore it.")
            terms = [term.strip() for term in reports[uid]["MeSH"].split(";")]
            cases.append((uid, Example(name.split(".")[0], path, prompt, findings.of_terms(terms))))
    return cases


def read_openi(folder: Path, written: Path) -> list[Case]:
    """The cases of the original layout, in the order of the reports' numbers. The archive of images holds no folder: it
    may have been unpacked into any, up to two below `folder`. Raises DataError as `load`."""
    images = {path.stem: path for depth in ("", "*/", "*/*/") for path in folder.glob(f"{depth}CXR*.png")}
    if not images:
        raise DataError(f"No images such as NLMCXR_png/CXR1_1_IM-0001-3001.png in {folder.resolve()}. {GET_IT}")
    frontal, cases, listed = frontal_images(), [], set()
    for path in sorted(written.glob("*.xml"), key=lambda path: (len(path.stem), path.stem)):
        try:
            report = parse(path.read_bytes())
        except (ElementTree.ParseError, ValueError) as error:
            raise DataError(f"Report {path} cannot be read ({error}). Replace it with the published file.") from error
        listed.update(report.images)
        for name in report.images if report.findings else ():
            if name in frontal:
                if name not in images:
                    raise DataError(f"Image {name}.png, listed in {path}, is not in {folder.resolve()}. Restore it.")
                found = findings.of_terms(report.mesh)
                cases.append((report.id, Example(name, images[name], report.findings, found)))
    for name in sorted(set(images) - listed):
        raise DataError(f"Image {images[name]} is in no report in {written}. Restore its report, or remove the image.")
    return cases
