"""What the FI-Ratio measures: shares on made-up records where they are known, tests of a tiny model in other forms."""

import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import mean_loss, predict, random_batch, trainable
from sklearn.linear_model import LinearRegression

from selora.analysis import ratio_meaning
from selora.analysis.criterion_arms import ARMS, arms_table, verdict
from selora.analysis.ratio_meaning import (
    by_norms,
    explained,
    one_test,
    r_squared,
    released,
    rescaled,
    rescaling,
    shapley,
)
from selora.figures import criteria
from selora.files import PUBLISHED
from selora.study.profiles import load_profile
from selora.study.results import Run


def made_up(effect, noise: float = 0.0) -> pd.DataFrame:
    """Tests of 40 layers at 10 steps; `effect(rank, b_norm, step)` is the logarithm of ratio - 1."""
    rng = np.random.default_rng(0)
    tests = pd.DataFrame(
        [(step, f"layer{i}") for step in range(40, 440, 40) for i in range(40)], columns=["step", "layer"]
    )
    expanded = rng.random(len(tests)) < 0.5
    tests = tests.assign(network="unet", expanded=expanded, rank=rng.integers(1, 6, len(tests)) + expanded)
    tests["b_norm"] = np.exp(rng.normal(size=len(tests)))
    logs = effect(tests["rank"] - expanded, tests.b_norm, tests.step) + noise * rng.normal(size=len(tests))
    return tests.assign(fi_ratio=1 + np.exp(logs))


def test_r_squared_is_that_of_a_linear_regression():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(50, 3)), rng.normal(size=50)
    assert r_squared(y, x) == pytest.approx(LinearRegression().fit(x, y).score(x, y))
    assert math.isnan(r_squared(np.ones(5), np.ones((5, 1))))


def test_shapley_shares_sum_to_the_whole_and_twins_share_alike():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(200, 1)), rng.normal(size=200)
    blocks = {"one": x, "twin": x.copy(), "other": rng.normal(size=(200, 2))}
    shares = shapley(blocks, partial(r_squared, y + 2 * x[:, 0]))
    assert shares["one"] == pytest.approx(shares["twin"]) and min(shares.values()) > 0
    assert sum(shares.values()) == pytest.approx(r_squared(y + 2 * x[:, 0], np.column_stack([*blocks.values()])))


@pytest.mark.parametrize(
    ("name", "effect"),
    [
        ("rank", lambda rank, b_norm, step: -np.log(rank)),
        ("b_norm", lambda rank, b_norm, step: -2 * np.log(b_norm)),
        ("step", lambda rank, b_norm, step: step / 100),
    ],
)
def test_what_made_the_ratio_explains_it(name, effect):
    row = explained(made_up(effect)).set_index("of").loc["log (ratio - 1)"]
    assert row.n == 400
    assert row[f"{name} alone"] == pytest.approx(1) and row["all"] == pytest.approx(1)
    assert row[f"{name} share"] > 0.95 and row["by chance"] < 0.05
    noisy = explained(made_up(effect, noise=100.0)).set_index("of").loc["log (ratio - 1)"]
    assert noisy["all"] < 3 * noisy["by chance"]


def test_tests_without_a_logarithm_are_left_out():
    tests = made_up(lambda rank, b_norm, step: -np.log(rank))
    tests.loc[:2, "fi_ratio"] = [1.0, math.inf, 1.5]
    tests.loc[2, "b_norm"] = 0.0
    assert explained(tests).n.tolist() == [397, 397]


@pytest.fixture
def loss(networks):
    return partial(mean_loss, networks, random_batch(4))


def test_rescaling_leaves_the_model_and_is_undone(networks):
    batch, before = random_batch(2), [p.detach().clone() for p in trainable(networks)]
    with torch.no_grad():
        plain = predict(networks, batch)
        with rescaled(networks, 3.0):
            assert not any(torch.equal(p, kept) for p, kept in zip(trainable(networks), before, strict=True))
            torch.testing.assert_close(predict(networks, batch), plain, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(p, kept) for p, kept in zip(trainable(networks), before, strict=True))


