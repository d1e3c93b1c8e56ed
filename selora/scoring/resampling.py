"""A run's scores under resampled images, kept with the run: two runs compare, pair by pair, without their images.

Every run draws the same images: which ones depends on their number and a fixed seed alone. Image i of every run has the
same prompt, so the difference of two runs, replicate by replicate, is that of a paired bootstrap over prompts.

FID has none: 500 matrix square roots take minutes, and a resample's duplicates add to a bias that at these sizes is
most of FID already, so that its interval would not be one of the images' quality.
"""

from collections.abc import Mapping

import numpy as np
import torch

DRAWS, SEED = 500, 0  # to change either is to make runs that no older ones pair with


def resamples(count: int, draws: int = DRAWS, seed: int = SEED) -> torch.Tensor:
    """How often each of `count` images is drawn: (draws, count), each row of the sum `count`.

    From RandomState, whose stream is frozen: numpy's newer generators may draw otherwise in a later release, and runs
    of two machines would no longer be paired.
    """
    drawn = np.random.RandomState(seed).randint(0, count, (draws, count), dtype=np.int64)
    return torch.from_numpy(np.stack([np.bincount(row, minlength=count) for row in drawn])).double()


def resampled_kid(reference: torch.Tensor, generated: torch.Tensor, often: torch.Tensor) -> torch.Tensor:
    """`metrics.kid` of each resample, (D,).

    An image and its reference are drawn together: they share a prompt, and prompts are what the interval is over, so
    the reference of other prompts would have been another too. Copies of one image are no independent pair. They are
    left out, as the unbiased estimate leaves out an image's pair with itself; they would pull KID up, the more the
    fewer images there are.

    Args:
        reference, generated: features (N, F); row i of both belongs to one prompt.
        often: how often each is drawn, (D, N).
    """

    def mean(x: torch.Tensor, y: torch.Tensor, copies: torch.Tensor) -> torch.Tensor:
        """Mean of the cubic kernel over pairs, of which (D, N) many of each image with its like are left out."""
        kernel = (x.double() @ y.double().T / x.shape[1] + 1) ** 3
        total = ((often @ kernel) * often).sum(1) - copies @ kernel.diagonal()
        return total / (often.sum(1) ** 2 - copies.sum(1))

    within = mean(reference, reference, often**2) + mean(generated, generated, often**2)
    return within - 2 * mean(reference, generated, often**2 - often)  # an image and its own reference are a pair


def resampled_auroc(scores: torch.Tensor, labels: torch.Tensor, often: torch.Tensor) -> torch.Tensor:
    """`metrics.auroc` of scores (N,) and labels (N,) bool in each resample, (D,); nan where a class was not drawn."""
    with_it, without = scores[labels], scores[~labels]
    wins = (with_it[:, None] > without).double() + 0.5 * (with_it[:, None] == without)  # (with, without)
    positive, negative = often[:, labels], often[:, ~labels]
    return ((positive @ wins) * negative).sum(1) / (positive.sum(1) * negative.sum(1))


def replicates(
    seen: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
    by_image: Mapping[str, torch.Tensor],
    scores: torch.Tensor,
    labels: torch.Tensor,
) -> dict[str, list[float | None]]:
    """Replicates of each KID, of means over images and of the mean finding AUROC, to 6 digits; no auroc where there is
    no finding.

    Args:
        seen: features (N, F) of reference and generated images, by the name of the KID that is of them.
        by_image: figures whose mean counts, as the CLIP score: (N,) each.
        scores, labels: (N, L), of the findings that the mean AUROC counts. A replicate leaves out a finding of which
            it drew no image; None stands for one that drew none of any finding.
    """
    often = resamples(len(scores))
    found = {name: resampled_kid(*pair, often) for name, pair in seen.items()}
    found |= {name: often @ values.double() / len(scores) for name, values in by_image.items()}
    if labels.shape[1]:
        areas = [resampled_auroc(*column, often) for column in zip(scores.T, labels.T, strict=True)]
        found["auroc"] = torch.stack(areas).nanmean(0)
    return {name: [None if v != v else float(f"{v:.6g}") for v in drawn.tolist()] for name, drawn in found.items()}
