"""What of a profile's results is kept in the repository: python -m selora.study.report.publish quick

A study of many hours is made in sittings, maybe on several machines: --begun keeps the finished runs' records, samples
and Table 1 so far in results/begun, and a copy of that in results/ is where the next sitting goes on. When all is
published: tables, figures, index.html, every run's records, the executed notebooks without their pictures, which stand
in `figures/`, samples of a few prompts, and one SeLoRA adapter; no other weights, no scores of single images, and no
figures, samples or weights of a data set whose terms forbid passing it on. The README's results are filled in.
"""

import argparse
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import nbformat
from PIL import Image

from selora.data import DATASETS, NOT_SHIPPED, load_examples
from selora.figures.examples import FEW, clearest
from selora.files import BEGUN, PUBLISHED, REPOSITORY, RESULTS, WEIGHTS, write_text
from selora.study.report.page import write_index
from selora.study.report.readme import fill_readme
from selora.study.report.table1 import write_table1

TABLES = ("table1.csv", "audit.csv", "cost.csv", "sensitivity*.csv", "utility.csv", "copies.csv")  # the site's, too
RECORDS = (
    "lengths/*/*/runs/*/*/*/result.json",
    "runs/*/*/*/*.json",
    "runs/*/*/*/history.csv",
    "runs/*/*/*/ranks.csv",
    "runs/*/selora/*/expansions.csv",  # other methods' would take three megabytes
    "runs/*/selora@*/*/expansions.csv",
)
KEPT = (*TABLES, "table1.md", "table1.tex", "audit.json", "tuning.csv", "figures/*.png", *RECORDS)
TRIALS = (  # of tuning under way, with what controls read of SeLoRA's
    "tuning/*/*/runs/*/*/*/*.json",
    "tuning/*/*/runs/*/*/*/ranks.csv",
    "tuning/*/*/runs/*/selora/*/expansions.csv",
)
SAMPLES = 20  # of each run, the same prompts for all; one takes three kilobytes


def publish(folder: Path, target: Path) -> None:
    """Replace a target folder by what is kept of a folder of results.

    Raises:
        FileNotFoundError: where there is no finished study in it.
    """
    if not (folder / "index.html").exists():
        raise FileNotFoundError(f"no finished study in {folder}: make run_all first")
    with anew(target) as partial:
        found = (path for pattern in KEPT for path in folder.glob(pattern))
        keep(folder, partial, (p for p in found if not (p.suffix == ".png" and p.stem.endswith(NOT_SHIPPED))))
        keep(folder, partial, [*samples_to_keep(folder), *adapter_to_keep(folder)])
        for path in folder.glob("notebooks/*.ipynb"):
            words = nbformat.writes(without_pictures(nbformat.read(path, as_version=4)))
            for root in (REPOSITORY, folder.resolve().parents[1]):  # where this is on the disk is nobody's business
                words = words.replace(f"{root}/", "")
            write_text(partial / "notebooks" / path.name, words + "\n")
        write_index(partial, f"SeLoRA study, profile {folder.name}")  # of the figures that are here


def publish_begun(folder: Path, target: Path) -> None:
    """Replace a target folder by the finished runs of a study under way: records, samples, Table 1 so far, and trials.

    A copy of it in the folder of results is where another sitting goes on: no run or trial in it is made again.

    Raises:
        FileNotFoundError: where there is neither a finished run nor a trial.
    """
    records = [path for pattern in RECORDS for path in folder.glob(pattern) if (path.parent / "result.json").exists()]
    trials = [path for pattern in TRIALS for path in folder.glob(pattern) if (path.parent / "trial.json").exists()]
    if records or not trials:
        write_table1(folder)  # which says what to do where there is nothing
    with anew(target) as partial:
        kept = (*records, *trials, *samples_to_keep(folder), *adapter_to_keep(folder), *folder.glob("table1.*"))
        keep(folder, partial, kept)


@contextmanager
def anew(target: Path) -> Iterator[Path]:
    """A folder that takes a target's place once it is whole."""
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a publishing that was killed
    partial.mkdir(parents=True)
    yield partial
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def keep(folder: Path, target: Path, paths: Iterable[Path]) -> None:
    """Copy files of a folder to the same places in another, with their times, and PNG as WebP."""
    for path in paths:
        copy = target / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            as_webp(path, copy)
            copy = copy.with_suffix(".webp")
        else:
            shutil.copyfile(path, copy)
        shutil.copystat(path, copy)  # the page shows figures in the order of their times


def as_webp(path: Path, copy: Path) -> None:
    """Write a picture as WebP in place of a copy: an eighth of the room, which every version takes in the history."""
    Image.open(path).convert("RGB").save(copy.with_suffix(".webp"), quality=85)


def samples_to_keep(folder: Path) -> list[Path]:
    """Samples of finished runs but the ablation's, those that notebooks show first, of data that may be passed on."""
    found, test_of = [], cache(lambda dataset: load_examples(dataset, "test"))  # a set has many runs
    for samples in sorted(folder.glob("runs/*/*/*/samples")):
        dataset, method = samples.parts[-4:-2]
        finished = (samples.parent / "result.json").exists()
        if finished and "@" not in method and dataset in DATASETS and dataset not in NOT_SHIPPED:
            there = {path.stem: path for path in samples.iterdir()}  # PNG; of runs that were published before, WebP
            scored = [e for e in test_of(dataset) if e.id in there]
            shown = [*scored[:FEW], *clearest(dataset, scored).values(), *scored]
            found += [there[name] for name in list(dict.fromkeys(e.id for e in shown))[:SAMPLES]]
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
    parser.add_argument("--begun", action="store_true", help="keep the runs that are finished so far, in results/begun")
    given = parser.parse_args(arguments)
    try:
        if given.begun:
            publish_begun(RESULTS / given.profile, BEGUN / given.profile)
        else:
            publish(RESULTS / given.profile, PUBLISHED / given.profile)
            shutil.rmtree(BEGUN / given.profile, ignore_errors=True)
        fill_readme(f"{'begun' if given.begun else 'published'}/{given.profile}")
    except FileNotFoundError as error:
        sys.exit(f"selora: {error}")


if __name__ == "__main__":
    main()
