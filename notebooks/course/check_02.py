"""Checks of chapter 2: on layers and updates drawn at random."""

import copy

import torch
from checks import close, verdict
from peft import LoraConfig, get_peft_model
from torch import nn

from selora.adapters import lora_layers, lora_pair


def exercise_1(largest_saving_rank) -> bool:
    for d_in, d_out in ((128, 128), (512, 128), (3, 2), (1, 7), (4, 4)):
        found = largest_saving_rank(d_in, d_out)
        if not isinstance(found, int):
            return verdict(False, "the function returns a whole number.")
        saves = [found == 0 or found * (d_in + d_out) < d_in * d_out, (found + 1) * (d_in + d_out) < d_in * d_out]
        if saves != [True, False]:
            return verdict(
                False,
                f"for {d_in} x {d_out} it says {found}, which {'is not the most' if saves[1] else 'saves nothing'}.",
            )
    return verdict(True, "")


def exercise_2(best_adapter) -> bool:
    draw = torch.Generator().manual_seed(0)
    for d_in, d_out, r in ((6, 5, 2), (4, 9, 1), (5, 5, 4)):
        update = torch.randn(d_out, d_in, generator=draw, dtype=torch.float64)
        found = best_adapter(update, r)
        if not isinstance(found, tuple) or len(found) != 2:
            return verdict(False, "the function returns A and B.")
        A, B = found
        if A.shape != (r, d_in) or B.shape != (d_out, r):
            return verdict(False, f"for rank {r} of {d_out} x {d_in} A is {tuple(A.shape)} and B {tuple(B.shape)}.")
        least = torch.linalg.svdvals(update)[r:].square().sum()
        if not close((update - B @ A).square().sum(), least):
            return verdict(False, "another matrix of that rank is nearer to the update.")
        if not close(A.norm(), B.norm()):
            return verdict(False, f"A has the norm {A.norm():.3f} and B {B.norm():.3f}.")
    return verdict(True, "")


def exercise_3(folded) -> bool:
    for bias in (True, False):
        model = get_peft_model(
            nn.Sequential(nn.Linear(6, 4, bias=bias)), LoraConfig(r=2, lora_alpha=3, target_modules=["0"])
        )
        layer = next(iter(lora_layers(model).values()))
        nn.init.normal_(lora_pair(layer)[1].weight)
        before = copy.deepcopy(layer.state_dict())
        x = torch.randn(5, 6)
        plain = folded(layer)
        if type(plain) is not nn.Linear:
            return verdict(False, "the function returns an nn.Linear.")
        if not close(plain(x).detach(), layer(x).detach(), tolerance=1e-5):
            return verdict(False, f"its output differs, with lora_alpha 3, r 2 and {'a' if bias else 'no'} bias.")
        if any((layer.state_dict()[name] != value).any() for name, value in before.items()):
            return verdict(False, "the layer itself was changed.")
    return verdict(True, "")


def exercise_4(joined) -> bool:
    draw = torch.Generator().manual_seed(0)
    for r_1, r_2 in ((1, 1), (4, 2)):
        A_1, B_1, A_2, B_2 = (
            torch.randn(size, generator=draw, dtype=torch.float64) for size in ((r_1, 6), (5, r_1), (r_2, 6), (5, r_2))
        )
        found = joined(A_1, B_1, A_2, B_2)
        if not isinstance(found, tuple) or len(found) != 2:
            return verdict(False, "the function returns A and B.")
        A, B = found
        if A.shape != (r_1 + r_2, 6) or B.shape != (5, r_1 + r_2):
            return verdict(False, f"of ranks {r_1} and {r_2} A came out as {tuple(A.shape)} and B as {tuple(B.shape)}.")
        if not close(B @ A, B_1 @ A_1 + B_2 @ A_2):
            return verdict(False, "its product is not the sum of the two products.")
    return verdict(True, "")
