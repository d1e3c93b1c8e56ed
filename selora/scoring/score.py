"""All scores of one set of generated images, and what bounds them: real vs real, the autoencoder limit."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderKL
from torch import nn

from selora.data.example import Example
from selora.diffusion.checkpoint import hash_tensors, load_checkpoint, save_checkpoint
from selora.diffusion.latents import decode, encode
from selora.diffusion.machine import one_thread
from selora.scoring.classifier import finding_scores, label_matrix, make_classifier
from selora.scoring.clip import CLIP, contrasts, embed_pairs, scores_of_pairs
from selora.scoring.encoders import Encoder, features, make_encoder
from selora.scoring.labels import LABELS, counted
from selora.scoring.metrics import fid, finding_auroc, kid, kid_error, ms_ssim_within, prdc
from selora.scoring.resampling import replicates

KIDS = {"kid": "features", "kid_clip": "embeddings"}  # of what of `Seen` each is
DIVERSITY = (6, 3)  # prompts, and images of each, for MS-SSIM: 18 images more to sample


@dataclass(frozen=True)
class Judges:
    """What looks at the images: an encoder, a CLIP, and a classifier of findings."""

    encoder: Encoder
    clip: CLIP
    classifier: nn.Module  # of `classifier.CLASSIFIERS`


def make_judges(encoder: str, clip: str, classifier: str, device: torch.device) -> Judges:
    """The judges that a profile names, on a device."""
    return Judges(make_encoder(encoder).to(device), CLIP(clip).to(device), make_classifier(classifier).to(device))


@dataclass(frozen=True)
class Seen:
    """Images as two encoders see them, one row each: features (N, F) of the encoder, and the CLIP's image embeddings
    (N, D), so long that KID's kernel of two of them is (cosine + 1)^3. Of real ones the first is what KID is of."""

    features: torch.Tensor
    embeddings: torch.Tensor


def distances(reference: torch.Tensor, generated: torch.Tensor) -> dict:
    """What two sets of features (N, F), (M, F) say of each other."""
    return {
        "fid": fid(reference, generated),
        "kid": kid(reference, generated),
        "kid_error": kid_error(reference, generated),
        **prdc(reference, generated),
    }


def compare(reference: Seen, generated: Seen) -> dict:
    """What two sets of images say of each other by both encoders. kid_clip: KID of the CLIP's embeddings; a lead by one
    encoder alone is that encoder's."""
    by_clip = kid(reference.embeddings, generated.embeddings)
    return distances(reference.features, generated.features) | {"kid_clip": by_clip}


def see(images: np.ndarray, embeddings: torch.Tensor, judges: Judges) -> Seen:
    """Images (N, H, W, 3) uint8, with their embeddings of unit length, as `Seen`."""
    return Seen(features(judges.encoder, images), embeddings.shape[1] ** 0.5 * embeddings)


def by_image(images: np.ndarray, examples: Sequence[Example], judges: Judges) -> tuple[pd.DataFrame, torch.Tensor]:
    """One row per image: id, clip (with its own prompt), clip_contrast (less that with others' prompts), and the
    classifier's score of each finding; and the CLIP's embeddings of the images, (N, D)."""
    pairs = embed_pairs(judges.clip, images, [e.prompt for e in examples])
    table = pd.DataFrame(finding_scores(judges.classifier, images).numpy(), columns=LABELS)
    table.insert(0, "clip_contrast", contrasts(*pairs).numpy())
    table.insert(0, "clip", scores_of_pairs(*pairs).numpy())
    table.insert(0, "id", [e.id for e in examples])
    return table, pairs[0]


