"""How sure a figure is that was measured with several seeds on the same prompts, or the difference of two such figures.

Both seeds and prompts are samples. A hierarchical bootstrap draws seeds with replacement and then, for all of them, the
prompts; a difference is paired, seed by seed and prompt by prompt, before anything is drawn. Its variance needs no
draws of seeds: by the law of total variance it is

    Var_b(mean_s r[s, b]) + mean_b(Var_s(r[s, b])) / S,

r[s, b] being the figure of seed s under resample b of the prompts. The variance over seeds is taken over S - 1, and
intervals are Student's for S - 1 degrees of freedom: at eight seeds, where percentiles of a bootstrap are too narrow,
they cover the truth as often as they say, or more often (`analysis.coverage`).
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

SEEDS = 8  # fewer say too little of how far a seed moves a figure: they get no interval
LEVEL = 0.05


class Estimate(NamedTuple):
    """A mean over seeds, its 95 % interval, and the p-value of its being zero; nan for what cannot be told."""

    value: float
    low: float
    high: float
    p: float


def over_seeds(figures: np.ndarray, replicates: np.ndarray) -> Estimate:
    """The mean of a figure over seeds, with the interval that holds seeds and prompts.

    Args:
        figures: of each seed, (S,); differences of two methods, or a figure less its chance.
        replicates: the same under resamples of the prompts, (S, D), the same resamples for every seed. One that is nan
            for any seed is left out.
    """
    if not len(figures):
        return Estimate(*[np.nan] * 4)
    value, whole = float(np.mean(figures)), replicates[:, ~np.isnan(replicates).any(axis=0)]
    if len(figures) < SEEDS or whole.shape[1] < 2:
        return Estimate(value, np.nan, np.nan, np.nan)
    free = len(figures) - 1
    error = np.sqrt(whole.mean(axis=0).var(ddof=1) + whole.var(axis=0, ddof=1).mean() / len(figures))
    reach = student.ppf(1 - LEVEL / 2, free) * error
    p = 2 * student.sf(abs(value) / error, free) if error else float(value == 0)
    return Estimate(value, value - reach, value + reach, float(p))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P-values corrected for how many there are (Holm, 1979): that any falls below a level by chance has at most that
    chance. A nan counts for none, and stays."""
    known = sorted((p, name) for name, p in p_values.items() if not np.isnan(p))
    corrected, least = dict(p_values), 0.0
    for place, (p, name) in enumerate(known):
        least = corrected[name] = min(1.0, max(least, (len(known) - place) * p))
    return corrected
