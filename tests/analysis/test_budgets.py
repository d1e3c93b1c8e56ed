"""Equal budgets: differences by hand and by scipy, and what is said where the answer is known."""

from itertools import permutations, product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import friedmanchisquare, ttest_rel

from selora.analysis.budgets import OTHERS, OWN, chances, collect, likeness, off_budget, pairs, sentence, versus
from selora.files import write_json

RANKS = [method for method in OTHERS if method != "selora"]


def runs(seeds: int, loss: dict, kid: dict | None = None, methods=(OWN, "selora", *RANKS)) -> pd.DataFrame:
    """Runs of which each seed has a level of its own. loss, kid: by method what is added, a number for each seed."""
    draw = np.random.default_rng(0)
    level, resampled = draw.normal(size=(2, seeds)), draw.normal(size=(seeds, 40))
    rows = []
    for method in methods:
        for seed in range(seeds):
            added = [np.broadcast_to(by.get(method, 0), seeds)[seed] for by in (loss, kid or {})]
            bootstrap = {"kid": list(resampled[seed] + added[1])}
            scores = {"best_val_loss": level[0, seed] + added[0], "kid": level[1, seed] + added[1]}
            row = {"dataset": "iu-drr", "method": method, "seed": seed, "unet_params": 1000, "text_encoder_params": 500}
            rows.append(row | scores | {"bootstrap": bootstrap})
    return pd.DataFrame(rows)


def test_differences_are_paired_by_seed():
    moved = np.array([0.1, 0.4, -0.2])
    table = versus(runs(3, {"ranks-gora": moved})).set_index(["score", "method"])
    row = table.loc["validation loss", "ranks-gora"]
    assert row.difference == pytest.approx(0.1) and row.sd == pytest.approx(np.std(moved, ddof=1))
    assert (row.seeds, row.worse) == (3, 2) and np.isnan(row.low) and np.isnan(row.p)
    assert {*table.index} == {(score, method) for score in ("validation loss", "KID x 1000") for method in OTHERS}


def test_eight_seeds_have_the_interval_of_a_paired_t_test():
    """In the validation loss, where nothing but seeds is drawn; its p is Holm's, over all methods."""
    moved = np.random.default_rng(1).normal(0.5, 0.2, 8)
    table = runs(8, {"ranks-gora": moved, "lora-matched": [-0.1, 0.1] * 4}, methods=(OWN, "lora-matched", "ranks-gora"))
    found = versus(table).set_index(["score", "method"]).loc["validation loss"]
    losses = {method: own.best_val_loss.to_numpy() for method, own in table.groupby("method")}
    expected = ttest_rel(losses["ranks-gora"], losses[OWN])
    row = found.loc["ranks-gora"]
    assert [row.low, row.high] == pytest.approx([*expected.confidence_interval()])
    assert row.p == pytest.approx(2 * expected.pvalue)
    assert found.loc["lora-matched"].p == pytest.approx(1)


def test_kid_is_in_thousandths_and_its_interval_holds_prompts():
    table = versus(runs(8, {}, {"ranks-gora": 0.25}, methods=(OWN, "ranks-gora"))).set_index("score").loc["KID x 1000"]
    assert [table.difference, table.low, table.high] == pytest.approx([250] * 3)  # in every seed and resample


def test_the_permutation_test_is_that_of_every_permutation_written_down():
    """Three seeds of three ways: 216 permutations."""
    places = pd.DataFrame({"a": [1, 1, 2], OWN: [3, 2, 3], "b": [2, 3, 1]})
    ways = [np.array(way) for way in product(*(list(permutations(row)) for row in places.to_numpy()))]
    means = np.array([way.mean(axis=0) for way in [places.to_numpy(), *ways]])
    own, spread = abs(means[:, 1] - 2), ((means - 2) ** 2).sum(axis=1)
    expected = [(figure[1:] >= figure[0] - 1e-9).mean() for figure in (own, spread)]
    assert chances(places) == pytest.approx(expected, abs=0.02)


def test_friedmans_statistic_orders_permutations_as_ours():
    drawn = np.random.default_rng(3).normal(size=(30, 7))
    drawn[:, 0] += 0.8
    places = pd.DataFrame(drawn, columns=[OWN, *"abcdef"]).rank(axis=1)
    assert chances(places)[1] == pytest.approx(friedmanchisquare(*places.to_numpy().T).pvalue, abs=0.01)


