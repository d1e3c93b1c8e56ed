"""The numbered notebooks: which of them a study needs, and papermill, which executes them."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import as_completed
from pathlib import Path

import papermill
from nbclient.exceptions import DeadKernelError

from selora.files import NOTEBOOKS, PUBLISHED, hash_file, read_json, write_json
from selora.methods import METHODS
from selora.study.beside import LENGTHS
from selora.study.fingerprints import short_hash
from selora.study.grid import at_once, available_cores, workers_of_one_thread
from selora.study.lock import alone
from selora.study.touch import nobody_in_front

FIRST = ("base", "full", "lora", "dylora", "adalora", "selora")  # methods with a notebook of their own
BUDGETS = {method for method in METHODS if method.startswith("ranks-")}
TIMED = {"19_cost"}  # what they measure, another notebook at its side would disturb
METHODS_OF = {  # a notebook without any of its methods is left out
    "02_base": {"base"},
    "03_full": {"full"},
    "04_lora": {"lora"},
    "05_dylora": {"dylora"},
    "06_adalora": {"adalora"},
    "07_selora": {"selora"},
    "08_further": set(METHODS) - set(FIRST) - BUDGETS,
    "09_lambda": {"selora"},
    "10_rank_maps": {"selora"},
    "16_budgets": BUDGETS,
    "18_lengths": {*LENGTHS},
}


def numbered(methods: list[str]) -> list[Path]:
    """The numbered notebooks that a choice of methods needs, in order."""
    books = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    return [path for path in books if path.stem not in METHODS_OF or METHODS_OF[path.stem] & {*methods}]


def run_notebooks(notebooks: list[Path], parameters: dict, folder: Path, inputs: str = "") -> None:
    """Execute notebooks, leaving the executed copies in `folder/notebooks`: in order, or with executor `cores`, for
    which all their runs have been made, one on each core.

    Nothing is executed where the last call ended well with the same notebooks, parameters and inputs, and all that it
    left in the folder is there as it was: then there is nothing to make, and each kernel would only import and read.

    Args:
        inputs: a hash of all else that the notebooks read (`fingerprints.hash_inputs`); without it, all are executed.

    Raises:
        RuntimeError: at the first that fails, with its name and its error.
        ValueError: before any is executed, for a parameter that one of them does not have.
        Busy: where another process is at work there.
    """
    stamp = folder / "finished.json"
    asked = {
        "inputs": inputs,
        "parameters": parameters,
        "notebooks": short_hash((path.name, hash_file(path)) for path in notebooks),
    }
    with alone(folder):
        if inputs and stamp.exists() and read_json(stamp) == asked | {"left": hash_left(folder)}:
            print(f"Nothing to make: all of {folder} is as it was left (remove {stamp.name} there to execute anew).")
            return
        stamp.unlink(missing_ok=True)
        execute(notebooks, parameters, folder)
        write_json(stamp, asked | {"left": hash_left(folder)})


def hash_left(folder: Path) -> str:
    """A hash of all files that the numbered notebooks and their runs left in a results folder."""
    later = ("run_all.ipynb", "index.html", "finished.json", ".lock")  # written by others, or after them
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in later)
    return short_hash((path.relative_to(folder).as_posix(), hash_file(path)) for path in files)


def said_threads(workers: int) -> str:
    """How many threads the notebooks will compute with, and how to change that."""
    cores = available_cores()
    if workers > 1:
        return f"{workers} notebooks at a time on {cores} cores, one thread each."
    threads = os.environ.get("OMP_NUM_THREADS") or f"up to {cores}"
    return (
        f"Computing with {threads} threads on {cores} cores. Beside another job fewer are faster, by a lot: "
        "OMP_NUM_THREADS=1 make run_all"
    )


def execute(notebooks: list[Path], parameters: dict, folder: Path) -> None:
    """What `run_notebooks` does where there is something to make, saying after each notebook what time is left."""
    for notebook in notebooks:
        known = papermill.inspect_notebook(notebook)
        if unknown := sorted(set(parameters) - set(known)):
            raise ValueError(f"{notebook.name} has no parameter {', '.join(unknown)}: it has {', '.join(known)}")
    (folder / "notebooks").mkdir(parents=True, exist_ok=True)
    nobody_in_front()
    workers = at_once(len(notebooks)) if parameters.get("executor") == "cores" else 1
    print(said_threads(workers), flush=True)
    usual, taken, before = usual_seconds(), {}, count_runs(folder)
    if workers > 1:  # long ones first
        notebooks = sorted(notebooks, key=lambda path: usual.get(path.stem, 0), reverse=True)
    left = [path.stem for path in notebooks]
    for notebook, seconds in executed(notebooks, parameters, folder, workers):
        left.remove(notebook.stem)
        done = f"{len(notebooks) - len(left)} of {len(notebooks)}"
        if count_runs(folder) > before or notebook.stem not in METHODS_OF:  # else it only read what was finished
            taken[notebook.stem] = seconds
        before, rest = count_runs(folder), seconds_left(taken, left, usual)
        words = f", about {rest / workers / 60:.0f} min left" if rest is not None else ""
        print(f"{notebook.name}  {seconds:.0f} s  ({done}{words})", flush=True)


def executed(notebooks: list[Path], parameters: dict, folder: Path, workers: int) -> Iterator[tuple[Path, float]]:
    """Execute notebooks, `workers` at a time and in order, those that measure times last and alone; each as it is done,
    with its seconds."""
    if workers < 2:
        for notebook in notebooks:
            yield notebook, execute_one(notebook, parameters, folder)
        return
    timed = [path for path in notebooks if path.stem in TIMED]
    with workers_of_one_thread(workers) as pool:
        others = [path for path in notebooks if path not in timed]
        under_way = {pool.submit(execute_one, path, parameters, folder): path for path in others}
        for future in as_completed(under_way):
            yield under_way[future], future.result()
    yield from executed(timed, parameters, folder, workers=1)


def execute_one(notebook: Path, parameters: dict, folder: Path) -> float:
    """Execute a notebook, its copy in `folder/notebooks`; the seconds it took.

    Raises:
        RuntimeError: where it fails, with its name and its error.
    """
    started, copy = time.perf_counter(), folder / "notebooks" / notebook.name
    try:
        papermill.execute_notebook(  # a kernel that is told to end calls that interruption an error of its own
            notebook, copy, parameters, progress_bar=False, extra_arguments=["--log-level=CRITICAL"]
        )
    except DeadKernelError:
        raise RuntimeError(f"{notebook.name} lost its kernel, most likely for want of memory (see {copy})") from None
    except papermill.PapermillExecutionError as error:
        raise RuntimeError(f"{notebook.name} failed with {error.ename}: {error.evalue} (see {copy})") from None
    return time.perf_counter() - started


def count_runs(folder: Path) -> int:
    """How many runs are finished in a results folder."""
    return sum(1 for _ in folder.glob("runs/*/*/*/result.json"))


def usual_seconds() -> dict[str, float]:
    """How long each notebook took in the published quick results, by name."""
    books = (PUBLISHED / "quick" / "notebooks").glob("[0-9]*.ipynb")
    return {path.stem: read_json(path)["metadata"]["papermill"]["duration"] for path in books}


def seconds_left(taken: dict[str, float], left: list[str], usual: dict[str, float]) -> float | None:
    """What the notebooks that are left will take, if they take as much longer than usual as those that were executed
    did; None before one was. One without a usual time counts as the mean of the others."""
    measured = taken.keys() & usual.keys()
    if not measured:
        return None
    mean = sum(usual.values()) / len(usual)
    slower = sum(taken[name] for name in measured) / sum(usual[name] for name in measured)
    return slower * sum(usual.get(name, mean) for name in left)
