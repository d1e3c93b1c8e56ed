"""Do the intervals over seeds and prompts cover the truth as often as they say? A simulation in which it is known."""

from collections.abc import Callable

import numpy as np

from selora.scoring.intervals import SEEDS, Estimate, over_seeds
from selora.scoring.resampling import DRAWS, resamples

TRUTH = 1.0


def prompts_alone(figures: np.ndarray, replicates: np.ndarray) -> Estimate:
    """What an interval over prompts within seeds says: percentiles of the mean over seeds, which it takes for given."""
    return Estimate(figures.mean(), *np.quantile(replicates.mean(axis=0), [0.025, 0.975]), np.nan)


def coverage(
    seed: float,
    prompt: float,
    picture: float,
    interval: Callable[[np.ndarray, np.ndarray], Estimate] = over_seeds,
    *,
    seeds: int = SEEDS,
    prompts: int = 200,
    draws: int = DRAWS,
    trials: int = 2000,
    heavy: bool = False,
) -> float:
    """The share of simulated studies whose interval holds the true difference of two methods.

    In each, the difference of a picture's scores is TRUTH plus one number for its training seed, one for its prompt and
    one for itself; a run's figure is their mean over the prompts.

    Args:
        seed, prompt, picture: standard deviations of the three in a run's figure, that is, of a prompt's and a
            picture's the one that is left in the mean over all prompts.
        heavy: draw the seeds' numbers from Student's t with three degrees of freedom in place of a normal law.
    """
    draw = np.random.default_rng(0)
    often = resamples(prompts, draws).numpy().T / prompts  # (prompts, draws)
    held = 0
    for _ in range(trials):
        own = draw.standard_t(3, seeds) / np.sqrt(3) if heavy else draw.normal(size=seeds)
        scores = TRUTH + seed * own[:, None] + np.sqrt(prompts) * prompt * draw.normal(size=prompts)
        scores = scores + np.sqrt(prompts) * picture * draw.normal(size=(seeds, prompts))
        found = interval(scores.mean(axis=1), scores @ often)
        held += found.low <= TRUTH <= found.high
    return held / trials
