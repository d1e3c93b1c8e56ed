"""Checks of chapter 7."""

from collections.abc import Callable
from itertools import product

import numpy as np
import torch
from checks import close, verdict

from selora.scoring import metrics


def exercise_1(fid_1d: Callable[[float, float, float, float], float]) -> bool:
    """FID of one feature, against the library's of samples whose means and deviations are set exactly."""
    z = torch.linspace(-2, 3, 40).double()[:, None]
    z = (z - z.mean()) / z.std()
    for m1, s1, m2, s2 in ((0.0, 1.0, 0.0, 1.0), (1.0, 2.0, -0.5, 2.0), (0.3, 0.5, 0.3, 3.0), (-1.0, 1.5, 2.0, 0.2)):
        expected = metrics.fid(m1 + s1 * z, m2 + s2 * z)
        answer = fid_1d(m1, s1, m2, s2)
        if not close(answer, expected, 1e-4) and not (expected < 1e-6 and close(answer, 0.0)):
            return verdict(False, f"the FID of N({m1}, {s1}²) and N({m2}, {s2}²) is {expected:.3f}")
    return verdict(True, "")


def exercise_2(fid_infinity: Callable[[np.ndarray, np.ndarray], float]) -> bool:
    """The intercept: exact where FIDs lie on a line over 1 / n, that of least squares where they scatter."""
    rng, n = np.random.default_rng(0), np.array([30, 60, 120, 500])
    for a, c in zip(rng.uniform(0, 50, 5), rng.uniform(100, 3000, 5), strict=True):
        answer = fid_infinity(n, a + c / n)
        if not close(answer, a, 1e-6):
            return verdict(False, f"FIDs of exactly {a:.2f} + {c:.0f} / n have to give {a:.2f}")
    noisy = 7 + 2000 / n + rng.normal(0, 0.2, len(n))
    design = np.stack([1 / n, np.ones(len(n))], axis=1)
    fitted = np.linalg.lstsq(design, noisy, rcond=None)[0][1]
    return verdict(close(fid_infinity(n, noisy), fitted, 1e-6), "where FIDs scatter, take the least-squares line")


def exercise_3(kid_biased: Callable[[torch.Tensor, torch.Tensor], float]) -> bool:
    """Squared MMD with self pairs, against loops over all pairs."""
    draw = torch.Generator().manual_seed(3)
    for n, m in ((6, 6), (5, 9)):
        x, y = torch.randn(n, 4, generator=draw), torch.randn(m, 4, generator=draw) + 0.3

        def mean(one, two):
            return np.mean([(float(a @ b) / 4 + 1) ** 3 for a, b in product(one.double(), two.double())])

        expected = mean(x, x) + mean(y, y) - 2 * mean(x, y)
        if not close(kid_biased(x, y), expected, 1e-6):
            return verdict(False, f"loops over all pairs of {n} and {m} pictures, self pairs too, give {expected:.4f}")
    return verdict(True, "")


def exercise_4(p_value: Callable[[float, np.ndarray], float]) -> bool:
    """A p-value that is never 0, and that under the null is at most p with probability p."""
    null = np.random.default_rng(4).normal(size=99)
    if p_value(null.max() + 1, null) == 0:
        return verdict(False, "a p-value of 0 claims more than any number of random halves can show")
    # each of 100 values against the other 99: the p-values are 1/100, 2/100, ... 1, each once
    values = np.append(null, 0.123)
    found = sorted(p_value(value, np.delete(values, i)) for i, value in enumerate(values))
    if not close(found, np.arange(1, 101) / 100, 1e-9):
        return verdict(False, "of 100 equal chances, each value against the 99 others, p has to be 1/100, 2/100, ... 1")
    return verdict(p_value(1.0, np.ones(3)) == 1, "values as large as the one in question count too")


def exercise_5(kid_error: Callable[[torch.Tensor, torch.Tensor], float]) -> bool:
    """The jackknife's error, against the library's."""
    draw = torch.Generator().manual_seed(5)
    for n in (40, 73):
        x, y = torch.randn(n, 6, generator=draw), torch.randn(n, 6, generator=draw) * 1.1
        expected = metrics.kid_error(x, y)
        if not close(kid_error(x, y), expected, 1e-4):
            return verdict(False, f"for two random sets of {n} the library's error is {expected:.5f}")
    return verdict(True, "")
