"""bf16: the frozen weights and the arithmetic are rough, what is trained and its moments are not."""

from copy import deepcopy

import pytest
import torch
from conftest import run

from selora.adapters import trained_tensors
from selora.diffusion.loop import trainable
from selora.diffusion.machine import raise_trained

# not vera and loha: PEFT's return fp32, which a CPU's GroupNorm refuses beside bf16 weights; a GPU's takes any
METHODS = ("full", "lora", "selora", "adalora", "dylora", "sora", "increlora", "eva", "dora", "rslora")


@pytest.fixture(scope="module")
def rough(base):
    """The tiny pipeline as `load_base` gives it in bf16."""
    pipe = deepcopy(base)
    for model in (pipe.unet, pipe.text_encoder):
        model.to(torch.bfloat16)
    return pipe


@pytest.mark.parametrize("name", METHODS)
def test_methods_train_in_bf16_near_to_fp32(base, rough, data, tmp_path, name):
    exact, expected = run(base, name, data, tmp_path / "exact.safetensors", learning_rate=1e-3)
    networks, found = run(rough, name, data, tmp_path / "rough.safetensors", learning_rate=1e-3)
    assert {p.dtype for p in trainable(networks)} == {torch.float32}
    assert any(p.dtype == torch.bfloat16 for p in networks["unet"].parameters() if not p.requires_grad)
    losses = [[row["train_loss"] for row in outcome["history"]] for outcome in (found, expected)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02) and losses[0] != losses[1]


def test_a_small_step_is_not_lost(rough, data, tmp_path):
    """A learning rate far below bf16's resolution of a weight still moves every weight that gets a gradient."""
    networks, _ = run(rough, "full", data, tmp_path / "c.safetensors", learning_rate=1e-6, steps=1)
    before = {"unet": rough.unet, "text_encoder": rough.text_encoder}
    weights = trained_tensors(networks)
    moved = [
        (weights[f"{net}.{name}"] != p.float()).float().mean().item()
        for net, model in before.items()
        for name, p in model.named_parameters()
        if f"{net}.{name}" in weights and name.endswith("to_v.weight")
    ]
    assert moved and min(moved) > 0.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_trained_starts_with_the_strides_that_a_checkpoint_gives_back(base, dtype):
    unet = deepcopy(base.unet).to(dtype).requires_grad_(False)
    weight = unet.time_embedding.linear_1.weight
    weight.data = weight.data.T.contiguous().T
    weight.requires_grad_(True)
    values, given = weight.detach().float(), weight.stride()
    raise_trained({"unet": unet})
    assert torch.equal(weight, values)
    assert weight.dtype == torch.float32
    assert weight.stride() == torch.empty(weight.shape).stride() != given