def test_by_chance_a_p_below_5_per_cent_is_as_rare_as_it_says():
    draw = np.random.default_rng(4)
    places = [pd.DataFrame(draw.normal(size=(5, 7)), columns=[OWN, *"abcdef"]).rank(axis=1) for _ in range(300)]
    found = np.array([chances(table) for table in places])
    assert ((found < 0.05).mean(axis=0) < 0.08).all() and (found.mean(axis=0) > 0.4).all()


@pytest.mark.parametrize(
    ("seeds", "loss", "words"),
    [
        (1, dict.fromkeys(RANKS, 1.0), "nothing says that more than their number matters"),
        (5, {}, "nothing says that more than their number matters"),
        (5, {"selora": 1.0}, "nothing says that more than their number matters"),  # growing is another question
        (5, dict.fromkeys(RANKS, 1.0), "the ranks matter, and SeLoRA's are better than others"),
        (5, dict.fromkeys(RANKS, -1.0), "the ranks matter, and SeLoRA's are worse than others"),
        (
            5,
            {m: (-1.0) ** i * (1 + i) for i, m in enumerate(RANKS)},
            "the ranks matter, but SeLoRA's stand out in no way",
        ),
    ],
)
def test_the_sentence(seeds, loss, words):
    """Of ways that differ by next to nothing, in an order that changes from seed to seed, and by what is added."""
    wobble = np.random.default_rng(2).normal(0, 0.01, (len(OTHERS), seeds))
    moved = {method: loss.get(method, 0) + wobble[i] for i, method in enumerate(OTHERS)}
    text = sentence(runs(seeds, moved, dict(zip(OTHERS, wobble, strict=True))))
    assert text.startswith(f"On iu-drr, at SeLoRA's number of parameters (to 0.00 %) and over {seeds} seeds, {words}: ")
    assert text.endswith(" from its own.") and text.count("\n") == 0


def test_where_there_are_no_other_ranks_it_cannot_be_told():
    assert "cannot be told" in sentence(runs(5, {}, methods=(OWN, "selora")))
    assert versus(runs(5, {}, methods=(OWN,))).empty


def test_a_set_without_validation_images_is_told_by_kid_alone():
    table = runs(5, {}, {"ranks-gora": 1.0}).assign(best_val_loss=None)
    assert {*pairs(table).score} == {"KID x 1000"} and "validation loss" not in sentence(table)


def test_parameters_are_compared_within_a_seed():
    table = runs(2, {}, methods=(OWN, "ranks-gora"))
    table.loc[table.method == "ranks-gora", "unet_params"] = [1010, 995]
    table.loc[table.seed == 1, "text_encoder_params"] = 700  # of both methods
    off = off_budget(table)
    assert list(off.index) == [OWN, "ranks-gora"]
    assert off.loc["ranks-gora"].to_list() == pytest.approx([1, 0]) and not off.loc[OWN].any()


def test_likeness_of_ranks():
    own = pd.DataFrame({"network": "unet", "layer": list("abcd"), "kind": "k", "rank": [1, 2, 3, 4], "seed": 0})
    ranks = {OWN: own, "ranks-gora": own.assign(rank=[4, 3, 2, 1]), "lora-matched": own.assign(rank=2)}
    table = likeness(ranks).set_index("method")
    assert table["same rank"].to_list() == [1, 0, 0.25]
    assert table["mean rank"].to_list() == [2.5, 2.5, 2]
    assert table.correlation.to_list()[:2] == pytest.approx([1, -1]) and np.isnan(table.correlation["lora-matched"])


def test_only_seeds_with_seloras_own_ranks_are_collected(tmp_path):
    assert collect(tmp_path).empty
    for method, seed in ((OWN, 1), ("lora", 1), ("lora-matched", 0), ("lora-matched", 1), ("selora", 1)):
        result = {"dataset": "iu-drr", "method": method, "seed": seed, "kid": 0.1, "best_val_loss": 1.0, "findings": []}
        sizes = {"unet_params": 1, "text_encoder_params": 1}
        own = {"learning_rate": 0.02} if method == OWN else {}
        written = result | sizes | {"settings": {"learning_rate": 0.01, "method": own}}
        write_json(tmp_path / "runs" / "iu-drr" / method / f"seed{seed}" / "result.json", written)
    found = collect(tmp_path)
    assert list(zip(found.method, found.seed, strict=True)) == [(OWN, 1), ("selora", 1), ("lora-matched", 1)]
    assert found.learning_rate.to_list() == [0.02, 0.01, 0.01]
