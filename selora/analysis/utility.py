"""Are generated pictures good for training a classifier of findings?

A linear head on an encoder's frozen features is fitted to n references, to what a method that was fine-tuned on the
same n made of their prompts, and to both, and judged on references of the test split. The generated ones' labels are
those of the reports that they were prompted with: a method that ignores its prompts teaches nothing.

Its intervals are over the test's pictures alone. That another n, another seed of the method or other noise would do the
same is not in them.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold

from selora.analysis.few_image_sets import FINDINGS, REBUILT, FewImageSets
from selora.scoring.metrics import auroc
from selora.scoring.resampling import resampled_auroc, resamples

DECAYS = 10.0 ** np.arange(-2, 5)
FOLDS, DRAWS = 5, 10
LEAST = (5, 8)  # images with a finding, and without it, to train and to test on: fewer say nothing
MEAN = "mean of them"  # in place of a finding
REFERENCE, GENERATED, BOTH, ALL = "references", "generated", "both", "all references"
OTHERS, SHUFFLED = "other references", "shuffled labels"
COLUMNS = [
    *("n", "method", "arm", "draw", "pictures", "finding", "positives", "auroc", "low", "high"),
    *("gain", "gain_low", "gain_high"),
]


class Labelled(NamedTuple):
    """Features (N, F) of pictures, and which of some findings each has, (N, L) bool."""

    features: np.ndarray
    labels: np.ndarray


class Arm(NamedTuple):
    """What a head is trained on."""

    name: str
    method: str  # '' for references alone
    draw: int
    part: Labelled
    prompts: np.ndarray  # (N,), whose prompt each picture belongs to


def fitted(part: Labelled, prompts: np.ndarray) -> GridSearchCV:
    """A linear head: least squares with weight decay, solved in closed form, so that no arm is trained for longer than
    another. Features are taken as they are: where they were scaled to one variance each, copies of the training
    features with a little noise alone raised the mean AUROC, by 0.01 to 0.04.

    The decay is chosen by cross-validation on the training pictures. prompts: (N,), whose each is: the pictures of one
    stay in one fold.
    """
    search = GridSearchCV(Ridge(), {"alpha": DECAYS}, cv=GroupKFold(FOLDS), scoring="neg_mean_squared_error")
    return search.fit(part.features, part.labels.astype(float), groups=prompts)


def areas(part: Labelled, prompts: np.ndarray, test: Labelled) -> tuple[np.ndarray, np.ndarray]:
    """AUROC on the test's pictures of a head trained on a part: of each finding and, last, their mean, (L + 1,); and
    the same in resamples of the pictures, (D, L + 1)."""
    scores = torch.from_numpy(fitted(part, prompts).predict(test.features).reshape(test.labels.shape))
    columns = list(zip(scores.T, torch.from_numpy(test.labels).T, strict=True))
    often = resamples(len(scores))
    found = np.array([auroc(*column) for column in columns])
    drawn = torch.stack([resampled_auroc(*column, often) for column in columns], dim=1)
    return np.append(found, found.mean()), torch.cat([drawn, drawn.nanmean(1, keepdim=True)], dim=1).numpy()


def frequent(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The places of the findings that enough training and test images have and lack; labels (N, L) bool."""
    enough = [np.minimum(x.sum(0), (~x).sum(0)) >= least for x, least in zip((train, test), LEAST, strict=True)]
    return np.flatnonzero(np.logical_and(*enough))


def arms(train: Labelled, made: Mapping[str, np.ndarray]) -> Iterator[Arm]:
    """All that a head is trained on at one n, the references first.

    Args:
        train: the training split; made: by method, features of what it made of the prompts of the first of it.
    """
    count = len(next(iter(made.values())))
    places, rng = np.arange(count), np.random.default_rng(0)
    own = Labelled(train.features[:count], train.labels[:count])
    yield Arm(REFERENCE, "", 0, own, places)
    for method, features in made.items():
        yield Arm(GENERATED, method, 0, Labelled(features, own.labels), places)
        together = Labelled(np.concatenate([own.features, features]), np.tile(own.labels, (2, 1)))
        yield Arm(BOTH, method, 0, together, np.tile(places, 2))
    for draw in range(DRAWS):
        others = rng.permutation(len(train.features))[:count]
        yield Arm(OTHERS, "", draw, Labelled(train.features[others], train.labels[others]), places)
        yield Arm(SHUFFLED, "", draw, Labelled(own.features, rng.permutation(own.labels)), places)
    yield Arm(ALL, "", 0, train, np.arange(len(train.features)))