def scores_and_labels(table: pd.DataFrame, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """The classifier's scores, from `by_image`'s table, and what the prompts say: both (N, LABELS)."""
    labels = label_matrix([e.findings for e in examples], [e.places for e in examples])
    return torch.from_numpy(table[list(LABELS)].to_numpy(copy=True)), labels


def score_prompts(table: pd.DataFrame, examples: Sequence[Example]) -> dict:
    """CLIP score, its contrast, and AUROC of each finding, from `by_image`'s table."""
    found = finding_auroc(*scores_and_labels(table, examples), list(LABELS))
    return {name: float(table[name].mean()) for name in ("clip", "clip_contrast")} | {"findings": found}


@one_thread()
def score_reference(
    vae: AutoencoderKL,
    reference: np.ndarray,
    examples: Sequence[Example],
    others: np.ndarray,
    judges: Judges,
    batch_size: int,
    cache: Path,
) -> tuple[Seen, dict]:
    """The reference images as the encoders see them, and what bounds every method's scores; computed once a data set.

    Args:
        reference: images generated ones are compared with, (N, H, W, 3) uint8, and their examples.
        others: as many other images of the same set: their distance is what sampling noise alone gives (real vs real).
        cache: folder where the outcome is kept, under a hash of everything it depends on.

    Returns:
        What is seen, and a record: floor (real vs real) and ceiling (the autoencoder limit: its reconstruction of
        the reference, which no adapter of the denoiser can better; with `score_prompts`), each as `compare`, and
        reference (`score_prompts` of the reference images themselves).
    """
    made_of = repr((batch_size, examples)).encode()
    digest = hashlib.sha256(reference.tobytes() + others.tobytes() + made_of)
    for module in (judges.encoder, judges.clip, judges.classifier, vae):
        digest.update(hash_tensors(module.state_dict()))
    path = cache / f"limits-{digest.hexdigest()[:16]}.safetensors"
    if not path.exists():
        rebuilt = decode(vae, encode(vae, reference, batch_size), batch_size)
        (table, seen), (rebuilt_table, rebuilt_seen) = (by_image(i, examples, judges) for i in (reference, rebuilt))
        real = see(reference, seen, judges)
        other = see(others, embed_pairs(judges.clip, others, [""] * len(others))[0], judges)
        as_many = Seen(real.features[: len(others)], real.embeddings[: len(others)])
        record = {
            "floor": compare(as_many, other),
            "ceiling": compare(real, see(rebuilt, rebuilt_seen, judges)) | score_prompts(rebuilt_table, examples),
            "reference": score_prompts(table, examples),
        }
        save_checkpoint(path, vars(real), record)
    tensors, record = load_checkpoint(path)
    return Seen(**tensors), record


@one_thread()
def cached_features(encoder: Encoder, images: np.ndarray, cache: Path) -> torch.Tensor:
    """`features` of real images, kept in folder `cache` under a hash of the images and of the encoder's weights."""
    digest = hashlib.sha256(images.tobytes() + hash_tensors(encoder.state_dict()))
    path = cache / f"features-{digest.hexdigest()[:16]}.safetensors"
    if not path.exists():
        save_checkpoint(path, {"features": features(encoder, images)}, {"images": len(images)})
    return load_checkpoint(path)[0]["features"]


def score(
    images: np.ndarray, examples: Sequence[Example], groups: np.ndarray, reference: Seen, judges: Judges
) -> tuple[dict, dict, pd.DataFrame]:
    """All scores of generated images (N, H, W, 3) uint8, their `replicates`, and the table behind them, by image.

    Args:
        examples: whose prompts the images were made for.
        groups: several images of each of some prompts (P, M, H, W, 3), for diversity.
        reference: the real images, those of the examples.
    """
    table, seen = by_image(images, examples, judges)
    generated = see(images, seen, judges)
    found = compare(reference, generated) | score_prompts(table, examples)
    columns = [LABELS.index(record["finding"]) for record in counted(found["findings"])]
    scores, labels = (values[:, columns] for values in scores_and_labels(table, examples))
    by_prompt = {name: torch.from_numpy(table[name].to_numpy(copy=True)) for name in ("clip", "clip_contrast")}
    pairs = {name: (vars(reference)[of], vars(generated)[of]) for name, of in KIDS.items()}
    drawn = replicates(pairs, by_prompt, scores, labels)
    return found | {"ms_ssim": ms_ssim_within(groups), "n": len(images)}, drawn, table
