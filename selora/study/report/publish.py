"""What of a profile's results is kept in the repository: python -m selora.study.report.publish quick

Tables, figures, index.html, every run's records, and the executed notebooks without their pictures, which stand in
`figures/`; no weights, no samples, no scores of single images, and no figure that shows a data set whose terms forbid
passing it on.
"""

import argparse
import shutil
import sys
from pathlib import Path

import nbformat
from PIL import Image

from selora.data import NOT_SHIPPED
from selora.files import REPOSITORY, RESULTS, write_text
from selora.study.report.page import write_index

KEPT = (
    "table1.*",
    "audit.csv",
    "figures/*.png",
    "runs/*/*/*/*.json",
    "runs/*/*/*/history.csv",
    "runs/*/*/*/ranks.csv",
    "runs/*/selora/*/expansions.csv",  # other methods' would take three megabytes
)


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
            if path.suffix == ".png":  # an eighth of the room, which every version takes in the history
                copy = copy.with_suffix(".webp")
                Image.open(path).convert("RGB").save(copy, quality=85)
            else:
                shutil.copyfile(path, copy)
            shutil.copystat(path, copy)  # the page shows figures in the order of their times
    for path in folder.glob("notebooks/*.ipynb"):
        words = nbformat.writes(without_pictures(nbformat.read(path, as_version=4)))
        for root in (REPOSITORY, folder.resolve().parents[1]):  # where this is on the disk is nobody's business
            words = words.replace(f"{root}/", "")
        write_text(target / "notebooks" / path.name, words + "\n")
    write_index(target, f"SeLoRA study, profile {folder.name}")  # of the figures that are here
    shutil.rmtree(whole, ignore_errors=True)
    target.rename(whole)


def without_pictures(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An executed notebook whose outputs hold words only, and no warnings."""
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
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
        publish(RESULTS / profile, RESULTS / "published" / profile)
    except FileNotFoundError as error:
        sys.exit(f"selora: {error}")


if __name__ == "__main__":
    main()
