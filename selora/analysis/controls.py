"""Controls: what the metrics say where the answer is known. Each returns a table."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderKL
from PIL import Image, ImageFilter
from torch import nn

from selora.analysis.image_sets import ImageSets
from selora.diffusion.latents import decode, encode
from selora.scoring.classifier import finding_scores, label_matrix
from selora.scoring.clip import CLIP, contrasts, embed_pairs, scores_of_pairs
from selora.scoring.encoders import Encoder, features
from selora.scoring.labels import LABELS, SIDED
from selora.scoring.metrics import auroc, bootstrap, fid, kid
from selora.scoring.score import distances


def blur(images: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of images (N, H, W, 3) uint8; sigma in pixels."""
    return np.stack([np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma))) for image in images])


def noise(images: np.ndarray, sigma: float) -> np.ndarray:
    """Grey Gaussian noise; sigma in grey levels of 255. The same draw for every strength."""
    grain = np.random.default_rng(0).normal(0, sigma, (*images.shape[:3], 1))
    return (images + grain).round().clip(0, 255).astype(np.uint8)


def contrast(images: np.ndarray, factor: float) -> np.ndarray:
    """Contrast about each image's own mean, multiplied by a factor."""
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    return (mean + factor * (images - mean)).round().clip(0, 255).astype(np.uint8)


# name: (how, strengths from weak to strong)
DEGRADATIONS: dict[str, tuple[Callable[[np.ndarray, float], np.ndarray], Sequence[float]]] = {
    "blur, pixels": (blur, (0.5, 1.0, 2.0, 4.0)),
    "noise, grey levels": (noise, (2.0, 5.0, 10.0, 20.0)),
    "contrast, factor": (contrast, (0.85, 0.7, 0.5, 0.3)),
}


def degradations(reference: torch.Tensor, others: np.ndarray, encoder: Encoder) -> pd.DataFrame:
    """FID and KID of the reference's features (N, F) against other images of the same set, degraded more and more.

    Strength 0, the images as they are, is real vs real. Columns: degradation, strength, level (0 is none), fid, kid.
    """
    plain = features(encoder, others)
    undamaged = fid(reference, plain), kid(reference, plain)
    rows = []
    for name, (degrade, strengths) in DEGRADATIONS.items():
        rows.append((name, 0.0, 0, *undamaged))
        for level, strength in enumerate(strengths, start=1):
            found = features(encoder, degrade(others, strength))
            rows.append((name, strength, level, fid(reference, found), kid(reference, found)))
    return pd.DataFrame(rows, columns=["degradation", "strength", "level", "fid", "kid"])


def bias_curve(reference: torch.Tensor, sizes: Sequence[int], draws: int, seed: int = 0) -> pd.DataFrame:
    """FID and KID between two samples of the same set, by their size n: both are truly 0.

    Beside it the same for samples of a Gaussian with the set's own mean and covariance, which has no anatomy at all.
    Sizes of which the set holds no two disjoint samples are left out. Columns: set, n, draw, fid, kid.
    """
    rng = np.random.default_rng(seed)
    centred = (reference - reference.mean(0)).double()
    rows = []
    for n in (n for n in sizes if 2 * n <= len(reference)):
        for draw in range(draws):
            first, second = torch.from_numpy(rng.permutation(len(reference))[: 2 * n]).split(n)
            weights = torch.from_numpy(rng.standard_normal((2 * n, len(reference)))) / len(reference) ** 0.5
            simulated = weights @ centred + reference.mean(0)  # exactly the set's covariance, without forming it
            pairs = {"images": (reference[first], reference[second]), "Gaussian": simulated.split(n)}
            rows += [(name, n, draw, fid(a, b), kid(a, b)) for name, (a, b) in pairs.items()]
    return pd.DataFrame(rows, columns=["set", "n", "draw", "fid", "kid"])


