"""What of a profile's results is kept in the repository: python -m selora.publish quick

Tables, figures, index.html, every run's records, and the executed notebooks without their pictures, which stand in
`figures/`; no weights, no samples, and no figure that shows a data set whose terms forbid passing it on.
"""

import shutil
import sys
from pathlib import Path

import nbformat

from selora.index import write_index
from selora.study import RESULTS

NOT_PASSED_ON = ("montgomery", "iu-xray")  # the real sets; rendered ones end in -drr
KEPT = ("table1.*", "audit.*", "figures/*.png", "runs/*/*/*/*.json", "runs/*/*/*/*.csv")


def publish(folder: Path, target: Path) -> None:
    """Replace a target folder by what is kept of a folder of results.

    Raises:
        FileNotFoundError: where there is no finished study in it.
    """
    if not (folder / "index.html").exists():
        raise FileNotFoundError(f"no finished study in {folder}: make run_all first")
    shutil.rmtree(target, ignore_errors=True)
    for pattern in KEPT:
        for path in folder.glob(pattern):
            if path.suffix == ".png" and path.stem.endswith(NOT_PASSED_ON):
                continue
            copy = target / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    (target / "notebooks").mkdir()
    for path in folder.glob("notebooks/*.ipynb"):
        nbformat.write(without_pictures(nbformat.read(path, as_version=4)), target / "notebooks" / path.name)
    write_index(target, f"SeLoRA study, profile {folder.name}")  # of the figures that are here


def without_pictures(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An executed notebook whose outputs hold words only."""
    for cell in book.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                del output["data"]["image/png"]
    return book


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m selora.publish PROFILE")
    try:
        publish(RESULTS / sys.argv[1], RESULTS / "published" / sys.argv[1])
    except FileNotFoundError as error:
        sys.exit(f"selora: {error}")
