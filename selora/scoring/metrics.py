"""Scores of two sets of features (N, F), of images or of scores. They know no encoder."""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

# Of several processes only the main one scores: torchmetrics must not wait for the others.
ALONE = {"sync_on_compute": False}


class _Identity(nn.Module):
    """Stands in for torchmetrics' image encoder, since the features are there already."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def fid(reference: torch.Tensor, other: torch.Tensor) -> float:
    """Fréchet distance of two Gaussians fitted to the features. Biased upwards for small N: see real vs real."""
    together = torch.cat([reference, other]).double()
    # Both sets lie in the space that their features span; a rotation into it changes no distance and saves much time.
    basis = torch.linalg.qr(together.T).Q  # (F, min(F, N + M))
    metric = FrechetInceptionDistance(feature=_Identity(basis.shape[1]), **ALONE)
    metric.update(reference.double() @ basis, real=True)
    metric.update(other.double() @ basis, real=False)
    return metric.compute().item()


def kid(reference: torch.Tensor, other: torch.Tensor) -> float:
    """Kernel distance (unbiased squared MMD, cubic polynomial kernel) over all features; below 0 by chance near 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of the memory that the features take, which they take anyway
        size = min(len(reference), len(other))
        metric = KernelInceptionDistance(feature=_Identity(reference.shape[1]), subsets=1, subset_size=size, **ALONE)
    metric.update(reference.double(), real=True)
    metric.update(other.double(), real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # it draws all rows, but in an order: another one rounds otherwise, in the sixteenth digit
        return metric.compute()[0].item()


def kid_error(reference: torch.Tensor, other: torch.Tensor, folds: int = 10) -> float:
    """Standard error of `kid`, by the jackknife: each of the folds, the same places of both sets, is left out once."""
    size = min(len(reference), len(other))
    kept = [torch.arange(size)[torch.arange(size) % folds != fold] for fold in range(min(folds, size))]
    values = np.array([kid(reference[rows], other[rows]) for rows in kept])
    return float(np.sqrt((len(values) - 1) * values.var()))


def prdc(reference: torch.Tensor, other: torch.Tensor, neighbours: int = 5) -> dict[str, float]:
    """Precision, recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

    A ball around each image of a set reaches to its k-th nearest neighbour there. precision: share of `other` inside
    any ball of the reference; recall: the reverse; density: reference balls that an image of `other` is in, over k;
    coverage: share of reference balls with any image of `other` inside. Precision and recall over-count outliers.
    """

    def reach(features: torch.Tensor) -> torch.Tensor:
        return torch.cdist(features, features).kthvalue(neighbours + 1).values  # the nearest is the image itself

    between = torch.cdist(reference.double(), other.double())  # (reference, other)
    inside = between < reach(reference.double())[:, None]
    return {
        "precision": inside.any(0).double().mean().item(),
        "recall": (between < reach(other.double())[None]).any(1).double().mean().item(),
        "density": (inside.sum(0).double().mean() / neighbours).item(),
        "coverage": inside.any(1).double().mean().item(),
    }


def ms_ssim_within(groups: np.ndarray) -> float:
    """Mean multi-scale structural similarity of all pairs of images of one prompt: 1 says that they are all alike.

    Args:
        groups: images (prompts, images of a prompt, H, W, 3) uint8, at least 112 pixels wide (kernel 7, four halvings).
    """
    grey = torch.from_numpy(groups[..., :1]).permute(0, 1, 4, 2, 3).float()  # (P, M, 1, H, W)
    first, second = torch.triu_indices(grey.shape[1], grey.shape[1], offset=1)
    return multiscale_structural_similarity_index_measure(
        grey[:, first].flatten(0, 1), grey[:, second].flatten(0, 1), kernel_size=7, data_range=255.0
    ).item()


def auroc(scores: torch.Tensor, labels: torch.Tensor) -> float:
    """Area under the ROC curve: how often an image with the finding scores above one without. 0.5 is chance."""
    return binary_auroc(scores, labels.int()).item()


def bootstrap(statistic: Callable[..., float], *values: torch.Tensor, draws: int = 1000, seed: int = 0) -> list[float]:
    """95 % interval [low, high] of a statistic over images, drawn anew with replacement and kept in their pairs."""
    rng = np.random.default_rng(seed)
    count = len(values[0])
    drawn = [torch.from_numpy(rng.integers(0, count, count)) for _ in range(draws)]
    return np.nanquantile([statistic(*(v[rows] for v in values)) for rows in drawn], [0.025, 0.975]).tolist()


def auroc_interval(scores: torch.Tensor, labels: torch.Tensor, draws: int = 1000, seed: int = 0) -> list[float]:
    """95 % bootstrap interval [low, high] of `auroc`: images with the finding and images without are redrawn."""
    with_it, without = scores[labels.bool()], scores[~labels.bool()]
    wins = (with_it[:, None] > without).double() + 0.5 * (with_it[:, None] == without)  # (with, without)
    rng = np.random.default_rng(seed)
    often = [torch.from_numpy(rng.multinomial(n, np.full(n, 1 / n), draws)).double() for n in wins.shape]
    areas = torch.einsum("di,ij,dj->d", often[0], wins, often[1]) / wins.numel()
    return torch.quantile(areas, torch.tensor([0.025, 0.975]).double()).tolist()


def finding_auroc(scores: torch.Tensor, labels: torch.Tensor, names: list[str], least: int = 8) -> list[dict]:
    """AUROC of each finding with its interval, where at least `least` images have it and as many lack it.

    Args:
        scores, labels: (N, names), the classifier's scores (nan for what it does not know) and what the prompts say.

    Returns:
        Records: finding, n (with the finding), auroc, low, high.
    """
    records = []
    for column, name in enumerate(names):
        present = labels[:, column].bool()
        if min(present.sum(), (~present).sum()) >= least and not scores[:, column].isnan().any():
            value, (low, high) = auroc(scores[:, column], present), auroc_interval(scores[:, column], present)
            records.append({"finding": name, "n": int(present.sum()), "auroc": value, "low": low, "high": high})
    return records
