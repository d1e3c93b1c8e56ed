"""The images that notebook 20 compares: references to train on, references held out, and what methods fine-tuned on few
of the former made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from selora.analysis.image_sets import MOST
from selora.data import load_parts
from selora.data.example import Example
from selora.data.pictures import load_images
from selora.data.subset import few_of
from selora.diffusion.base import load_base
from selora.diffusion.latents import decode, encode
from selora.scoring.classifier import label_matrix
from selora.scoring.labels import LABELS
from selora.study.few_images import pictures_of
from selora.study.profiles import Profile
from selora.study.results import Run

FINDINGS = [name for name in LABELS if ", " not in name]  # without sides
REBUILT = "autoencoder's copies"  # what the images that runs were fine-tuned on are called, as a control


@dataclass(frozen=True)
class FewImageSets:
    """Images (N, H, W, 3) uint8. Those that a run was fine-tuned on are the first of `train`, as many as it has
    `own_prompts`."""

    train: np.ndarray  # the training split
    train_labels: np.ndarray  # (N, FINDINGS) bool
    test: np.ndarray  # the test split, which nothing is trained on
    test_labels: np.ndarray
    own_prompts: dict[tuple[str, int], np.ndarray]  # generated, one for the prompt of each image of the n
    test_prompts: dict[tuple[str, int], np.ndarray]  # generated for prompts of the test split
    rebuilt: np.ndarray  # the first of `train` through the base's autoencoder: what a perfect memory would make

    @property
    def sizes(self) -> dict[int, int]:
        """How many images the runs of each n were fine-tuned on: n, but for a study that would have been cut."""
        return {n: len(images) for (_, n), images in self.own_prompts.items()}


def load_few_image_sets(profile: Profile, runs: Mapping[tuple[str, int], Run]) -> FewImageSets:
    """The images of finished runs (`few_image_runs`), and those that they are compared with. Raises ValueError for a
    run whose weights cannot be read here."""
    most, dataset = MOST * profile.images, next(iter(runs.values())).dataset
    parts = load_parts(dataset, profile.data_root)
    split, test = parts["train"], parts["test"][:most]
    train = few_of(split, len(split))[:most]
    own = {key: open_all(pictures_of(run, few_of(split, key[1])), profile.resolution) for key, run in runs.items()}
    scored = [example.id for example in test[: profile.images]]
    others = {key: open_all(run.samples(scored), profile.resolution) for key, run in runs.items()}
    images = [load_images(part, profile.resolution) for part in (train, test)]
    labels = [labels_of(part) for part in (train, test)]
    vae, batch = load_base(profile.base_model).vae, profile.sampling_batch
    known = images[0][: max(map(len, own.values()))]
    rebuilt = decode(vae, encode(vae, known, batch), batch)
    return FewImageSets(images[0], labels[0], images[1], labels[1], own, others, rebuilt)


def open_all(files: Sequence[Path], size: int) -> np.ndarray:
    """Pictures from files, (N, size, size, 3) uint8."""
    return load_images([Example(file.stem, file, "", ()) for file in files], size)


def labels_of(examples: Sequence[Example]) -> np.ndarray:
    """Which of the FINDINGS each example's report names: (N, FINDINGS) bool."""
    labels = label_matrix([e.findings for e in examples], [e.places for e in examples])
    return labels[:, [LABELS.index(name) for name in FINDINGS]].numpy()
