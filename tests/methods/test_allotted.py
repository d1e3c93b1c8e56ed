"""Ranks at SeLoRA's budget: what brings them to it, by definition and properties, and each way to allot them."""

from collections import Counter
from copy import deepcopy

import pytest
import torch
from conftest import fuzzed
from hypothesis import given
from hypothesis import strategies as st

from selora.adapters import ADAPTER, lora_layers, ranks, trainable_parameters
from selora.diffusion.draws import generator
from selora.methods import METHODS, make_method
from selora.methods.allotted import by_size, shuffled, shuffled_alike, to_budget

ARMS = [name for name in METHODS if name.startswith("ranks-")]
LAYERS = st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 40), st.floats(0.01, 100)), min_size=1, max_size=30)


def cost(found, sizes) -> int:
    return sum(rank * size for rank, size in zip(found, sizes, strict=True))


@fuzzed
@given(LAYERS, st.integers(0, 9))
def test_a_budget_is_kept_to_half_the_smallest_layer_with_a_rank_everywhere(layers, seed):
    sizes, kept, wishes = zip(*layers, strict=True)
    budget = cost(kept, sizes)
    found = to_budget(wishes, sizes, budget, generator(seed))
    assert min(found) >= 1 and all(type(rank) is int for rank in found)
    assert abs(cost(found, sizes) - budget) <= min(sizes) / 2
    assert found == to_budget([4 * wish for wish in wishes], sizes, budget, generator(seed))  # their ratio counts alone
    assert list(kept) == to_budget(kept, sizes, budget, generator(seed))  # what keeps the budget stays


@fuzzed
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=20), st.integers(0, 200))
def test_layers_of_one_size_get_their_wishes_scaled_and_rounded(wishes, more):
    """Some one scale has all ranks as its rounded products: those above 1 rounded down from no more than they are, all
    rounded up from no less."""
    found = to_budget(wishes, [7] * len(wishes), 7 * (len(wishes) + more), generator(0))
    assert sum(found) == len(wishes) + more
    least = max([(rank - 0.5) / wish for rank, wish in zip(found, wishes, strict=True) if rank > 1], default=0)
    assert least <= min((rank + 0.5) / wish for rank, wish in zip(found, wishes, strict=True)) * (1 + 1e-12)


@fuzzed
@given(LAYERS)
def test_of_two_layers_of_one_size_the_one_with_the_larger_wish_gets_no_less(layers):
    sizes, kept, wishes = zip(*[(size % 3 + 1, rank, wish) for size, rank, wish in layers], strict=True)
    found = to_budget(wishes, sizes, cost(kept, sizes), generator(0))
    for size in {*sizes}:
        alike = sorted((wish, rank) for wish, rank, other in zip(wishes, found, sizes, strict=True) if other == size)
        assert all(a[1] <= b[1] or a[0] == b[0] for a, b in zip(alike, alike[1:], strict=False))


def test_which_of_equal_layers_get_the_odd_ranks_is_drawn():
    found = {tuple(to_budget([1] * 8, [5] * 8, 5 * 12, generator(seed))) for seed in range(9)}
    assert all(Counter(ranks) == {1: 4, 2: 4} for ranks in found) and len(found) > 4


@fuzzed
@given(LAYERS)
def test_shuffled_ranks_are_the_same_ones(layers):
    sizes, kept, _ = zip(*[(size % 3, rank, wish) for size, rank, wish in layers], strict=True)
    assert Counter(shuffled(kept, sizes, generator(1))) == Counter(kept)
    alike = shuffled_alike(kept, sizes, generator(1))
    assert Counter(zip(alike, sizes, strict=True)) == Counter(zip(kept, sizes, strict=True))
    assert by_size(kept, sizes, generator(1)) == list(sizes)


@pytest.fixture(scope="module")
def allotted(base, earlier):
    """The networks of each arm, before its first step."""
    found = {}
    for name in ARMS:
        pipe = deepcopy(base)
        found[name] = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
        make_method(name, {}, seed=3, steps=1, earlier=earlier).attach(found[name])
    return found


@pytest.mark.parametrize("name", ARMS)
def test_each_arm_has_seloras_parameters_and_draws_a_as_selora(name, allotted, earlier):
    for network, model in allotted[name].items():
        layers = lora_layers(model)
        sizes = {layer: module.in_features + module.out_features for layer, module in layers.items()}
        own = {row["layer"]: row["rank"] for row in earlier["selora"].ranks if row["network"] == network}
        off = trainable_parameters(model) - sum(own[layer] * sizes[layer] for layer in layers)
        assert abs(off) <= (0 if name in ("ranks-selora", "ranks-alike") else min(sizes.values()) / 2)
        assert len(own) == len(layers) and (ranks(model) == own) is (name == "ranks-selora")
        for layer in layers.values():
            A, B = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
            assert layer.scaling[ADAPTER] == 1 and not B.any()
            assert (6 / A.shape[1]) ** 0.5 * 0.5 < A.abs().max() <= (6 / A.shape[1]) ** 0.5


def test_each_arm_draws_its_own_a_and_the_same_one_again(base, allotted, earlier):
    pipe = deepcopy(base)
    again = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    make_method("ranks-selora", {}, seed=3, steps=1, earlier=earlier).attach(again)
    for network, model in allotted["ranks-selora"].items():
        for name in lora_layers(model):
            A, same, other = (
                lora_layers(nets[network])[name].lora_A[ADAPTER].weight
                for nets in (allotted["ranks-selora"], again, allotted["ranks-gora"])
            )
            assert torch.equal(A, same) and not torch.equal(A[0], other[0])


def test_another_methods_ranks_keep_their_proportions(allotted, earlier):
    """GoRA's, brought from a mean of 8.5 to SeLoRA's 3: each within a rank of its share, but for the least of 1."""
    for network, model in allotted["ranks-gora"].items():
        wished = {row["layer"]: row["rank"] for row in earlier["gora"].ranks if row["network"] == network}
        sizes = {name: layer.in_features + layer.out_features for name, layer in lora_layers(model).items()}
        scale = trainable_parameters(model) / sum(wished[name] * sizes[name] for name in wished)
        assert all(abs(rank - scale * wished[name]) <= 1 for name, rank in ranks(model).items())


def test_an_unknown_allocation_is_named_with_the_choices(pipe, earlier):
    method = make_method("ranks-gora", {"allocation": "eva"}, seed=0, steps=1, earlier=earlier)
    with pytest.raises(ValueError, match="'eva': choose from alike, shuffled, by-size, selora, increlora, gora"):
        method.attach({"unet": pipe.unet})
