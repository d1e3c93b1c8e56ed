"""Checks of chapter 8."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from checks import close, verdict
from scipy import stats

VERDICTS = ("better", "worse", "not told apart", "no interval")


def exercise_1(welch: Callable[..., float]) -> bool:
    """Welch's test from means and deviations, against SciPy's."""
    for m1, s1, m2, s2, n in ((10, 2, 12, 1, 3), (0, 1, 0.1, 5, 3), (205, 10, 460, 14, 3), (1, 1, 2, 2, 8)):
        expected = stats.ttest_ind_from_stats(m1, s1, n, m2, s2, n, equal_var=False).pvalue
        if not close(welch(m1, s1, m2, s2, n), expected, 1e-6):
            return verdict(False, f"for {m1} ± {s1} and {m2} ± {s2}, {n} seeds each, SciPy's p is {expected:.4f}")
    return verdict(True, "")


def exercise_2(unpaired: Callable[..., tuple[float, float]]) -> bool:
    """An interval as wide as the variances of both add up to, of values whose pairs nearly cancel."""
    rng = np.random.default_rng(2)
    shared = rng.normal(0, 3, 4000)
    a, b = 1 + shared + rng.normal(0, 0.5, 4000), shared + rng.normal(0, 0.5, 4000)
    low, high = unpaired(a, b, np.random.default_rng(0))
    if high - low < 2 * 1.96 * (a - b).std() * 1.5:
        return verdict(False, "that is as narrow as the paired interval: the resamples still match")
    wide = 2 * 1.96 * (a.var() + b.var()) ** 0.5
    right = abs((high - low) / wide - 1) < 0.08 and abs((low + high) / 2 - 1) < 0.5
    return verdict(right, f"independent values would give an interval about {wide:.1f} wide around 1")


def exercise_3(seeds_needed: Callable[[float, float], int]) -> bool:
    """The least number of seeds: its reach is within the gap, and that of one seed fewer is not."""
    for spread, gap in ((1.0, 10.0), (1.0, 1.0), (2.0, 1.0), (0.3, 0.05)):
        S = seeds_needed(spread, gap)
        if not isinstance(S, int) or S < 2:
            return verdict(False, "a number of seeds is whole, and 2 at least: one seed has no spread")
        reach = [stats.t.interval(0.95, n - 1, scale=spread / n**0.5)[1] if n > 1 else np.inf for n in (S, S - 1)]
        if reach[0] > gap:
            return verdict(False, f"{S} seeds of spread {spread} reach {reach[0]:.2f}, further than {gap}")
        if reach[1] <= gap:
            return verdict(False, f"for spread {spread} and gap {gap}, one seed fewer than {S} would do")
    return verdict(True, "")


def exercise_4(front: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> bool:
    """The methods that no other dominates, against plain loops, with ties."""
    rng = np.random.default_rng(4)
    for parameters, kid in (
        (rng.permutation(30), rng.permutation(30)),
        (rng.integers(0, 5, 25), rng.integers(0, 5, 25)),
    ):
        points = list(zip(parameters, kid, strict=True))
        expected = [not any(p <= q and k <= m and (p, k) != (q, m) for p, k in points) for q, m in points]
        if list(front(parameters, kid)) != expected:
            return verdict(
                False, f"of {len(points)} random methods {sum(expected)} are not dominated, and not those you name"
            )
    return verdict(True, "")


def exercise_5(abstract: Mapping[tuple[str, str], str], runs: pd.DataFrame) -> bool:
    """SeLoRA's KID against others', by the interval over seeds and prompts that the records give."""
    for (dataset, other), answer in abstract.items():
        if answer not in VERDICTS:
            return verdict(False, f"say one of {', '.join(VERDICTS)} for {other} on {dataset}")
        if answer != (expected := judged(runs[runs.dataset == dataset], other)):
            told = "no interval says anything" if expected == "no interval" else f"the records do not say '{answer}'"
            return verdict(False, f"of SeLoRA and {other} on {dataset} {told}")
    return verdict(bool(abstract), "there is nothing in it")


def judged(runs: pd.DataFrame, other: str) -> str:
    """What the interval of SeLoRA's KID less another's says, over the seeds that both have."""
    kids = runs.pivot_table(index="seed", columns="method", values="kid").reindex(columns=["selora", other]).dropna()
    if len(kids) < 2:
        return "no interval"
    drawn = [
        np.array([row.bootstrap.get("kid", [np.nan]) for row in runs[runs.method == m].sort_values("seed").itertuples()
                  if row.seed in kids.index], dtype=float)
        for m in ("selora", other)
    ]  # fmt: skip
    differences, prompts = kids["selora"] - kids[other], (drawn[0] - drawn[1]).mean(axis=0)
    of_seeds = stats.t.interval(0.95, len(kids) - 1, scale=stats.sem(differences))[1]
    reach, mean = np.hypot(of_seeds, 1.96 * prompts.std()), differences.mean()
    if np.isnan(reach):
        return "no interval"
    return "better" if mean + reach < 0 else "worse" if mean - reach > 0 else "not told apart"
