"""Methods that are fine-tuned on few images, and what they make of those images' prompts: the runs of notebook 20."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from selora.data.example import Example
from selora.files import replacing
from selora.study.profiles import Profile
from selora.study.results import Run

DATASET = "iu-drr"  # montgomery-drr has too few images to be held out


def few_image_runs(profile: Profile, results: Path) -> dict[tuple[str, int], Run]:
    """The runs that a profile asks for under `utility`, of its first seed, by method and number of images. Each number
    has a folder of results of its own, `<results>/<profile>/utility/n=<number>`."""
    return {
        (method, count): Run(
            replace(profile, train_images=count),
            DATASET,
            method,
            profile.seeds[0],
            results / profile.name / "utility" / f"n={count}",
        )
        for method, counts in profile.utility.items()
        for count in counts
        if DATASET in profile.datasets and method in profile.methods
    }


def pictures_of(run: Run, examples: Sequence[Example]) -> list[Path]:
    """What a finished run makes of the prompts of some examples, a picture for each, in the run's folder; made once.

    Raises:
        ValueError: for a run whose weights cannot be read here (`sample_prompts`).
    """
    paths = [run.folder / "pictures" / f"{example.id}.png" for example in examples]
    if not all(path.is_file() for path in paths):
        from selora.study.sample_run import sample_prompts  # it needs torch, which naming the runs does not

        images = sample_prompts(run, [example.prompt for example in examples], run.seed)
        if images is None:
            raise ValueError(
                f"the weights of {run.method} are in a format that is not read here: take it out of the profile's "
                "utility"
            )
        for image, path in zip(images, paths, strict=True):
            with replacing(path) as partial:
                Image.fromarray(image).save(partial, "PNG")
    return paths
