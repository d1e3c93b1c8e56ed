"""Utility and copies: head, areas and shares against their definitions, and verdicts where the answer is known."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from selora.analysis import copies, utility
from selora.analysis.controls import noise
from selora.analysis.copies import OWN, TEST, copies_table, nearest_rows, nearness, pixels
from selora.analysis.few_image_sets import FINDINGS, REBUILT, FewImageSets
from selora.analysis.utility import BOTH, GENERATED, MEAN, REFERENCE, SHUFFLED, Labelled, areas, fitted, use_of
from selora.scoring.resampling import resamples

RNG = np.random.default_rng(0)
TAUGHT = RNG.normal(size=(len(FINDINGS), 40))  # what each finding does to the features


def pictures(labels: np.ndarray, seed: int, strength: float = 0.7) -> np.ndarray:
    """Features (N, 40) that show findings (N, L)."""
    return strength * labels @ TAUGHT + np.random.default_rng(seed).normal(size=(len(labels), 40))


def labels(count: int, seed: int, often: float = 0.3) -> np.ndarray:
    return np.random.default_rng(seed).random((count, len(FINDINGS))) < often


def test_the_head_is_ridge_regression():
    part = Labelled(pictures(labels(30, 1), 2), labels(30, 1))
    found = fitted(part, np.arange(30))
    centred = part.features - part.features.mean(0)
    inverse = np.linalg.inv(centred.T @ centred + found.best_params_["alpha"] * np.eye(40))
    weights = inverse @ centred.T @ (part.labels - part.labels.mean(0))
    expected = centred @ weights + part.labels.mean(0)
    assert found.predict(part.features) == pytest.approx(expected)


def test_pictures_of_one_prompt_stay_in_one_fold():
    """Of labels that nothing shows, copies across folds would make the least decay look best."""
    part = Labelled(*(np.tile(x, (2, 1)) for x in (RNG.normal(size=(31, 40)), labels(31, 3))))
    assert fitted(part, np.tile(np.arange(31), 2)).best_params_["alpha"] == utility.DECAYS[-1]
    assert fitted(part, np.arange(62)).best_params_["alpha"] < 1


def test_areas_are_those_of_scikit_learn_in_every_resample():
    train, test = (Labelled(pictures(labels(60, s), s), labels(60, s)) for s in (4, 5))
    value, drawn = areas(train, np.arange(60), test)
    scores = fitted(train, np.arange(60)).predict(test.features)
    expected = [roc_auc_score(test.labels[:, i], scores[:, i]) for i in range(len(FINDINGS))]
    assert value == pytest.approx([*expected, np.mean(expected)], abs=1e-6)
    for often, row in zip(resamples(60)[:5].numpy(), drawn, strict=False):
        weighted = [roc_auc_score(test.labels[:, i], scores[:, i], sample_weight=often) for i in range(len(FINDINGS))]
        assert row == pytest.approx([*weighted, np.mean(weighted)])


@pytest.fixture(scope="module")
def table():
    """Of 40 references: what a method made that shows what it is asked for, and one that shows something else."""
    shown = labels(400, 6)
    train, test = Labelled(pictures(shown, 7), shown), Labelled(pictures(labels(300, 8), 9), labels(300, 8))
    made = {
        "follows": pictures(shown[:40], 10, strength=1.5),
        "ignores": pictures(labels(40, 11), 12, strength=1.5),
        REBUILT: train.features[:40],
    }
    return use_of(train, test, {(method, 40): features for method, features in made.items()})


def test_pictures_that_show_their_prompts_add_and_others_take_away(table):
    means = table[table.finding == MEAN].set_index(["arm", "method"])
    assert means.auroc[GENERATED, "follows"].item() > 0.6 > 0.55 > means.auroc[GENERATED, "ignores"].item()
    assert means.gain_low[BOTH, "follows"].item() > 0 > means.gain_high[BOTH, "ignores"].item()
    assert abs(means.gain[BOTH, REBUILT].item()) < 0.02
    assert means.auroc[SHUFFLED, ""].mean() == pytest.approx(0.5, abs=0.06)
    assert means.auroc[utility.ALL, ""].item() > means.auroc[REFERENCE, ""].item()
    said = utility.verdict(table)
    assert "they add to them with follows at n = 40; they take away from them with ignores at n = 40" in said
    assert "with the references' own copies" in said and REBUILT not in said


def test_what_copies_add_is_no_gain(table):
    """A lead that the references' own copies have too is not said to be the pictures'."""
    lifted = table.assign(gain=table.gain.where(table.method != REBUILT, 0.5))
    assert "they do neither that could be told with follows" in utility.verdict(lifted)


def test_the_mean_is_over_findings_and_draws_have_no_interval(table):
    own = table[(table.arm == REFERENCE)].set_index("finding").auroc
    assert own[MEAN] == pytest.approx(own.drop(MEAN).mean())
    means = utility.summary(table).set_index("arm")
    assert means.findings.eq(len(own) - 1).all()
    drawn = table[table.arm == SHUFFLED].auroc
    assert means.sd[SHUFFLED] == pytest.approx(drawn.std()) and means.auroc[SHUFFLED] == pytest.approx(drawn.mean())
    assert np.isnan(means.low[SHUFFLED]) and np.isfinite(means.low[REFERENCE])


def test_rare_findings_are_named_and_none_is_no_table():
    shown = labels(60, 13)
    shown[:, 0], shown[4:, 1] = False, False
    part = Labelled(pictures(shown, 14), shown)
    found = use_of(part, part, {("lora", 20): part.features[:20]})
    assert utility.left_out(found)[20].startswith(f"{FINDINGS[0]}, {FINDINGS[1]}") and FINDINGS[0] not in {
        *found.finding
    }
    nothing = use_of(Labelled(part.features, shown & False), part, {("lora", 20): part.features[:20]})
    assert nothing.empty and "cannot be told: no finding is frequent enough" in utility.verdict(nothing)


def vectors(count: int, seed: int, size: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, size)))


def test_the_share_is_the_mean_over_every_draw_of_others():
    made, train, count = vectors(7, 1), vectors(9, 2), 3
    found, distance = nearness(made, train, count), torch.cdist(made, train)
    own = distance[:, :count].min(1).values
    limit = torch.cdist(train[count:], train[:count]).min(1).values.quantile(copies.QUANTILE)
    draws = [distance[:, list(draw)].min(1).values for draw in combinations(range(count, 9), count)]
    assert found["share"] == pytest.approx(np.mean([(own < other).double().mean() for other in draws]))
    assert found["near_held"] == pytest.approx(np.mean([(other < limit).sum() for other in draws]))
    assert found["near"] == (own < limit).sum()
    with pytest.raises(ValueError, match="5 of 9 images are trained on: as many others cannot be held out"):
        nearness(made, train, 5)


def test_pictures_that_tell_nothing_have_a_small_p_as_seldom_as_it_says(monkeypatch):
    """Although all lie where few images do, so that their nearest are the same few: over them alone an interval of the
    share is far too narrow."""
    monkeypatch.setattr(copies, "DRAWS", 99)
    found = [nearness(0.3 * vectors(40, seed) + 2, vectors(60, 1000 + seed), 20) for seed in range(200)]
    assert 0 < np.mean([one["p"] <= 0.1 for one in found]) < 0.14
    assert np.mean([one["chance_low"] <= one["share"] <= one["chance_high"] for one in found]) > 0.9
    assert np.mean([one["low"] <= 0.5 <= one["high"] for one in found]) < 0.4


def made_sets() -> FewImageSets:
    """Images of noise, 60 to train on and 20 held out; `remembers` made the first 16 of the former again."""
    draw = np.random.default_rng(0)
    train, test, other = (draw.integers(0, 256, (n, 64, 64, 3), dtype=np.uint8) for n in (60, 20, 16))
    made = {("remembers", 16): noise(train[:16], 5.0), ("invents", 16): other}
    nothing = [np.zeros((len(images), len(FINDINGS)), dtype=bool) for images in (train, test)]
    return FewImageSets(train, nothing[0], test, nothing[1], made, made, noise(train[:16], 2.0))


def test_what_remembers_and_planted_copies_are_found_and_others_are_not():
    table = copies_table(made_sets(), {"pixels": pixels})
    rows = table.set_index(["method", "prompts"])
    for name in (("remembers", TEST), ("remembers", OWN), (REBUILT, ""), (copies.NOISED, "")):
        assert rows.share[name] == pytest.approx(1) and rows.near[name] == 16 and rows.p[name] == 1 / (1 + copies.DRAWS)
    for name in (("invents", TEST), (copies.HELD, "")):
        assert rows.chance_low[name] < rows.share[name] < rows.chance_high[name] and rows.near[name] <= 1
    said = copies.verdict(table)
    assert "nearer than held-out ones to what was made by remembers at n = 16 by pixels (" in said
    assert "of planted copies 16 of 16 are found" in said
    assert "nothing says that" in copies.verdict(table[table.method != "remembers"])


def test_the_nearest_image_of_a_copy_is_its_own():
    rows = list(nearest_rows(made_sets(), "remembers", 16, pixels, columns=4).values())
    assert all(np.abs(copy.astype(int) - own).mean() < 6 for copy, own in zip(*rows[:2], strict=True))
    assert all(np.abs(copy.astype(int) - other).mean() > 60 for copy, other in zip(rows[0], rows[2], strict=True))


def test_pixels_are_means_of_parts_of_the_grey_picture():
    image = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    image[0, :32] = 255
    found = pixels(image).reshape(copies.SIDE, copies.SIDE)
    assert found[:8].mean().item() == pytest.approx(1) and found[-8:].mean().item() == pytest.approx(0)


def test_a_sentence_of_one_case_has_one_number():
    assert utility.said_range(pd.Series([0.5]), ".1f") == "0.5"
    assert utility.said_range(pd.Series([0.5, 0.1, 0.3]), ".1f") == "0.1 to 0.5"


def test_sizes_are_those_that_were_trained_on():
    sets = made_sets()
    assert replace(sets, own_prompts={("lora", 17): sets.train[:15]}).sizes == {17: 15}
