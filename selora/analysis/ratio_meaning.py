"""What the FI-Ratio measures: how much of it a layer's rank, the norm of its B and the step tell without any gradient,
and what it does where the model stays as it is.

Of the ratio's variance each predictor has a Shapley share: what it adds to R^2, in the mean over all orders in which
predictors can be added. Ranks and norms both grow with the steps, so what one adds depends on which went before, and an
order would be a choice; the shares need none, are never negative, and sum to the R^2 of all together.
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import permutations

import numpy as np
import pandas as pd
import torch
from torch import nn

from selora.adapters import all_lora_layers, lora_pair
from selora.analysis.released_code import Variant, VariantSeLoRA
from selora.criteria import CRITERIA
from selora.data import load_examples
from selora.data.pictures import load_images
from selora.diffusion.base import load_base, noise_schedule
from selora.diffusion.draws import BATCH, draw_batch, generator
from selora.diffusion.latents import encode, tokenize
from selora.diffusion.loop import denoising_loss, trainable
from selora.expansion import SeLoRA
from selora.files import WEIGHTS
from selora.study.results import Run
from selora.study.sample_run import load_weights

LARGER = 4  # times a training batch: what a finished run is tested with
FACTORS = (0.5, 1.0, 2.0)  # c of A -> c A, B -> B / c


# ---- from the records of a run ---------------------------------------------------------------------------------------


def explained(tests: pd.DataFrame) -> pd.DataFrame:
    """How much of the variance of log(ratio), and of log(ratio - 1), the rank, |B| and the step explain: per network.

    Without structure in the gradients ratio - 1 is a product of norms (`criteria.NullCorrected`), so its logarithm is
    where a rank's or norm's share is plainest. Rank and step enter as classes, |B| by its logarithm and the square of
    it. Tests whose ratio is 1 or infinite, or B zero, have no logarithm and are left out.

    Args:
        tests: expansions.csv: step, network, layer, fi_ratio, rank (after), expanded, b_norm.

    Returns:
        One row per network and target: n; of R^2: for each of rank, b_norm, step what it has `alone` and its `share`,
        `all` of them together, `by chance` what as many random columns would have, `and layer` with which layer it is.
    """
    rows = []
    for network, own in tests[tests.fi_ratio.between(1, np.inf, inclusive="neither") & (tests.b_norm > 0)].groupby(
        "network", sort=False
    ):
        norm = np.log(own.b_norm.to_numpy())
        blocks = {
            "rank": classes(own["rank"] - own.expanded.astype(int)),  # in the test
            "b_norm": np.column_stack([norm, norm**2]),
            "step": classes(own.step),
        }
        columns = np.column_stack([*blocks.values()])
        for target, y in (("log ratio", np.log(own.fi_ratio)), ("log (ratio - 1)", np.log(own.fi_ratio - 1))):
            fitted = partial(r_squared, y.to_numpy())
            alone = {f"{name} alone": fitted(block) for name, block in blocks.items()}
            share = {f"{name} share": value for name, value in shapley(blocks, fitted).items()}
            whole = {"all": fitted(columns), "by chance": min(1.0, columns.shape[1] / max(1, len(own) - 1))}
            layered = {"and layer": fitted(np.column_stack([columns, classes(own.layer)]))}
            rows.append({"network": network, "of": target, "n": len(own)} | alone | share | whole | layered)
    return pd.DataFrame(rows)


def classes(values: pd.Series) -> np.ndarray:
    """A column of 0 and 1 for each value but the first, (n, values - 1)."""
    return pd.get_dummies(values, drop_first=True).to_numpy(dtype=float)


def r_squared(y: np.ndarray, columns: np.ndarray) -> float:
    """The share of y's variance that least squares on a constant and some columns explains; nan where y has none."""
    left = y - y.mean()
    design = np.column_stack([np.ones(len(y)), columns])
    rest = left - design @ np.linalg.lstsq(design, left, rcond=None)[0]
    return 1 - rest @ rest / (left @ left) if left @ left else math.nan


def shapley(blocks: Mapping[str, np.ndarray], fitted: Callable[[np.ndarray], float]) -> dict[str, float]:
    """What each block of columns adds to `fitted`, in the mean over all orders of the blocks."""
    orders, shares = list(permutations(blocks)), dict.fromkeys(blocks, 0.0)
    for order in orders:
        before = 0.0
        for place, name in enumerate(order, start=1):
            now = fitted(np.column_stack([blocks[part] for part in order[:place]]))
            shares[name] += (now - before) / len(orders)
            before = now
    return shares


# ---- on the weights of a run -----------------------------------------------------------------------------------------