def test_the_ratio_decides_otherwise_for_the_same_model_and_the_invariant_does_not(networks, loss):
    table = rescaling(networks, loss, threshold=1.3, factors=(0.3, 1.0, 3.0)).set_index(["criterion", "c"])
    assert (table.loc["invariant"].others == 0).all() and (table.loc["invariant"].order > 0.999).all()
    assert (table.loc["ratio", 1.0].others == 0).all()
    assert table.loc["ratio"].others.max() > 0 and table.loc["ratio"].order.min() < 0.99
    assert all(p.grad is None for p in trainable(networks))


def test_the_released_score_is_another(networks, loss):
    table = released(networks, loss, threshold=1.3).set_index("score")
    ours, theirs = (table.loc[table.index.str.startswith(words)] for words in ("mean of squares", "square of the mean"))
    assert ours.order.tolist() == pytest.approx([1, 1]) and (ours.others == 0).all()
    assert (theirs.order < 1).all() and set(theirs.layers) == set(ours.layers)


def test_the_null_is_read_off_the_norms(networks, loss):
    table = by_norms(networks, loss).set_index("network")
    assert set(table.index) == {"unet", "text_encoder"} and (table["null"] > 1).all()
    assert ((0 <= table["a line"]) & (table["a line"] <= 1)).all() and (table.explains <= table["a line"] + 1e-9).all()
    assert one_test(networks, loss).expanded.sum() == 0


def test_a_run_without_weights_says_so():
    run = Run(load_profile("quick"), "montgomery-drr", "selora", 0, PUBLISHED)
    with pytest.raises(FileNotFoundError, match="the weights of selora, seed 0, are not there: make the run"):
        ratio_meaning.open_run(run)


# ---- the arms --------------------------------------------------------------------------------------------------------


def runs_of(kids: dict[str, float], seeds: int = 8, **sizes: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {"dataset": "d", "method": method, "seed": seed, "kid": kid + 0.001 * rng.normal()}
        | {"bootstrap": {"kid": (kid + 0.001 * rng.normal(size=20)).tolist()}, "clip": 0.0, "auroc": 0.5}
        | {"unet_params": sizes.get(method.replace("-", "_"), 1000), "text_encoder_params": 200}
        for method, kid in kids.items()
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows)


KIDS = {"selora": 0.2, "lora-matched": 0.19, "grow-signal": 0.1, "grow-expected": 0.195}


def test_an_arm_that_beats_both_rivals_is_named():
    table = arms_table(runs_of(KIDS))
    assert table[["arm", "rival"]].to_numpy().tolist() == [
        [arm, rival] for arm in ("grow-expected", "grow-signal") for rival in ("selora", "lora-matched")
    ]
    assert table.equal.all() and (table.seeds == 8).all()
    words = "Of 2 criteria, better than both rivals by KID at equal parameters: grow-signal on d."
    assert verdict(table, ["grow-signal", "grow-expected"]) == words
    assert verdict(table, ["grow-signal", "grow-aligned"]) == f"{words} Missing: grow-aligned."
    assert criteria.arms_points(table).axes


def test_few_seeds_other_sizes_and_no_rival_are_said():
    few = arms_table(runs_of(KIDS, seeds=1))
    assert verdict(few, []).startswith(
        "Ahead of both rivals by KID at equal parameters: grow-signal on d, in the mean;"
    )
    larger = arms_table(runs_of(KIDS, grow_signal=1100, grow_expected=1100))
    assert not larger.equal.any() and "no arm has both rivals' parameters to within 1 %" in verdict(larger, [])
    alone = arms_table(runs_of({"selora": 0.2, "grow-signal": 0.1}))
    assert "cannot be told here: no arm was run beside both" in verdict(alone, [])
    none = arms_table(runs_of({"selora": 0.2}))
    assert none.empty and f"Missing: {', '.join(ARMS)}." in verdict(none, ARMS)
    worse = arms_table(runs_of({**KIDS, "grow-signal": 0.3}))
    assert "equal parameters: none." in verdict(worse, [])


def test_the_bars_hold_all_shares():
    table = explained(made_up(lambda rank, b_norm, step: -np.log(rank), noise=1.0))
    axis = criteria.explained_bars({"d": table, "e": table.assign(network="text_encoder")}).axes[0]
    assert len(axis.patches) == 4 * 4 and max(p.get_x() + p.get_width() for p in axis.patches) <= 1
