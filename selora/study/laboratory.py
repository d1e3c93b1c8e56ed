"""What the numbered notebooks have in common: a profile's runs, made, read and shown."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import fill

import pandas as pd
from IPython import get_ipython
from IPython.display import Image as ShownImage
from IPython.display import Markdown, display
from matplotlib.figure import Figure
from PIL import Image

from selora.data import load_examples, load_parts
from selora.data.example import Example
from selora.data.pictures import open_image
from selora.figures import pictures
from selora.figures.examples import PAIRS, PAPER_PROMPT, clearest, nearest_prompts
from selora.figures.runs import loss_curves
from selora.files import PUBLISHED, RESULTS
from selora.methods import METHODS, lacks
from selora.study.grid import EXECUTORS, make_runs
from selora.study.parameters import check_parameters
from selora.study.profiles import Profile, check_choices, load_profile
from selora.study.published import banner, said_time
from selora.study.results import Run
from selora.study.shown import shown_figure, shown_file

warnings.filterwarnings("ignore", message="IProgress not found")  # text progress bars need no widgets
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")  # PEFT's use of transformers


@dataclass(frozen=True)
class Study:
    """What a notebook needs of the study: a profile, the folder of its results, and the runs in it.

    Of published results nothing is made, and nothing is written to their folder.
    """

    profile: Profile
    folder: Path
    executor: str = "local"
    published: bool = False

    def run(self, *methods: str) -> pd.DataFrame:
        """Run methods on all data sets and seeds of the profile, skipping what is done; their main scores."""
        return self.make(self.runs(methods))

    def runs(self, methods: Sequence[str]) -> list[Run]:
        """The runs of some methods, of all data sets and seeds; a method whose package is not here is left out."""
        for method in (method for method in methods if lacks(method)):
            print(f"{method} is left out: it needs the package {lacks(method)} (pip install -e '.[{method}]').")
        profile, here = self.profile, [method for method in methods if not lacks(method)]
        return [self.named(d, m, s) for m in here for d in profile.datasets for s in profile.seeds_of(m, d)]

    def named(self, dataset: str, method: str, seed: int | None = None) -> Run:
        """A run by its names; by default of the profile's first seed."""
        return Run(self.profile, dataset, method, self.profile.seeds[0] if seed is None else seed, self.folder.parent)

    def run_ablation(self) -> pd.DataFrame:
        """Run SeLoRA at the profile's thresholds, skipping what is done; their main scores."""
        return self.make(self.ablation_runs())

    def ablation_runs(self) -> list[Run]:
        """The runs at the profile's thresholds, but for SeLoRA's own, of which there is a run."""
        chosen = self.profile.ablation_datasets or self.profile.datasets
        datasets = [dataset for dataset in self.profile.datasets if dataset in chosen]
        own = METHODS["selora"][1] | self.profile.method_settings.get("selora", {})
        names = [f"selora@{threshold}" for threshold in self.profile.ablation if threshold != own["threshold"]]
        return [self.named(d, name, s) for d in datasets for name in names for s in self.profile.seeds_of(name, d)]

    def everything(self) -> list[Run]:
        """All runs of the profile."""
        methods = self.profile.methods
        return self.runs(methods) + (self.ablation_runs() if "selora" in methods else [])

    def make(self, runs: list[Run]) -> pd.DataFrame:
        """Make runs, skipping what is done, or read those that are published; the main scores of each."""
        if missing := [run for run in runs if not run.done]:
            lacking = ", ".join(f"{run.method} on {run.dataset}, seed {run.seed}" for run in missing)
            print(f"Not published: {lacking}" if self.published else said_time(missing), flush=True)
        results = [run.result() for run in runs if run.done] if self.published else make_runs(runs, self.executor)
        names = {"fid": "FID, real vs real", "kid": "KID, real vs real"}
        rows = [{**r, **{words: r["floor"][name] for name, words in names.items()}} for r in results]
        shown = ["dataset", "method", "seed", "n", "fid", names["fid"], "kid", "kid_error", names["kid"], "clip"]
        return pd.DataFrame(rows, columns=[*shown, "best_step", "train_seconds"])

    def having(self, method: str) -> list[str]:
        """The profile's data sets that a method was run on, with any seed."""
        profile = self.profile
        return [d for d in profile.datasets if any(self.named(d, method, s).done for s in profile.seeds_of(method, d))]

    def finished(self, dataset: str) -> list[str]:
        """The profile's methods that were run on a data set."""
        return [method for method in self.profile.methods if self.named(dataset, method).done]

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
            chosen = clearest(dataset, self.scored(dataset))
            captions = [f"{finding.upper()}: {e.prompt}" for finding, e in chosen.items()]
            self.show_examples(dataset, list(chosen.values()), captions, self.finished(dataset), f"{figure}_{dataset}")

    def show_examples(self, dataset: str, examples: list[Example], captions: list[str], methods, figure: str) -> None:
        """Show some test examples, and below what methods made of their prompts; what is missing is said."""
        rows = {self.reference(dataset): self.images(examples)}
        for method in methods:
            paths = self.named(dataset, method).samples([e.id for e in examples])
            images = [Image.open(path) if path.is_file() else None for path in paths]
            if any(images):
                rows[method] = images
            if missing := images.count(None):
                print(f"{dataset}, {method}: {missing} of {len(images)} samples are not here")
        if self.published and len(rows) == 1:
            self.show_kept(figure)
        else:
            self.show_grid(rows, captions, dataset, figure)

    def show_kept(self, figure: str) -> None:
        """Show a published figure as it was made, where what it was made of is not published, such as weights."""
        path = self.folder / "figures" / f"{figure}.webp"
        if path.is_file():
            print(f"{path.name}, as it was published:")
            display(shown_file(path))
        else:
            print(f"{path.name} is not among the published figures")

    def show_paper_prompt(self, dataset: str, count: int, figure: str) -> None:
        """Show what each method makes of the prompt of the paper's Fig. 2, below the images of the nearest reports."""
        if self.published:
            return self.show_kept(figure)
        from selora.study.sample_run import sample_run  # it needs torch, which most notebooks do not

        examples = [e for part in load_parts(dataset, self.profile.data_root).values() for e in part]
        nearest = nearest_prompts(PAPER_PROMPT, examples, count)
        rows = {self.reference(dataset): self.images(nearest)}
        for method in self.finished(dataset):
            images = sample_run(self.named(dataset, method), PAPER_PROMPT, count)
            if images:
                rows[method] = images
            else:
                print(f"{method}: its weights are in PEFT's own format, which is not read here")
        self.show_grid(rows, [e.prompt for e in nearest], f"{dataset}: “{PAPER_PROMPT}”", figure)

    def show_pairs(self, dataset: str, method: str, count: int, figure: str) -> None:
        """Show what a method makes of prompts that differ in one finding; each column has its own noise."""
        if self.published:
            return self.show_kept(figure)
        from selora.study.sample_run import sample_run  # it needs torch, which most notebooks do not

        if method not in self.finished(dataset):
            return print(f"{method} was not run on {dataset}")
        run = self.named(dataset, method)
        rows = {finding: sample_run(run, prompt, count) for finding, prompt in PAIRS.items()}
        self.show_grid(rows, [f"noise {i + 1}" for i in range(count)], f"{dataset}, {method}", figure)

    def show_grid(self, rows: dict, captions: list[str], title: str, figure: str) -> None:
        """Show and save rows of pictures."""
        grid = pictures.image_grid(rows, captions)
        grid.suptitle(fill(title, 24 * max(len(images) for images in rows.values())), fontsize=9)
        display(self.save(grid, figure))

    def reference(self, dataset: str) -> str:
        """What a data set's own images are called: only radiographs of people are 'real'."""
        return "reference,\nrendered" if dataset.endswith("-drr") else "real"

    def loss_curves(self, methods: list[str], figure: str) -> ShownImage:
        """Training and validation loss of some methods on all data sets, where they were run."""
        histories = {
            f"{method}, {dataset}": self.named(dataset, method).table("history")
            for dataset in self.profile.datasets
            for method in methods
            if method in self.finished(dataset)
        }
        return self.save(loss_curves(histories), figure)

    def ranks(self, dataset: str, method: str = "selora") -> pd.DataFrame:
        """Ranks of a method's layers, of all its finished seeds: network, layer, kind, rank, seed."""
        return self.over_seeds(dataset, method, "ranks")

    def expansions(self, dataset: str, method: str = "selora") -> pd.DataFrame:
        """A growing method's tests of layers, of all its finished seeds: expansions.csv with kind and seed."""
        tests = self.over_seeds(dataset, method, "expansions")
        kinds = self.ranks(dataset, method)[["network", "layer", "kind"]].drop_duplicates()
        return tests.merge(kinds, on=["network", "layer"])

    def over_seeds(self, dataset: str, method: str, name: str) -> pd.DataFrame:
        """One of a method's tables, of all its finished seeds in one."""
        runs = [self.named(dataset, method, seed) for seed in self.profile.seeds_of(method, dataset)]
        tables = {run.seed: run.table(name) for run in runs if run.done}
        if not tables:
            raise FileNotFoundError(f"{method} was not run on {dataset}: run its notebook, or make run_all, first")
        return pd.concat(tables, names=["seed"]).reset_index("seed")

    def save(self, figure: Figure, name: str) -> ShownImage:
        """Write a figure into the results' folder, unless that is a published one, and hand it back to be shown."""
        return shown_figure(figure, name, None if self.published else self.folder)


