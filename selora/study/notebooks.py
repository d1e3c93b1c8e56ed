"""The numbered notebooks: which of them a study needs, and papermill, which executes them."""

import ast
import time
from pathlib import Path

import papermill
from nbclient.exceptions import DeadKernelError
from tqdm import tqdm

from selora.files import NOTEBOOKS
from selora.methods import METHODS
from selora.study.lock import alone

FIRST = ("base", "full", "lora", "dylora", "adalora", "selora")  # methods with a notebook of their own
METHODS_OF = {  # a notebook without any of its methods is left out
    "02_base": {"base"},
    "03_full": {"full"},
    "04_lora": {"lora"},
    "05_dylora": {"dylora"},
    "06_adalora": {"adalora"},
    "07_selora": {"selora"},
    "08_further": set(METHODS) - set(FIRST),
    "09_lambda": {"selora"},
    "10_rank_maps": {"selora"},
}


def numbered(methods: list[str]) -> list[Path]:
    """The numbered notebooks that a choice of methods needs, in order."""
    books = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    return [path for path in books if path.stem not in METHODS_OF or METHODS_OF[path.stem] & {*methods}]


def run_notebooks(notebooks: list[Path], parameters: dict, folder: Path) -> None:
    """Execute notebooks in order, leaving the executed copies in `folder/notebooks`.

    Raises:
        RuntimeError: at the first that fails, with its name and its error.
        Busy: where another process is at work there.
    """
    with alone(folder):
        execute(notebooks, parameters, folder)


def execute(notebooks: list[Path], parameters: dict, folder: Path) -> None:
    """What `run_notebooks` does in a folder of its own."""
    (folder / "notebooks").mkdir(parents=True, exist_ok=True)
    bar = tqdm(notebooks, desc="notebooks", unit="notebook")
    for notebook in bar:
        bar.set_postfix_str(notebook.stem)
        known = papermill.inspect_notebook(notebook)
        unknown = sorted(set(parameters) - set(known))
        if unknown:
            raise ValueError(f"{notebook.name} has no parameter {', '.join(unknown)}: it has {', '.join(known)}")
        started, copy = time.perf_counter(), folder / "notebooks" / notebook.name
        try:
            papermill.execute_notebook(
                notebook, copy, parameters, progress_bar=False, extra_arguments=["--log-level=ERROR"]
            )
        except DeadKernelError:
            raise RuntimeError(
                f"{notebook.name} lost its kernel, most likely for want of memory (see {copy})"
            ) from None
        except papermill.PapermillExecutionError as error:
            raise RuntimeError(f"{notebook.name} failed with {error.ename}: {error.evalue} (see {copy})") from None
        print(f"{notebook.name}  {time.perf_counter() - started:.0f} s", flush=True)


def check_parameters(cells: list[str]) -> None:
    """Raise ValueError for a parameter that the notebook does not have; papermill itself only warns.

    Args:
        cells: IPython's `In`: the sources of the cells run so far. Papermill puts the parameters it was given into a
            cell that starts with '# Parameters', right after the notebook's own.
    """
    for declared, given in zip(cells, cells[1:], strict=False):
        if given.startswith("# Parameters\n"):
            unknown = assigned(given) - assigned(declared)
            if unknown:
                choices = ", ".join(sorted(assigned(declared)))
                raise ValueError(f"unknown parameter {', '.join(sorted(unknown))}: choose from {choices}")


def assigned(source: str) -> set[str]:
    """The names a piece of Python assigns at its top level."""
    targets = [t for node in ast.parse(source).body if isinstance(node, ast.Assign) for t in node.targets]
    return {t.id for t in targets if isinstance(t, ast.Name)}