def ladder(
    sets: ImageSets, found: torch.Tensor, other_set: torch.Tensor, encoder: Encoder, vae: AutoencoderKL
) -> pd.DataFrame:
    """`score.distances` of everything there is against the reference images, best first in expectation; the methods'
    are those that their runs recorded.

    Args:
        found: features (N, F) of all images of the set; other_set: of another data set.
        vae: the base's autoencoder, for its limit.
    """
    reference = found[sets.test]
    rebuilt = decode(vae, encode(vae, sets.images[sets.test], 25), 25)
    rungs = {
        "real vs real: other images of the set": distances(reference, found[sets.others]),
        "autoencoder limit: its images through the autoencoder": distances(reference, features(encoder, rebuilt)),
    }
    rungs |= {
        method: {name: run.get(name) for name in next(iter(rungs.values()))} for method, run in sets.results.items()
    }
    return pd.DataFrame(rungs | {"the other data set": distances(reference, other_set)}).T


def findings_table(sets: ImageSets) -> pd.DataFrame:
    """AUROC of each finding on the reference, its reconstruction and every method's images, from the runs' results.

    Columns: images, finding, n, auroc, low, high.
    """
    if not sets.results:
        return pd.DataFrame()
    any_run = next(iter(sets.results.values()))
    told = {"reference": any_run["reference"], "reconstruction": any_run["ceiling"], **sets.results}
    return pd.DataFrame([{"images": name, **record} for name, run in told.items() for record in run["findings"]])


def flips(sets: ImageSets, classifier: nn.Module) -> pd.DataFrame:
    """Left or right? AUROC of the difference of a finding's two sided scores, among reference images that show it on
    one side only; and the same on their mirror images, whose sides are wrong.

    A sided score by itself hardly tells: it is high for the finding on either side, and many findings are on both.
    Columns: finding, left and right (images), as they are, mirrored.
    """
    shown, images = [sets.examples[i] for i in sets.test], sets.images[sets.test]
    labels = label_matrix([e.findings for e in shown], [e.places for e in shown])
    seen = [finding_scores(classifier, np.ascontiguousarray(i)) for i in (images, images[:, :, ::-1])]
    rows = []
    for name in SIDED:
        left, right = (LABELS.index(f"{name}, {side}") for side in ("left", "right"))
        single = labels[:, left] != labels[:, right]
        is_left = labels[single, left]
        if min(is_left.sum(), (~is_left).sum()) >= 3:
            areas = [auroc(scores[single, left] - scores[single, right], is_left) for scores in seen]
            rows.append((name, int(is_left.sum()), int((~is_left).sum()), *areas))
    return pd.DataFrame(rows, columns=["finding", "left", "right", "as they are", "mirrored"])


def alignments(sets: ImageSets, clip: CLIP) -> pd.DataFrame:
    """Mean CLIP score of the reference and of each method's images with their own prompts and with all the others'.

    Columns: images, right, shuffled, and low and high of the difference's 95 % bootstrap interval.
    """
    rows = []
    for name, images in {"reference": sets.images[sets.test], **sets.generated}.items():
        pairs = embed_pairs(clip, images, sets.prompts)
        right, gap = scores_of_pairs(*pairs), contrasts(*pairs)
        low, high = bootstrap(lambda difference: difference.mean().item(), gap)
        rows.append((name, right.mean().item(), (right - gap).mean().item(), low, high))
    return pd.DataFrame(rows, columns=["images", "right", "shuffled", "low", "high"])


def nearest(sets: ImageSets, found: torch.Tensor, encoder: Encoder) -> pd.DataFrame:
    """The training image nearest to each reference image and to each generated one, by the distance of their features.

    Images that were memorised lie nearer to the training set than new real ones do. Columns: images, image (place among
    them), train (place in the set), distance.
    """
    rows = []
    generated = {method: features(encoder, images) for method, images in sets.generated.items()}
    for name, features_of in {"reference": found[sets.test], **generated}.items():
        distance, place = torch.cdist(features_of, found[sets.train]).min(1)
        rows += [(name, i, sets.train[p], d.item()) for i, (d, p) in enumerate(zip(distance, place, strict=True))]
    return pd.DataFrame(rows, columns=["images", "image", "train", "distance"])


def closest_pairs(sets: ImageSets, table: pd.DataFrame, method: str, count: int = 6) -> dict[str, list[np.ndarray]]:
    """The generated images of a method that lie nearest to a training image, and that image, as rows of pictures."""
    rows = table[table.images == method].nsmallest(count, "distance")
    return {
        method: [sets.generated[method][i] for i in rows.image],
        "nearest in training": [sets.images[i] for i in rows.train],
    }