def open_study(
    profile: str, datasets: str, methods: str, data_root: str, results: str, executor: str, published: bool = False
) -> Study:
    """The study that the parameters of the notebook at hand describe; an unknown parameter or name ends it.

    Args:
        profile: its name or file; empty: the environment's SELORA_PROFILE, else quick.
        published: show the published results of the profile, under a banner, and make no run.

    Raises:
        FileNotFoundError: where none are published.
    """
    check_parameters(get_ipython().user_ns["In"])
    loaded = load_profile(profile or os.environ.get("SELORA_PROFILE") or "quick", datasets, methods, data_root)
    check_choices("executor", [executor], EXECUTORS)
    study = Study(loaded, Path(results or RESULTS) / loaded.name, executor)
    if not published:
        return study
    shown = as_published(study)
    if not any(map(shown.having, loaded.methods)):
        raise FileNotFoundError(f"no run of profile {loaded.name} is published: set published = False to make them")
    return announced(shown, study)


def open_finished(
    profile: str, datasets: str, methods: str, data_root: str, results: str, executor: str, reads: Sequence[str] = ()
) -> Study:
    """The study of a notebook that only reads: of the published results, under a banner, where no run that it reads is
    finished and the repository has published ones.

    Args:
        reads: methods whose runs it reads; all of the profile's without it.
    """
    study = open_study(profile, datasets, methods, data_root, results, executor)
    shown, wanted = as_published(study), reads or study.profile.methods
    if any(map(study.having, wanted)) or not any(map(shown.having, wanted)):
        return study
    return announced(shown, study)


def as_published(study: Study) -> Study:
    """The same study, of the published results."""
    return replace(study, folder=PUBLISHED / study.profile.name, published=True)


def announced(shown: Study, own: Study) -> Study:
    """A study of published results, after its banner was shown."""
    done = [run for run in shown.runs(shown.profile.methods) if run.done]
    display(Markdown(banner(shown.profile.name, own.folder, done)))
    return shown
