"""The images that the controls compare: all of a data set, and what the methods made of its prompts."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from selora.data import load_parts
from selora.data.example import Example
from selora.data.pictures import load_images
from selora.study.profiles import Profile
from selora.study.results import Run
from selora.study.stages import reference_and_others

MOST = 16  # images of a split for each scored one: all of them in quick, a few in smoke


@dataclass(frozen=True)
class ImageSets:
    """All images of a set (N, H, W, 3) uint8; places in it; and the runs of the profile's first seed, by method."""

    examples: list[Example]
    images: np.ndarray
    test: np.ndarray  # of the scored images: the reference
    train: np.ndarray
    others: np.ndarray  # as many training images, drawn at random: real vs real
    generated: dict[str, np.ndarray]  # images (n, H, W, 3) uint8 for the scored images' prompts, where all are there
    results: dict[str, dict]  # what stands in result.json

    @property
    def prompts(self) -> list[str]:
        """Of the scored images."""
        return [self.examples[i].prompt for i in self.test]


def load_image_sets(profile: Profile, dataset: str, results: Path) -> ImageSets:
    """A data set, and the finished runs on it; methods without one are left out, and where samples are missing (few are
    published) that is said."""
    most = MOST * profile.images
    splits = {split: part[:most] for split, part in load_parts(dataset, profile.data_root).items()}
    examples = [example for found in splits.values() for example in found]
    places = {example.id: place for place, example in enumerate(examples)}
    scored, others = reference_and_others(splits["test"], splits["train"], profile.images)
    test, train, other = ([places[e.id] for e in part] for part in (scored, splits["train"], others))
    generated, records = {}, {}
    for method in profile.methods:
        run = Run(profile, dataset, method, profile.seeds[0], results)
        if run.done:
            records[method] = run.result()
            files = run.samples([e.id for e in scored])
            if missing := sum(not file.is_file() for file in files):
                print(f"{dataset}, {method}: {missing} of {len(files)} samples are not here; its record alone is read")
            else:
                generated[method] = load_images([Example(f.stem, f, "", ()) for f in files], profile.resolution)
    images = load_images(examples, profile.resolution)
    return ImageSets(examples, images, np.array(test), np.array(train), np.array(other), generated, records)