def measured(train: Labelled, test: Labelled, names: list[str], made: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """What `utility_table` has of one n. names: of the findings that the labels are."""
    tables, known = [], None
    positives = [*test.labels.sum(0), test.labels.any(1).sum()]
    for arm in arms(train, made):
        value, drawn = areas(arm.part, arm.prompts, test)
        known = known or (value, drawn)  # of the references, which come first
        spans = [np.nanquantile(x, [0.025, 0.975], axis=0) for x in (drawn, drawn - known[1])]
        table = pd.DataFrame({"finding": [*names, MEAN], "positives": positives, "auroc": value})
        table = table.assign(low=spans[0][0], high=spans[0][1], gain=value - known[0])
        table = table.assign(gain_low=spans[1][0], gain_high=spans[1][1], arm=arm.name, method=arm.method)
        table = table.assign(draw=arm.draw, pictures=len(arm.prompts))
        tables.append(table if arm.name in (REFERENCE, GENERATED, BOTH) else table.tail(1))
    return pd.concat(tables)


def use_of(train: Labelled, test: Labelled, generated: Mapping[tuple[str, int], np.ndarray]) -> pd.DataFrame:
    """`utility_table` of features.

    Args:
        train: the training split; the first of it are those that a method was fine-tuned on.
        generated: by method and n, features of what it made of their prompts, in their order.
    """
    tables = []
    for count in sorted({n for _, n in generated}):
        made = {method: features for (method, n), features in generated.items() if n == count}
        columns = frequent(train.labels[: len(next(iter(made.values())))], test.labels)
        if len(columns):
            parts = [Labelled(part.features, part.labels[:, columns]) for part in (train, test)]
            tables.append(measured(*parts, [FINDINGS[i] for i in columns], made).assign(n=count))
    return pd.concat(tables, ignore_index=True)[COLUMNS] if tables else pd.DataFrame(columns=COLUMNS)


def utility_table(sets: FewImageSets, seen: Callable[[np.ndarray], torch.Tensor]) -> pd.DataFrame:
    """What each arm's head reaches on the test split, one row for each finding that is frequent enough, and their mean.

    Arms, at each n: references; generated, and both, by method. Controls: the references through the autoencoder in
    place of what a method made; and of which only the mean is kept, shuffled labels, and other references, as many, in
    several draws; all references, the bound.

    Args:
        seen: from images to features (N, F).

    Returns:
        n, method ('' for references alone), arm, draw, pictures (trained on), finding, positives (of the test), auroc,
        low and high (95 %, over test pictures alone), gain (auroc less that of the references at the same n), gain_low,
        gain_high (in the same resamples of pictures, pair by pair). No rows where no finding is frequent enough.
    """
    made = sets.own_prompts | {(REBUILT, n): sets.rebuilt[:size] for n, size in sets.sizes.items()}
    # in double precision, where the least decay leaves a system that can be solved
    generated = {key: seen(images).double().numpy() for key, images in made.items()}
    train, test = (seen(images).double().numpy() for images in (sets.train, sets.test))
    return use_of(Labelled(train, sets.train_labels), Labelled(test, sets.test_labels), generated)


def left_out(table: pd.DataFrame) -> pd.Series:
    """The findings that are too rare for a number, by n."""
    known = table.groupby("n").finding.unique()
    return known.map(lambda names: ", ".join(name for name in FINDINGS if name not in names) or "none")


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """The mean over findings, a row for each n, arm and method: findings (how many), pictures, auroc (mean over draws),
    sd (over draws), low, high, gain, gain_low, gain_high (none of several draws)."""
    means = table[table.finding == MEAN].assign(
        findings=lambda t: t.n.map(table[table.arm == REFERENCE].groupby("n").size() - 1)
    )
    keys, spans = ["n", "arm", "method", "findings", "pictures"], ["low", "high", "gain", "gain_low", "gain_high"]
    groups = means.groupby(keys, sort=False)
    found = groups[spans].mean().where(groups.size() == 1)
    found.insert(0, "sd", groups.auroc.std())
    found.insert(0, "auroc", groups.auroc.mean())
    return found.reset_index()


def verdict(table: pd.DataFrame) -> str:
    """Do generated pictures add anything to n references? In Markdown. They do where the interval of what they add lies
    above 0 and above what the references' own copies add."""
    if table.empty:
        return "Whether generated pictures are good for anything cannot be told: no finding is frequent enough."
    means = summary(table)
    both, alone = (means[(means.arm == arm) & (means.method != REBUILT)] for arm in (BOTH, GENERATED))
    copies = means[(means.arm == BOTH) & (means.method == REBUILT)].set_index("n").gain
    adds, harms = both.gain_low > both.n.map(copies).clip(lower=0), both.gain_high < 0
    answers = {"add to them": adds, "take away from them": harms, "do neither that could be told": ~(adds | harms)}
    words = "; ".join(f"they {what} with {cases(both[rows])}" for what, rows in answers.items() if rows.any())
    details = ", ".join(
        f"{row.gain:+.3f} ({row.gain_low:+.3f} to {row.gain_high:+.3f}) with {row.method} at n = {row.n}"
        for row in both.itertuples()
    )
    shuffled = means[means.arm == SHUFFLED].auroc
    return (
        f"As many generated pictures beside n references: {words}. The mean AUROC changes by {details} (95 % over test "
        f"pictures alone; one seed); by {said_range(copies, '+.3f')} with the references' own copies; by "
        f"{said_range(alone.gain, '+.3f')} where generated pictures stand in place of the references. On shuffled "
        f"labels it is {said_range(shuffled, '.2f')}."
    )


def said_range(values: pd.Series, form: str) -> str:
    """The least and the largest of some numbers in words, as '0.1 to 0.3'; one number where they are alike."""
    return " to ".join(dict.fromkeys(format(value, form) for value in (values.min(), values.max())))


def cases(rows: pd.DataFrame) -> str:
    """Rows in words, as 'lora at n = 50, 100'."""
    counts = rows.groupby("method", sort=False).n.agg(lambda n: ", ".join(map(str, n)))
    return " and ".join(f"{method} at n = {found}" for method, found in counts.items())