def open_run(run: Run) -> tuple[dict[str, nn.Module], Callable[[], torch.Tensor]]:
    """A finished run's networks, their adapters trainable, and the denoising loss of `LARGER` batches of its training
    images at once.

    Raises:
        FileNotFoundError: where the run's weights are not there; few of the published ones are.
    """
    if not (path := run.folder / WEIGHTS).exists():
        raise FileNotFoundError(
            f"the weights of {run.method}, seed {run.seed}, are not there: make the run to have them"
        )
    profile, pipe = run.profile, load_base(run.profile.base_model, run.profile.precision)
    load_weights(pipe, path)
    networks = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    for model in networks.values():
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(".lora_" in name)
    examples = load_examples(run.dataset, "train", profile.data_root)
    chosen = random.Random(0).sample(examples, min(LARGER * profile.batch_size, len(examples)))
    latents = encode(pipe.vae, load_images(chosen, profile.resolution), profile.sampling_batch)
    tokens = tokenize(pipe.tokenizer, [example.prompt for example in chosen])
    order, draw = ("noise", "timesteps"), generator(run.seed, BATCH, 1)
    batch = draw_batch(latents, tokens, torch.arange(len(chosen)), draw, order=order)
    return networks, partial(denoising_loss, networks, noise_schedule(pipe), **batch)


@contextmanager
def rescaled(networks: Mapping[str, nn.Module], c: float) -> Iterator[None]:
    """A -> c A and B -> B / c in every layer, which leaves the model as it is; undone at the end, to the bit."""
    weights = [side.weight for layer in all_lora_layers(networks).values() for side in lora_pair(layer)]
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for place, weight in enumerate(weights):
            weight.mul_(1 / c if place % 2 else c)
    yield
    with torch.no_grad():
        for weight, kept in zip(weights, before, strict=True):
            weight.copy_(kept)


def one_test(
    networks: Mapping[str, nn.Module], loss: Callable[[], torch.Tensor], make: Callable[..., SeLoRA] = SeLoRA
) -> pd.DataFrame:
    """The records of one test of all layers, which grows none."""
    selora = make(networks, torch.optim.SGD(trainable(networks), lr=0.0), threshold=math.inf, interval=1)
    with selora.probe(1):
        loss().backward()
    for parameter in trainable(networks):
        parameter.grad = None
    return pd.DataFrame(selora.expand(1))


def by_norms(networks, loss) -> pd.DataFrame:
    """How far the norms of A, B and K alone, without a gradient, give the ratio of one test: the null ratio.

    Returns:
        One row per network: layers, `ratio` and `null` (medians), and of the variance of log(ratio - 1) over the layers
        what log(null - 1) `explains` as it is (below 0: worse than their mean) and what a line through it would.
    """
    tests = one_test(networks, loss, CRITERIA["null-corrected"])
    rows = []
    for network, own in tests[(tests.fi_ratio > 1) & (tests.gain > 0)].groupby("network", sort=False):
        excess, corrected = np.log(own.fi_ratio - 1), np.log(own.gain)
        null = excess - corrected
        row = {"layers": len(own), "ratio": own.fi_ratio.median(), "null": 1 + np.exp(null).median()}
        row |= {"explains": 1 - corrected.var() / excess.var(), "a line": excess.corr(null) ** 2}
        rows.append({"network": network} | row)
    return pd.DataFrame(rows)


def rescaling(networks, loss, threshold: float, factors: Sequence[float] = FACTORS) -> pd.DataFrame:
    """What A -> c A, B -> B / c does to a test: by the ratio, and by the invariant criterion.

    Returns:
        One row per network, criterion and c: layers, `grown` (those at the threshold or above), `others` (layers that
        are decided otherwise than at c = 1), `order` (Spearman's correlation of the gains with those at c = 1).
    """
    rows = []
    for name in ("ratio", "invariant"):
        tests = {}
        for c in {1.0, *factors}:
            with rescaled(networks, c):
                tests[c] = one_test(networks, loss, CRITERIA[name])
        rows += [
            row | {"criterion": name, "c": c} for c in factors for row in compared(tests[1.0], tests[c], threshold)
        ]
    return pd.DataFrame(rows)[["network", "criterion", "c", "layers", "grown", "others", "order"]]


def released(networks, loss, threshold: float) -> pd.DataFrame:
    """The released code's score, the square of the batch's mean gradient, against Eq. 3's mean of squares, on one test:
    columns as of `rescaling`, `others` and `order` against Eq. 3's."""
    ours = one_test(networks, loss, CRITERIA["ratio"])
    batch = one_test(networks, loss, partial(VariantSeLoRA, Variant(batch_fisher=True)))
    tests = {"mean of squares (Eq. 3)": ours, "square of the mean (released)": batch.assign(gain=batch.fi_ratio)}
    rows = [row | {"score": name} for name, test in tests.items() for row in compared(ours, test, threshold)]
    return pd.DataFrame(rows)[["network", "score", "layers", "grown", "others", "order"]]


def compared(one: pd.DataFrame, other: pd.DataFrame, threshold: float) -> list[dict]:
    """How the gains of a test compare with those of another, a row for each network."""
    rows, both = [], one.merge(other, on=["network", "layer"], suffixes=("_one", ""))
    for network, own in both.groupby("network", sort=False):
        grown, before = own.gain >= threshold, own.gain_one >= threshold
        order = own.gain.rank().corr(own.gain_one.rank())
        row = {
            "network": network,
            "layers": len(own),
            "grown": int(grown.sum()),
            "others": int((grown != before).sum()),
        }
        rows.append(row | {"order": order})
    return rows
