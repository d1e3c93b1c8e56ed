"""The loop: a killed run ends as an uninterrupted one does, and the best weights by validation loss are kept."""

from copy import deepcopy

import pytest
import torch
from conftest import WORDS

from selora.adapters import ranks, trained_tensors
from selora.methods import METHODS, make_method
from selora.training import train

SETTINGS = {"selora": {"threshold": 1.05, "interval": 2}}


class Killed(Exception):
    pass


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(3)
    return {
        split: (torch.randn(n, 4, 8, 8, generator=generator), torch.randint(0, 70, (n, WORDS), generator=generator))
        for split, n in (("train", 10), ("val", 4))
    }


def run(base, name, data, checkpoint, kill_at=None, **changes):
    """Train a copy of the tiny pipeline for seven steps with a checkpoint every second; `kill_at` ends it there."""
    pipe = deepcopy(base)
    networks = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    method = make_method(name, SETTINGS.get(name, {}), seed=1)
    method.attach(networks)
    if kill_at:
        after_step = method.after_step

        def dying(step):
            if step == kill_at:
                raise Killed
            return after_step(step)

        method.after_step = dying
    settings = {
        "steps": 7, "batch_size": 3, "learning_rate": 5e-3, "prompt_dropout": 0.2, "checkpoint_interval": 2, "seed": 1,
    } | changes  # fmt: skip
    empty = torch.zeros(1, WORDS, dtype=torch.long)
    outcome = train(
        networks, method, pipe.scheduler.add_noise, data, empty_tokens=empty, checkpoint=checkpoint, **settings
    )
    return networks, outcome


@pytest.mark.parametrize("name", [name for name in METHODS if name != "base"])
@pytest.mark.parametrize("kill_at", [1, 4, 7])
def test_a_killed_run_goes_on_to_the_same_weights_bit_for_bit(base, data, tmp_path, name, kill_at):
    whole, outcome = run(base, name, data, tmp_path / "whole.safetensors")
    with pytest.raises(Killed):
        run(base, name, data, tmp_path / "killed.safetensors", kill_at)
    resumed, again = run(base, name, data, tmp_path / "killed.safetensors")

    expected, found = trained_tensors(whole), trained_tensors(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert again["history"] == outcome["history"]
    assert again["expansions"] == outcome["expansions"]


def test_training_lowers_the_loss_and_selora_grows(base, data, tmp_path):
    networks, outcome = run(base, "selora", data, tmp_path / "c.safetensors", steps=20, learning_rate=1e-2)
    first, last = outcome["history"][2]["val_loss"], outcome["best_loss"]
    assert last < first
    assert any(record["expanded"] for record in outcome["expansions"])
    assert len(set(ranks(networks["unet"]).values())) > 1


def test_the_best_weights_by_validation_loss_are_kept_with_their_ranks(base, data, tmp_path):
    """A learning rate that ruins the weights: the first validation, before the ruin, must win over later ones."""
    networks, outcome = run(base, "selora", data, tmp_path / "c.safetensors", steps=9, learning_rate=5.0)
    measured = {row["step"]: row["val_loss"] for row in outcome["history"] if row["val_loss"] is not None}
    assert outcome["best_step"] == min(measured, key=measured.get) < 9
    stopped, _ = run(base, "selora", data, tmp_path / "d.safetensors", steps=outcome["best_step"], learning_rate=5.0)
    expected, found = trained_tensors(stopped), trained_tensors(networks)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert ranks(networks["unet"]) == ranks(stopped["unet"])


def test_without_validation_images_the_last_weights_count(base, data, tmp_path):
    _, outcome = run(base, "lora", {"train": data["train"]}, tmp_path / "c.safetensors")
    assert outcome["best_step"] == 7
    assert outcome["best_loss"] is None
