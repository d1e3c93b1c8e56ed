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
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

from . import findings
from .checks import checked, warn_of_others
from .example import DataError, DataWarning, Example, Parts
from .folders import given_folder
from .iu_frontal import frontal_images
from .iu_reports import LARGEST, Report, clean, parse
from .pictures import is_file
from .tables import read_table
from .texts import is_placeholder, real_text

GET_IT = (
    "Get the IU X-Ray set from Open-i (python -m selora.data.fetch iu-xray) or from Kaggle (raddar, Chest X-rays "
    "(Indiana University)), and name the folder it lies in by SELORA_DATA."
)
PROJECTIONS, REPORTS, XML = "indiana_projections.csv", "indiana_reports.csv", "ecgen-radiology"
JOINED_OTHERWISE = re.compile(r"[|\[\]]|,(?=\w)")  # a term may hold a comma and a blank: 'Hernia, Hiatal'
FEWEST = 13  # reports, for a test set of 4 %


def load(root: Path | None = None) -> Parts:
    """The examples by split: 80 % train, 16 % val and 4 % test of the reports, drawn with seed 42. All images of a
    report are in one split.

    root: the folder the set lies in; by default SELORA_DATA's, else data/raw. Raises DataError where no set is
    there, something of it is missing, or it is too small to split.
    """
    examples = read(root)
    reports = sorted({example.study for example in examples})
    random.Random(42).shuffle(reports)
    test, val = round(0.04 * len(reports)), round(0.16 * len(reports))
    drawn = {"test": {*reports[:test]}, "val": {*reports[test : test + val]}, "train": {*reports[test + val :]}}
    return checked({s: [e for e in examples if e.study in part] for s, part in drawn.items()})


def load_released(root: Path | None = None) -> Parts:
    """The examples by split as the authors' released code draws it: by image, scikit-learn's train_test_split with
    random_state 42 holds out 0.2, and the same of that is the test set. Two images of a report may be in two splits,
    which is said (DataWarning).

    The order of the rows decides which images fall where. Here it is that of `indiana_projections.csv`, or of the
    reports' numbers, after lateral images and reports without findings are left out. Else as `load`.
    """
    from sklearn.model_selection import train_test_split

    train, held_out = train_test_split(read(root), test_size=0.2, random_state=42)
    val, test = train_test_split(held_out, test_size=0.2, random_state=42)
    return checked({"train": train, "val": val, "test": test}, by_picture=True)


def read(root: Path | None) -> list[Example]:
    """All frontal images with findings, in the order of their table or of the reports' numbers; an example's study is
    its report. Raises as `load`, and where there are two copies of the set. Warns (DataWarning) of what is left out."""
    folder = given_folder(root, GET_IT)
    if table := only_one([*folder.glob(PROJECTIONS), *sorted(folder.glob(f"*/{PROJECTIONS}"))]):
        examples = read_kaggle(table.parent)
    elif written := only_one([*folder.glob(XML), *sorted(folder.glob(f"*/{XML}"))]):
        examples = read_openi(folder, written)
    else:
        looked_for = f"neither {PROJECTIONS} with {REPORTS} (Kaggle), nor {XML} with NLMCXR_png (Open-i)"
        raise DataError(f"No IU X-Ray set in {folder.resolve()}: {looked_for}. {GET_IT}")
    count = len({example.study for example in examples})
    if count < FEWEST:
        raise DataError(
            f"The IU X-Ray set in {folder.resolve()} has {count} reports with findings and a frontal image; its splits "
            f"need {FEWEST}. {GET_IT}"
        )
    return examples


def only_one(copies: list[Path]) -> Path | None:
    """The one path of a list, or None where there is none. Raises DataError for two copies."""
    if len(copies) > 1:
        raise DataError(f"{copies[0]} and {copies[1]} are both there. Name the folder of one, or remove the other.")
    return copies[0] if copies else None


