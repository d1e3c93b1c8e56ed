"""Driving the numbered notebooks through papermill, and what they have in common."""

import ast
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import pandas as pd
import papermill
from IPython import get_ipython
from IPython.display import display
from matplotlib.figure import Figure
from nbclient.exceptions import DeadKernelError
from tqdm import tqdm

from selora import gallery, plots
from selora.data import load_examples
from selora.data.common import Example, open_image
from selora.executors import EXECUTORS, Run, make_runs
from selora.methods import METHODS
from selora.profiles import REPOSITORY, Profile, check_choices, load_profile
from selora.study import RESULTS, run_folder

warnings.filterwarnings("ignore", message="IProgress not found")  # text progress bars need no widgets
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")  # PEFT's use of transformers

FOLDER = REPOSITORY / "notebooks"
PUBLISHED = RESULTS / "published" / "mini"  # the reference results
FIRST = ("base", "full", "lora", "dylora", "adalora", "selora")  # methods with a notebook of their own
NEEDS = {  # a notebook without any of its methods is left out
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


@dataclass(frozen=True)
class Study:
    """What a notebook needs of the study: a profile, the folder of its results, and the runs in it."""

    profile: Profile
    folder: Path
    executor: str = "local"

    def run(self, *methods: str) -> pd.DataFrame:
        """Run methods on all data sets and seeds of the profile, skipping what is done; their main figures."""
        return self.make(self.runs(methods))

    def runs(self, methods: Sequence[str]) -> list[Run]:
        """The runs of some methods: data set, method, seed."""
        datasets = self.profile.datasets
        return [(d, m, s) for m in methods for d in datasets for s in self.profile.seeds_of(m)]

    def run_ablation(self) -> pd.DataFrame:
        """Run SeLoRA at the profile's thresholds, skipping what is done; their main figures."""
        return self.make(self.ablation_runs())

    def ablation_runs(self) -> list[Run]:
        """The runs at the profile's thresholds, but for SeLoRA's own, of which there is a run."""
        chosen = self.profile.ablation_datasets or self.profile.datasets
        datasets = [dataset for dataset in self.profile.datasets if dataset in chosen]
        own = METHODS["selora"][1] | self.profile.method_settings.get("selora", {})
        names = [f"selora@{threshold}" for threshold in self.profile.ablation if threshold != own["threshold"]]
        return [(d, name, s) for d in datasets for name in names for s in self.profile.seeds_of(name)]

    def run_everything(self) -> None:
        """Make all runs of the profile at once, for an executor that has many machines."""
        methods = self.profile.methods
        self.make(self.runs(methods) + (self.ablation_runs() if "selora" in methods else []))

    def make(self, runs: list[Run]) -> pd.DataFrame:
        """Make runs, skipping what is done; the main figures of each."""
        results = make_runs(self.profile, runs, self.folder.parent, self.executor)
        rows = [{**r, "floor_fid": r["floor"]["fid"], "floor_kid": r["floor"]["kid"]} for r in results]
        shown = ["dataset", "method", "seed", "n", "fid", "floor_fid", "kid", "kid_error", "floor_kid", "clip"]
        return pd.DataFrame(rows, columns=[*shown, "best_step", "train_seconds"])

    def run_folder(self, dataset: str, method: str, seed: int | None = None) -> Path:
        """Where a run's files are; by default the profile's first seed's."""
        seed = self.profile.seeds[0] if seed is None else seed
        return run_folder(self.profile, dataset, method, seed, self.folder.parent)

    def finished(self, dataset: str) -> list[str]:
        """The profile's methods that were run on a data set."""
        return [m for m in self.profile.methods if (self.run_folder(dataset, m) / "result.json").exists()]

    def scored(self, dataset: str) -> list[Example]:
        """The test examples that were sampled and scored."""
        return load_examples(dataset, "test", self.profile.data_root)[: self.profile.images]

    def images(self, examples: list[Example]) -> list:
        """The examples' own images as the models see them."""
        return [open_image(e.path, self.profile.resolution) for e in examples]

    def show_samples(self, *methods: str, count: int, figure: str) -> None:
        """Show reference images and the same prompts' generated ones, one grid per data set."""
        for dataset in self.profile.datasets:
            examples = self.scored(dataset)[:count]
            self.show_examples(dataset, examples, [e.prompt for e in examples], methods, f"{figure}_{dataset}")

    def show_findings(self, figure: str) -> None:
        """Show the test examples with the clearest findings, and what each method made of their prompts."""
        for dataset in self.profile.datasets:
            scored = self.scored(dataset)
            chosen = gallery.clearest(dataset, scored) or {e.id: e for e in scored[: len(gallery.TO_SHOW)]}
            captions = [f"{finding.upper()}: {e.prompt}" for finding, e in chosen.items()]
            self.show_examples(dataset, list(chosen.values()), captions, self.finished(dataset), f"{figure}_{dataset}")

    def show_examples(self, dataset: str, examples: list[Example], captions: list[str], methods, figure: str) -> None:
        """Show some test examples, and below what methods made of their prompts, as far as they were run."""
        finished = [method for method in methods if method in self.finished(dataset)]
        names = [e.id for e in examples]
        rows = {self.reference(dataset): self.images(examples)}
        rows |= {method: plots.samples(self.run_folder(dataset, method), names) for method in finished}
        self.show_grid(rows, captions, dataset, figure)

    def show_paper_prompt(self, dataset: str, count: int, figure: str) -> None:
        """Show what each method makes of the prompt of the paper's Fig. 2, below the images of the nearest reports."""
        splits = ("train", "val", "test")
        examples = [e for split in splits for e in load_examples(dataset, split, self.profile.data_root)]
        nearest = gallery.nearest_prompts(gallery.PAPER_PROMPT, examples, count)
        rows = {self.reference(dataset): self.images(nearest)}
        for method in self.finished(dataset):
            images = gallery.sample_run(self.profile, self.run_folder(dataset, method), gallery.PAPER_PROMPT, count)
            if images:
                rows[method] = images
            else:
                print(f"{method}: its weights are in PEFT's own format, which is not read here")
        self.show_grid(rows, [e.prompt for e in nearest], f"{dataset}: “{gallery.PAPER_PROMPT}”", figure)

    def show_grid(self, rows: dict, captions: list[str], title: str, figure: str) -> None:
        """Show and save rows of pictures."""
        grid = plots.image_grid(rows, captions)
        grid.suptitle(fill(title, 24 * max(len(images) for images in rows.values())), fontsize=9)
        display(plots.save_figure(grid, self.folder, figure))

    def reference(self, dataset: str) -> str:
        """What a data set's own images are called: only radiographs of people are 'real'."""
        return "reference,\nrendered" if dataset.endswith("-drr") else "real"

    def loss_curves(self, methods: list[str], figure: str) -> Figure:
        """Training and validation loss of some methods on all data sets, where they were run."""
        files = {
            f"{method}, {dataset}": self.run_folder(dataset, method) / "history.csv"
            for dataset in self.profile.datasets
            for method in methods
        }
        histories = {title: pd.read_csv(path) for title, path in files.items() if path.exists()}
        return plots.save_figure(plots.loss_curves(histories), self.folder, figure)

    def ranks(self, dataset: str, method: str = "selora") -> pd.DataFrame:
        """Ranks of a method's layers, of all its finished seeds: network, layer, kind, rank, seed."""
        return self.over_seeds(dataset, method, "ranks.csv")

    def expansions(self, dataset: str, method: str = "selora") -> pd.DataFrame:
        """A growing method's tests of layers, of all its finished seeds: expansions.csv with kind and seed."""
        tests = self.over_seeds(dataset, method, "expansions.csv")
        kinds = self.ranks(dataset, method)[["network", "layer", "kind"]].drop_duplicates()
        return tests.merge(kinds, on=["network", "layer"])

    def over_seeds(self, dataset: str, method: str, name: str) -> pd.DataFrame:
        """One of a method's files of all its finished seeds in one table."""
        folders = {seed: self.run_folder(dataset, method, seed) for seed in self.profile.seeds_of(method)}
        done = {seed: folder for seed, folder in folders.items() if (folder / "result.json").exists()}
        if not done:
            raise FileNotFoundError(f"{method} was not run on {dataset}: run its notebook, or make run_all, first")
        tables = {seed: pd.read_csv(folder / name) for seed, folder in done.items()}
        return pd.concat(tables, names=["seed"]).reset_index("seed")

    def save(self, figure: Figure, name: str) -> Figure:
        """Write a figure into the results' folder and hand it back."""
        return plots.save_figure(figure, self.folder, name)


def open_study(profile: str, datasets: str, methods: str, data_root: str, results: str, executor: str) -> Study:
    """The study that the parameters of the notebook at hand describe; an unknown parameter or name ends it."""
    check_parameters(get_ipython().user_ns["In"])
    loaded = load_profile(profile, datasets, methods, data_root)
    check_choices("executor", [executor], EXECUTORS)
    return Study(loaded, Path(results or RESULTS) / loaded.name, executor)


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
    books = sorted(FOLDER.glob("[0-9]*.ipynb"))
    return [path for path in books if path.stem not in NEEDS or NEEDS[path.stem] & {*methods}]


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
