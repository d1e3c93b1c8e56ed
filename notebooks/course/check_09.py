"""Checks of chapter 9."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from checks import close, verdict
from peft import AdaLoraConfig, LoraConfig, get_peft_model
from scipy import stats
from torch import nn

from selora.adapters import trainable_parameters
from selora.analysis.rank_claim import chance


def exercise_1(adapter_parameters: Callable[..., int]) -> bool:
    """The size of LoRA and AdaLoRA, against PEFT's."""
    shapes = [(5, 7), (12, 3), (4, 4)]
    names = [str(i) for i in range(len(shapes))]
    for r in (1, 6):
        for with_values in (False, True):
            schedule = {"init_r": r, "target_r": r, "total_step": 2, "tinit": 0, "tfinal": 0}
            config = (
                AdaLoraConfig(target_modules=names, **schedule)
                if with_values
                else LoraConfig(r=r, target_modules=names)
            )
            model = get_peft_model(nn.Sequential(*(nn.Linear(*shape) for shape in shapes)), config)
            expected = trainable_parameters(model)
            if adapter_parameters(shapes, r, with_values) != expected:
                what = "AdaLoRA" if with_values else "LoRA"
                return verdict(False, f"PEFT's {what} of rank {r} on layers {shapes} has {expected} parameters")
    return verdict(True, "")


def exercise_2(is_circular: Callable[[Callable[[float], float]], bool]) -> bool:
    """A recount that returns what it was given is circular; one that does not look, or mostly disagrees, is none."""
    for c in np.random.default_rng(2).uniform(0.01, 1, 20):
        if is_circular(lambda printed, c=c: float(c)):
            return verdict(False, "a recount that never looks at the printed number is not circular")
        if not is_circular(lambda printed, c=c: (printed * c) / c):
            return verdict(
                False, "a recount that solves for something and puts it back agrees with whatever is printed"
            )
    if is_circular(lambda printed: min(printed, 0.3)) or is_circular(lambda printed: max(printed, 0.3)):
        return verdict(False, "a recount that agrees with only some printed numbers could have failed")
    return verdict(True, "")


def exercise_3(permutation_p: Callable[..., float]) -> bool:
    """A p-value by shuffling, against the exact one."""
    rng = np.random.default_rng(3)
    for _ in range(3):
        ranks, chosen = rng.integers(1, 6, 20), np.arange(20) < 6
        exact = chance(ranks, chosen, np.full(20, ""))
        answer = permutation_p(ranks, chosen, 2000, np.random.default_rng(0))
        if abs(answer - exact) > 4 * (exact * (1 - exact) / 2000) ** 0.5 + 2e-3:
            return verdict(
                False, f"all ways to choose 6 of 20 layers, counted, give p = {exact:.3f}, your shuffles {answer:.3f}"
            )
    extreme = permutation_p(np.array([9, 9] + [1] * 30), np.arange(32) < 2, 50, np.random.default_rng(0))
    return verdict(extreme >= 1 / 51, "the observed labels are one of the ways too: p is never 0")


def exercise_4(shuffle_within: Callable[..., np.ndarray]) -> bool:
    """Labels that stay in their blocks, and in them fall everywhere equally often."""
    rng = np.random.default_rng(4)
    blocks = np.array(list("ababbabbcc"))
    chosen = np.array([1, 0, 0, 1, 0, 0, 1, 0, 1, 1], dtype=bool)
    before, drawn = chosen.copy(), [shuffle_within(chosen, blocks, rng) for _ in range(3000)]
    if not (chosen == before).all():
        return verdict(False, "it changes the labels that it was given: copy them first")
    expected = pd.Series(chosen).groupby(blocks).transform("mean").to_numpy()
    for labels in drawn:
        if any(labels[blocks == name].sum() != chosen[blocks == name].sum() for name in "abc"):
            return verdict(False, "a block has to keep as many labelled layers as it had")
    often = np.mean(drawn, axis=0)
    return verdict(
        bool((abs(often - expected) < 0.05).all()), "within a block every layer has to be labelled equally often"
    )


def exercise_5(lambda_claim: Callable[[pd.DataFrame], tuple[float, float]]) -> bool:
    """Spearman's correlations, against SciPy's."""
    rng = np.random.default_rng(5)
    for n in (6, 15):
        table = pd.DataFrame(
            {"threshold": rng.permutation(n) / 10 + 1, "parameters": rng.integers(0, 9, n), "kid": rng.normal(size=n)}
        )
        expected = [stats.spearmanr(table.threshold, table[name]).statistic for name in ("parameters", "kid")]
        if not close(lambda_claim(table), expected, 1e-6):
            return verdict(
                False, f"of {n} random rows SciPy's correlations are {expected[0]:.3f} and {expected[1]:.3f}"
            )
    return verdict(True, "")
