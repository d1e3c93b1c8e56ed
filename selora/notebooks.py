"""Driving the numbered notebooks through papermill, and the page that shows what came out."""

import ast
import html
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import papermill
from IPython import get_ipython
from IPython.display import display
from matplotlib.figure import Figure
from nbclient.exceptions import DeadKernelError
from tqdm import tqdm

from selora import plots
from selora.data import load_examples
from selora.data.common import open_image
from selora.files import write_text
from selora.profiles import REPOSITORY, Profile, load_profile
from selora.study import RESULTS, run, run_folder

warnings.filterwarnings("ignore", message="IProgress not found")  # text progress bars need no widgets

FOLDER = REPOSITORY / "notebooks"
NEEDS = {"02_base": "base", "03_full": "full", "04_lora": "lora", "05_selora": "selora", "06_rank_map": "selora"}


@dataclass(frozen=True)
class Study:
    """What a notebook needs of the study: a profile, the folder of its results, and the runs in it."""

    profile: Profile
    folder: Path

    def run(self, method: str) -> pd.DataFrame:
        """Run a method on all data sets and seeds of the profile, skipping what is done; its main figures."""
        pairs = [(dataset, seed) for dataset in self.profile.datasets for seed in self.profile.seeds]
        results = [run(self.profile, dataset, method, seed, self.folder.parent) for dataset, seed in pairs]
        rows = [{**r, "floor_fid": r["floor"]["fid"], "floor_kid": r["floor"]["kid"]} for r in results]
        shown = ["dataset", "seed", "n", "fid", "floor_fid", "kid", "kid_error", "floor_kid", "clip", "best_step"]
        return pd.DataFrame(rows)[[*shown, "train_seconds"]]

    def run_folder(self, dataset: str, method: str) -> Path:
        """The run of the profile's first seed."""
        return run_folder(self.profile, dataset, method, self.profile.seeds[0], self.folder.parent)

    def show_samples(self, *methods: str, count: int, figure: str) -> None:
        """Show reference images and the same prompts' generated ones, one grid per data set."""
        for dataset in self.profile.datasets:
            examples = load_examples(dataset, "test", self.profile.data_root)[:count]
            rows = {"reference": [open_image(e.path, self.profile.resolution) for e in examples]}
            for method in methods:
                folder = self.run_folder(dataset, method)
                if (folder / "result.json").exists():
                    rows[method] = plots.samples(folder, [e.id for e in examples])
            grid = plots.image_grid(rows, [e.prompt for e in examples])
            grid.suptitle(dataset)
            display(plots.save_figure(grid, self.folder, f"{figure}_{dataset}"))

    def loss_curves(self, methods: list[str], figure: str) -> Figure:
        """Training and validation loss of some methods on all data sets, where they were run."""
        files = {
            f"{method}, {dataset}": self.run_folder(dataset, method) / "history.csv"
            for dataset in self.profile.datasets
            for method in methods
        }
        histories = {title: pd.read_csv(path) for title, path in files.items() if path.exists()}
        return plots.save_figure(plots.loss_curves(histories), self.folder, figure)

    def ranks(self, dataset: str) -> pd.DataFrame:
        """Ranks of SeLoRA's layers: network, layer, kind, rank."""
        return pd.read_csv(self.run_folder(dataset, "selora") / "ranks.csv")

    def rank_map(self, dataset: str, figure: str) -> Figure:
        """The paper's Fig. 3 for one data set."""
        return plots.save_figure(plots.rank_map(self.ranks(dataset), dataset), self.folder, figure)

    def ranks_over_time(self, dataset: str, figure: str) -> Figure:
        """SeLoRA's ranks and FI-Ratios after each test."""
        expansions = pd.read_csv(self.run_folder(dataset, "selora") / "expansions.csv")
        return plots.save_figure(plots.ranks_over_time(expansions, dataset), self.folder, figure)


def open_study(profile: str, datasets: str, methods: str, data_root: str, results: str) -> Study:
    """The study that the parameters of the notebook at hand describe; an unknown parameter or name ends it."""
    check_parameters(get_ipython().user_ns["In"])
    loaded = load_profile(profile, datasets, methods, data_root)
    return Study(loaded, Path(results or RESULTS) / loaded.name)


def check_data(profile: Profile) -> None:
    """Read every data set of a profile, so that what is missing is named before anything runs."""
    for dataset in profile.datasets:
        for split in ("train", "val", "test"):
            for example in load_examples(dataset, split, profile.data_root):
                open_image(example.path, profile.resolution)


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


def numbered(methods: list[str]) -> list[Path]:
    """The numbered notebooks that a choice of methods needs, in order."""
    return [path for path in sorted(FOLDER.glob("[0-9]*.ipynb")) if NEEDS.get(path.stem, methods[0]) in methods]


def run_notebooks(notebooks: list[Path], parameters: dict, folder: Path) -> None:
    """Execute notebooks in order, leaving the executed copies in `folder/notebooks`.

    Raises:
        RuntimeError: at the first that fails, with its name and its error.
    """
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


def write_index(folder: Path, title: str) -> Path:
    """Write index.html: the table, the figures, and links to the executed notebooks."""
    parts = [f"<h1>{html.escape(title)}</h1>", "<p>Nothing here is for diagnosis.</p>"]
    table = folder / "table1.md"
    if table.exists():
        lines = table.read_text().split("\n\n")
        rows = [line.strip("|").split("|") for line in lines[0].splitlines() if not line.startswith("|---")]
        cells = ["".join(f"<td>{html.escape(cell.strip().strip('*'))}</td>" for cell in row) for row in rows]
        parts.append("<h2>Table 1</h2><table>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>")
        parts.append(f"<p>{html.escape(lines[1])}</p>")
    for figure in sorted((folder / "figures").glob("*.png")):
        parts.append(f'<h2>{figure.stem.replace("_", " ")}</h2><img src="figures/{figure.name}" alt="{figure.stem}">')
    links = [
        f'<li><a href="notebooks/{p.name}">{p.name}</a></li>' for p in sorted((folder / "notebooks").glob("*.ipynb"))
    ]
    parts.append("<h2>Executed notebooks</h2><ul>" + "".join(links) + "</ul>")
    style = (
        "body{font:15px sans-serif;max-width:1000px;margin:2em auto}td{padding:.2em .6em;border-bottom:1px solid #ccc}"
        "img{max-width:100%}"
    )
    page = f'<!doctype html><meta charset="utf-8"><title>{html.escape(title)}</title><style>{style}</style>'
    write_text(folder / "index.html", page + "\n".join(parts) + "\n")
    return folder / "index.html"
