"""Runs beside the grid's own, with other settings than the profile's: each lies in a folder of results of its own."""

from dataclasses import replace
from pathlib import Path

from selora.study.few_images import few_image_runs
from selora.study.profiles import Profile
from selora.study.results import Run

LENGTHS = ("lora", "dylora", "adalora", "selora")  # the paper's four are run with other numbers of steps, too
SEEDS = 3  # as many of the profile's first


def runs_of_lengths(profile: Profile, results: Path) -> list[Run]:
    """The runs of other numbers of steps that a profile asks for, as `lengths`: whole ones, on a schedule of their own.

    Args:
        results: the folder of all profiles' results.
    """
    return [
        Run(replace(profile, steps=profile.steps | {dataset: steps}), dataset, method, seed, folder)
        for dataset, lengths in profile.lengths.items()
        for steps in lengths
        for folder in [results / profile.name / "lengths" / f"steps={steps}"]
        for method in LENGTHS
        for seed in profile.seeds_of(method, dataset)[:SEEDS]
        if dataset in profile.datasets and method in profile.methods
    ]


def runs_beside(profile: Profile, results: Path) -> list[Run]:
    """All such runs that a profile asks for: of other numbers of steps, and on few images."""
    return [*runs_of_lengths(profile, results), *few_image_runs(profile, results).values()]
