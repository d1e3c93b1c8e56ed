"""The loop: a killed run ends as an uninterrupted one does, and the best weights by validation loss are kept."""

import pytest
import torch
from conftest import TRAINED, Killed, run

from selora.adapters import ranks, trained_tensors
from selora.diffusion import loop


@pytest.mark.parametrize("name", TRAINED)
def test_a_killed_run_goes_on_to_the_same_weights_bit_for_bit(base, data, earlier, tmp_path, name):
    """Killed at its first step, then between two checkpoints, then at its last step."""
    whole, outcome = run(base, name, data, tmp_path / "whole.safetensors", earlier)
    for kill_at in (1, 4, 7):
        with pytest.raises(Killed):
            run(base, name, data, tmp_path / "killed.safetensors", earlier, kill_at)
    resumed, again = run(base, name, data, tmp_path / "killed.safetensors", earlier)
    expected, found = trained_tensors(whole), trained_tensors(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert all(expected[key].stride() == found[key].stride() for key in expected)  # else products may part later
    assert again["history"] == outcome["history"]
    assert again["expansions"] == outcome["expansions"]


def test_training_lowers_the_loss_and_selora_grows(base, data, tmp_path):
    networks, outcome = run(base, "selora", data, tmp_path / "c.safetensors", steps=20, learning_rate=1e-2)
    first, last = outcome["history"][2]["val_loss"], outcome["best_loss"]
    assert last < first
    assert any(record["expanded"] for record in outcome["expansions"])
    assert len(set(ranks(networks["unet"]).values())) > 1


def test_the_best_weights_by_validation_loss_are_kept_with_their_ranks(base, data, tmp_path, monkeypatch):
    """By made-up losses the first of three validations, after steps 3, 6 and 9, must win over the later ones."""

    def finished(name: str, steps: int):
        losses = iter((1.0, 2.0, 3.0))
        monkeypatch.setattr(loop, "validation_loss", lambda *_: next(losses))
        return run(base, "selora", data, tmp_path / name, steps=steps)

    networks, outcome = finished("c.safetensors", 9)
    assert (outcome["best_step"], outcome["best_loss"]) == (3, 1.0)
    stopped, _ = finished("d.safetensors", 3)
    expected, found = trained_tensors(stopped), trained_tensors(networks)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert ranks(networks["unet"]) == ranks(stopped["unet"])
    assert any(test["expanded"] and test["step"] > 3 for test in outcome["expansions"])  # growth to take back


def test_without_validation_images_the_last_weights_count(base, data, tmp_path):
    _, outcome = run(base, "lora", {"train": data["train"]}, tmp_path / "c.safetensors")
    assert outcome["best_step"] == 7
    assert outcome["best_loss"] is None


def test_without_validation_an_epoch_writes_no_checkpoint(base, data, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(loop, "save_checkpoint", lambda path, tensors, record: saved.append(record["step"]))
    run(base, "lora", {"train": data["train"]}, tmp_path / "c.safetensors", checkpoint_interval=3)
    assert saved == [3, 6, 7]
