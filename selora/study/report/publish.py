"""What of a profile's results is kept in the repository: python -m selora.study.report.publish quick

Tables, figures, index.html, every run's records, the executed notebooks without their pictures, which stand in
`figures/`, samples of a few prompts, and one SeLoRA adapter; no other weights, no scores of single images, and neither
figures nor samples nor weights of a data set whose terms forbid passing it on. The README's results are filled in.
"""

import argparse
import shutil
import sys
from pathlib import Path

import nbformat
from PIL import Image

from selora.data import DATASETS, NOT_SHIPPED, load_examples
from selora.figures.examples import FEW, clearest
from selora.files import PUBLISHED, REPOSITORY, RESULTS, WEIGHTS, write_text
from selora.study.report.page import write_index
from selora.study.report.readme import fill_readme

TABLES = ("table1.csv", "audit.csv", "cost.csv", "sensitivity*.csv", "utility.csv", "copies.csv")  # the site's, too
KEPT = (
    *TABLES,
    "table1.md",
    "table1.tex",
    "audit.json",
    "tuning.csv",
    "figures/*.png",
    "runs/*/*/*/*.json",
    "lengths/*/*/runs/*/*/*/result.json",
    "runs/*/*/*/history.csv",
    "runs/*/*/*/ranks.csv",
    "runs/*/selora/*/expansions.csv",  # other methods' would take three megabytes
    "runs/*/selora@*/*/expansions.csv",
)
SAMPLES = 20  # of each run, the same prompts for all; one takes three kilobytes


def publish(folder: Path, target: Path) -> None:
    """Replace a target folder by what is kept of a folder of results.

    Raises:
        FileNotFoundError: where there is no finished study in it.
    """
    if not (folder / "index.html").exists():
        raise FileNotFoundError(f"no finished study in {folder}: make run_all first")
    whole, target = target, target.with_name(f"{target.name}.partial")
    shutil.rmtree(target, ignore_errors=True)  # of a publishing that was killed
    for pattern in KEPT:
        for path in folder.glob(pattern):
            if path.suffix == ".png" and path.stem.endswith(NOT_SHIPPED):
                continue
            copy = target / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".png":
                as_webp(path, copy)
                copy = copy.with_suffix(".webp")
            else:
                shutil.copyfile(path, copy)
            shutil.copystat(path, copy)  # the page shows figures in the order of their times
    for path in [*samples_to_keep(folder), *adapter_to_keep(folder)]:
        copy = target / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        (as_webp if path.suffix == ".png" else shutil.copyfile)(path, copy)
    for path in folder.glob("notebooks/*.ipynb"):
        words = nbformat.writes(without_pictures(nbformat.read(path, as_version=4)))
        for root in (REPOSITORY, folder.resolve().parents[1]):  # where this is on the disk is nobody's business
            words = words.replace(f"{root}/", "")
        write_text(target / "notebooks" / path.name, words + "\n")
    write_index(target, f"SeLoRA study, profile {folder.name}")  # of the figures that are here
    shutil.rmtree(whole, ignore_errors=True)
    target.rename(whole)


def as_webp(path: Path, copy: Path) -> None:
    """Write a picture as WebP in place of a copy: an eighth of the room, which every version takes in the history."""
    Image.open(path).convert("RGB").save(copy.with_suffix(".webp"), quality=85)


def samples_to_keep(folder: Path) -> list[Path]:
    """Samples of every run but the ablation's, those that notebooks show first, of data that may be passed on."""
    found = []
    for samples in sorted(folder.glob("runs/*/*/*/samples")):
        dataset, method = samples.parts[-4:-2]
        if "@" not in method and dataset in DATASETS and dataset not in NOT_SHIPPED:
            scored = [e for e in load_examples(dataset, "test") if (samples / f"{e.id}.png").exists()]
            shown = [*scored[:FEW], *clearest(dataset, scored).values(), *scored]
            found += [samples / f"{name}.png" for name in list(dict.fromkeys(e.id for e in shown))[:SAMPLES]]
    return found


def adapter_to_keep(folder: Path) -> list[Path]:
    """The weights of SeLoRA's first run on the first data set that may be passed on, if there is one."""
    shipped = [dataset for dataset in DATASETS if dataset not in NOT_SHIPPED]
    found = [file for d in shipped for file in sorted(folder.glob(f"runs/{d}/selora/*/{WEIGHTS}"))]
    return found[:1]


def without_pictures(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An executed notebook whose outputs hold words only, and no warnings."""
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):  # its metadata names the file that it is
                del output["data"]["image/png"]
    return book


def main(
    arguments: list[str] | None = None,
    prog: str = "python -m selora.study.report.publish",
    epilog: str | None = None,
) -> None:
    """Publish the results of the profile that the command names."""
    parser = argparse.ArgumentParser(prog=prog, description="Keep what may be published of a study.", epilog=epilog)
    parser.add_argument("profile", metavar="PROFILE", help="whose results in results/ are finished")
    profile = parser.parse_args(arguments).profile
    try:
        publish(RESULTS / profile, PUBLISHED / profile)
        fill_readme(profile)
    except FileNotFoundError as error:
        sys.exit(f"selora: {error}")


if __name__ == "__main__":
    main()
