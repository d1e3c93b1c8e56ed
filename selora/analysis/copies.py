"""Do generated pictures give away the images that a method was fine-tuned on?

A picture that tells nothing of them is as often nearest to one of the n as to one of n others of the same split. This
share is the mean over all draws of others, in closed form: of M others, m of which are nearer than the nearest of the
n, a draw of n holds none of those with probability C(M - m, n) / C(M, n).

The n were drawn from the split at random. If the pictures told nothing of them, any other n could have had their share:
a permutation test draws others in their place. So it holds how much n images differ from n others, which an interval
over the pictures does not.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest, hypergeom
from torch.nn.functional import interpolate

from selora.analysis.controls import noise
from selora.analysis.few_image_sets import REBUILT, FewImageSets
from selora.analysis.utility import said_range
from selora.scoring.intervals import LEVEL, holm

DRAWS = 999  # permutations
QUANTILE = 0.01  # of the distances from references held out to the nearest of the n: what is nearer is a near-copy
SIDE = 32  # pixels of the small pictures that are compared
GRAIN = 1.0  # grey levels: the noise of planted copies
HELD, NOISED = "references held out", "copies with noise"  # controls, beside REBUILT
TEST, OWN = "test", "training"  # whose prompts


def pixels(images: np.ndarray) -> torch.Tensor:
    """Small grey pictures, in 0..1 and (N, SIDE * SIDE), of images (N, H, W, 3) uint8."""
    grey = torch.from_numpy(images).float().mean(-1)[:, None]
    return interpolate(grey, size=(SIDE, SIDE), mode="bilinear", antialias=True).flatten(1) / 255


def nearness(pictures: torch.Tensor, train: torch.Tensor, count: int) -> dict:
    """Is the nearest image one of the first `count` of a training split, or one of as many others of it?

    Args:
        pictures: (P, F); train: (N, F), in a space whose distances say how alike two pictures are.

    Returns:
        share (nearer to the n, 0.5 for pictures that tell nothing), low, high (95 %, Wilson's, over the pictures
        alone), chance_low, chance_high (95 % of the shares of other n in their place), p (of as large a share among
        those), near (pictures nearer to one of the n than QUANTILE of the others are), near_held (the same of as many
        others, in the mean over draws).

    Raises:
        ValueError: where there are fewer others.
    """
    others = len(train) - count
    if others < count:
        raise ValueError(f"{count} of {len(train)} images are trained on: as many others cannot be held out")
    distance = torch.cdist(pictures.double(), train.double()).numpy()  # (P, N)
    places = distance.argsort(axis=1).argsort(axis=1)
    none_nearer = hypergeom.pmf(0, others, np.arange(others + 1), count)  # by how many of the others are nearer
    rng = np.random.default_rng(0)
    parts = [np.arange(count), *(rng.permutation(len(train))[:count] for _ in range(DRAWS))]
    share, *drawn = (none_nearer[places[:, part].min(axis=1)].mean() for part in parts)
    low, high = binomtest(round(share * len(pictures)), len(pictures)).proportion_ci(method="wilson")
    chance_low, chance_high = np.quantile(drawn, [LEVEL / 2, 1 - LEVEL / 2])
    limit = torch.cdist(train[count:].double(), train[:count].double()).min(1).values.quantile(QUANTILE).item()
    inside = distance < limit
    return {
        **{"share": share, "low": low, "high": high, "chance_low": chance_low, "chance_high": chance_high},
        "p": (1 + sum(other >= share - 1e-9 for other in drawn)) / (1 + DRAWS),
        "near": int(inside[:, :count].any(axis=1).sum()),
        "near_held": float((1 - none_nearer[inside[:, count:].sum(axis=1)]).sum()),
    }


def copies_table(sets: FewImageSets, spaces: Mapping[str, Callable[[np.ndarray], torch.Tensor]]) -> pd.DataFrame:
    """`nearness` of what each method made, of prompts of the test split and of those of its own n, and of controls:
    references held out, which are no copies, and planted copies of the n, with slight noise and through the
    autoencoder.

    Args:
        spaces: functions from images to vectors (N, F), by name.

    Returns:
        One row per space, n and set of pictures: space, n, method (or control), prompts, pictures (how many), and
        `nearness`.
    """
    rows = []
    for space, seen in spaces.items():
        train, held = seen(sets.train), seen(sets.test)
        for count, size in sets.sizes.items():
            shown = {
                (method, prompts): seen(images)
                for prompts, made in ((TEST, sets.test_prompts), (OWN, sets.own_prompts))
                for (method, n), images in made.items()
                if n == count
            }
            copies = {NOISED: noise(sets.train[:size], GRAIN), REBUILT: sets.rebuilt[:size]}
            shown |= {(HELD, ""): held} | {(name, ""): seen(images) for name, images in copies.items()}
            rows += [
                {"space": space, "n": count, "method": method, "prompts": prompts, "pictures": len(vectors)}
                | nearness(vectors, train, size)
                for (method, prompts), vectors in shown.items()
            ]
    return pd.DataFrame(rows)


def nearest_rows(sets: FewImageSets, method: str, count: int, seen: Callable, columns: int = 6) -> dict[str, list]:
    """The pictures of a method that lie nearest to one of its n training images, that image, and the nearest of the
    others: rows of pictures. seen: from images to vectors."""
    pictures, size = sets.test_prompts[method, count], len(sets.own_prompts[method, count])
    distance = torch.cdist(seen(pictures), seen(sets.train))
    own, others = distance[:, :size].min(1), distance[:, size:].min(1)
    chosen = own.values.argsort()[:columns]
    return {
        f"{method},\nn = {count}": list(pictures[chosen.numpy()]),
        "nearest\ntrained on": list(sets.train[own.indices[chosen].numpy()]),
        "nearest\nheld out": list(sets.train[size + others.indices[chosen].numpy()]),
    }


def verdict(table: pd.DataFrame) -> str:
    """Are training pictures nearer than held-out ones? In Markdown, of the prompts of the test split."""
    made = table[table.prompts == TEST]
    planted = table[table.method == REBUILT].groupby("space")[["near", "pictures"]].sum()
    p_values = holm({f"{row.method} at n = {row.n} by {row.space}": row.p for row in made.itertuples()})
    found = [name for name, p in p_values.items() if p < LEVEL]
    answer = (
        f"training pictures are nearer than held-out ones to what was made by {', '.join(found)}"
        if found
        else "nothing says that training pictures are nearer than held-out ones"
    )
    details = "; ".join(
        f"by {space} {said_range(100 * rows.share, '.0f')} % are nearer to one of the n than to one of n others, and "
        f"{rows.near.sum()} of {rows.pictures.sum()} are near-copies (of n others {rows.near_held.sum():.1f}; of "
        f"planted copies {planted.near[space]} of {planted.pictures[space]} are found)"
        for space, rows in made.groupby("space", sort=False)
    )
    return (
        f"Of pictures made for prompts of the test split, {answer} (permutation tests, Holm's correction over "
        f"{len(made)}): {details}."
    )
