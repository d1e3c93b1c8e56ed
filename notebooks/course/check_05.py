"""Checks of chapter 5: on tables and layers made up for it."""

import numpy as np
import pandas as pd
import torch
from checks import close, verdict
from peft import LoraConfig, get_peft_model
from torch import nn

from selora.adapters import lora_layers, lora_pair
from selora.fisher import squared_gradients


def made_up_tests(seed: int) -> pd.DataFrame:
    """Tests of five layers at steps 7, 14 and 21, as a run records them; threshold 1.5."""
    draw = np.random.default_rng(seed)
    ranks, rows = dict.fromkeys(range(5), 1), []
    for step in (7, 14, 21):
        for layer in ranks:
            ratio = round(draw.uniform(1, 2), 2)
            ranks[layer] += ratio >= 1.5
            rows.append(
                (step, "unet" if layer < 3 else "text_encoder", f"layer.{layer % 3}", ratio, ranks[layer], ratio >= 1.5)
            )
    return pd.DataFrame(rows, columns=["step", "network", "layer", "fi_ratio", "rank", "expanded"])


def exercise_1(grown_at_first_test) -> bool:
    for seed in range(3):
        tests = made_up_tests(seed)
        ratios = sorted(tests.fi_ratio[:5])
        for threshold in (1.0, ratios[2], ratios[2] + 0.001, 2.5):
            expected = sum(ratio >= threshold for ratio in ratios)
            if not close(grown_at_first_test(tests.sample(frac=1, random_state=seed), threshold), expected):
                return verdict(False, f"of the ratios {ratios} {expected} reach {threshold} at the first test.")
    return verdict(True, "")


def exercise_2(parameters_after_each_test) -> bool:
    for seed in range(3):
        tests = made_up_tests(seed)
        keys = list(dict.fromkeys(zip(tests.network, tests.layer, strict=True)))
        per_rank = pd.Series({key: 10 + 7 * i for i, key in enumerate(keys)})
        expected = {step: 0 for step in tests.step}
        for row in tests.itertuples():
            expected[row.step] += row.rank * per_rank[row.network, row.layer]
        found = parameters_after_each_test(tests, per_rank)
        if not isinstance(found, pd.Series) or list(found.index) != list(expected):
            return verdict(False, "the function returns a Series whose index is the steps of the tests.")
        if not close(found.to_list(), list(expected.values())):
            return verdict(False, f"{list(expected.values())} were to be found, and {found.to_list()} came out.")
    return verdict(True, "")


def exercise_3(explained_by_rank) -> bool:
    for seed in range(3):
        tests = made_up_tests(seed)
        before = np.array(tests["rank"] - tests.expanded, dtype=int)
        columns = np.eye(before.max() + 1)[before]  # a least-squares fit with a constant for each rank
        fit = columns @ np.linalg.lstsq(columns, tests.fi_ratio.to_numpy(), rcond=None)[0]
        expected = 1 - ((tests.fi_ratio - fit) ** 2).sum() / ((tests.fi_ratio - tests.fi_ratio.mean()) ** 2).sum()
        if not close(explained_by_rank(tests), expected):
            return verdict(False, f"a least-squares fit with a constant for each rank has an R^2 of {expected:.4f}.")
    return verdict(True, "")


def exercise_4(slow_score) -> bool:
    torch.manual_seed(0)
    model = get_peft_model(nn.Sequential(nn.Linear(5, 4)), LoraConfig(r=2, lora_alpha=2, target_modules=["0"])).double()
    layer = next(iter(lora_layers(model).values()))
    A, B = (side.weight for side in lora_pair(layer))
    nn.init.normal_(B)
    x = torch.randn(6, 3, 5, dtype=torch.float64)
    y = model(x)
    losses = (y.sin() + y**2).sum(dim=(1, 2))
    (d,) = torch.autograd.grad(losses.mean(), y, retain_graph=True)
    expected = len(x) * squared_gradients(x, d, A, B, torch.zeros_like(A[:1]), scaling=1.0)[0]
    found = slow_score(layer, losses)
    if close(found, len(x) * expected):
        return verdict(False, "nearly: Eq. 3 is a mean over samples, not a sum.")
    return verdict(close(found, expected), "`selora.fisher` finds a different number on a small layer.")