def read_kaggle(folder: Path) -> list[Example]:
    """The examples of the redistribution, in the order of its table of projections. Raises DataError as `load`."""
    reports = {}
    for row in read_table(folder / REPORTS, ("uid", "MeSH", "findings")):
        if row["uid"] in reports:
            raise DataError(f"Report {row['uid']} in {row.where} is in {reports[row['uid']].where} too. Remove one.")
        reports[row["uid"]] = row
    examples, images, listed_files, unnamed = [], folder / "images" / "images_normalized", set(), set()
    for row in read_table(folder / PROJECTIONS, ("filename", "uid", "projection")):
        uid, name, view = row["uid"], row["filename"], row["projection"]
        listing = f"{name} in {row.where}"
        listed_files.add(name)
        if view not in ("Frontal", "Lateral"):
            raise DataError(f"Image {listing} has projection {view!r}, not Frontal or Lateral.")
        if uid not in reports:
            raise DataError(f"Image {listing} has uid {uid!r}, which {folder / REPORTS} lacks.")
        prompt = clean(reports[uid]["findings"])
        if view == "Frontal" and prompt:
            if not is_file(images / name):
                raise DataError(f"Image {images / name}, listed in {row.where}, is missing. Restore it.")
            prompt = real_text(prompt, f"Report {uid} in {reports[uid].where}")
            mesh = reports[uid]["MeSH"]
            if JOINED_OTHERWISE.search(mesh):
                whose = f"The MeSH terms of report {uid} in {reports[uid].where}"
                raise DataError(f"{whose} are not joined by ';': {mesh[:60]!r}. Write them so.")
            terms = [term for term in mesh.split(";") if not is_placeholder(term)]
            unnamed |= set() if terms else {uid}
            examples.append(Example(name.split(".")[0], images / name, prompt, findings.of_terms(terms), study=uid))
    if unnamed:
        named = f"have no MeSH terms in {folder / REPORTS}, such as {min(unnamed)}: their findings are not known"
        warnings.warn(f"{len(unnamed)} reports {named}.", DataWarning, 2)
    say_left_out(folder, len(listed_files), examples)
    others = (path for path in images.glob("*") if path.name not in listed_files)
    warn_of_others(images, others, examples, PROJECTIONS)
    return examples


def read_openi(folder: Path, written: Path) -> list[Example]:
    """The examples of the original layout, in the order of the reports' numbers. The archive of images holds no folder:
    it may have been unpacked into any, up to two below `folder`. Raises DataError as `load`."""
    images = {}
    for path in (path for depth in ("", "*/", "*/*/") for path in folder.glob(f"{depth}CXR*.png")):
        only_one(sorted({images.setdefault(path.stem, path), path}))
    if not images:
        raise DataError(f"No images such as NLMCXR_png/CXR1_1_IM-0001-3001.png in {folder.resolve()}. {GET_IT}")
    frontal, examples, reports = frontal_images(), [], {}
    for path in sorted(written.glob("*.xml"), key=lambda path: (len(path.stem), path.stem)):
        report = read_report(path)
        if reports.setdefault(report.id, (path, report))[0] != path:
            raise DataError(f"Report {report.id} is in {reports[report.id][0]} and in {path}. Remove one.")
        for name in report.images if report.findings else ():
            if name in frontal:
                if name not in images:
                    raise DataError(f"Image {name}.png, listed in {path}, is not in {folder.resolve()}. Restore it.")
                text = real_text(report.findings, f"Report {path}")
                examples.append(Example(name, images[name], text, findings.of_terms(report.mesh), study=report.id))
    for name in sorted(set(images) - {name for _, report in reports.values() for name in report.images}):
        raise DataError(f"Image {images[name]} is in no report in {written}. Restore its report, or remove the image.")
    say_left_out(folder, len(images), examples)
    return examples


def read_report(path: Path) -> Report:
    """The report of a file. Raises DataError where it is none."""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST:,} bytes")
        return parse(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"Report {path} cannot be read ({error}). Replace it with the published file.") from error


def say_left_out(folder: Path, count: int, used: Sequence[Example]) -> None:
    """Warn (DataWarning) of how many of `count` images are not used, and why."""
    if count := count - len({example.path for example in used}):  # one named twice is refused later
        reason = "they are not frontal, or their report has no findings"
        warnings.warn(f"{count} images of the IU X-Ray set in {folder} are left out: {reason}.", DataWarning, 2)
