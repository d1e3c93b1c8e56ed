"""Intervals over seeds and prompts: against a t-test, against drawn bootstraps, and in studies whose truth is known."""

import numpy as np
import pytest
from scipy import stats

from selora.analysis.coverage import coverage, prompts_alone
from selora.scoring.intervals import SEEDS, holm, over_seeds


def study(seeds: int = SEEDS, draws: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    figures = rng.normal(0.5, 1.0, seeds)
    return figures, figures[:, None] + rng.normal(0, 0.3, draws) + rng.normal(0, 0.2, (seeds, draws))


def test_where_prompts_move_nothing_it_is_students_t_test_over_the_seeds():
    figures, _ = study()
    found, expected = over_seeds(figures, np.repeat(figures[:, None], 50, axis=1)), stats.ttest_1samp(figures, 0)
    low, high = expected.confidence_interval(0.95)
    assert found == pytest.approx((figures.mean(), low, high, expected.pvalue))


def test_the_error_is_that_of_a_bootstrap_that_draws_seeds_and_then_prompts():
    """A bootstrap's own variance over seeds is short by a factor of (S - 1) / S; the interval's is not."""
    figures, replicates = study()
    rng, (seeds, draws) = np.random.default_rng(5), replicates.shape
    drawn = [replicates[rng.integers(seeds, size=seeds), rng.integers(draws)].mean() for _ in range(60_000)]
    found = over_seeds(figures, replicates)
    error = (found.high - found.low) / 2 / stats.t.ppf(0.975, seeds - 1)
    short = replicates.var(axis=0, ddof=1).mean() / seeds**2
    assert error**2 == pytest.approx(np.var(drawn) + short, rel=0.03)


def test_fewer_than_eight_seeds_or_no_resamples_have_a_value_alone():
    for figures, replicates in (study(7), (study()[0], np.full((8, 1), np.nan))):
        value, *rest = over_seeds(figures, replicates)
        assert value == pytest.approx(figures.mean()) and np.isnan(rest).all()


def test_a_resample_that_some_seed_lacks_is_left_out():
    figures, replicates = study()
    holed = replicates.copy()
    holed[3, :10] = np.nan
    assert over_seeds(figures, holed) == over_seeds(figures, replicates[:, 10:])


def test_holm_as_in_a_worked_example():
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005, "none": np.nan})
    assert np.isnan(found.pop("none"))
    assert found == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})


SMALL = {"prompts": 30, "draws": 60, "trials": 300}


@pytest.mark.parametrize("sizes", [(1.0, 0.0, 0.0), (3.0, 1.0, 0.5), (0.0, 1.0, 0.0)], ids=["seeds", "both", "prompts"])
def test_at_eight_seeds_intervals_hold_the_truth_as_often_as_they_say(sizes):
    """300 studies tell a coverage of 95 % to 1.3 %; where prompts alone differ, Student's t is wider than need be."""
    assert 0.92 <= coverage(*sizes, **SMALL) <= (0.99 if sizes[0] else 1)


def test_intervals_over_prompts_alone_do_not_where_seeds_differ():
    assert coverage(3.0, 1.0, 0.5, prompts_alone, **SMALL) < 0.8
