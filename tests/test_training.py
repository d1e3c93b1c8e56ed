"""The loop: a killed run ends as an uninterrupted one does, and the best weights by validation loss are kept."""

import json
from copy import deepcopy

import pandas as pd
import pytest
import torch
from conftest import WORDS

from selora.adapters import linear_layers, ranks, trained_tensors
from selora.methods import METHODS, make_method
from selora.training import look_batches, train

SETTINGS = {
    "selora": {"threshold": 1.05, "interval": 2},
    "adalora": {"interval": 1},
    "increlora": {"interval": 2, "growing": 1.0},
    "dylora": {"newest_only": True},
    "vera": {"r": 8},
}
TRAINED = [name for name in METHODS if name not in ("base", "qlora")]


class Killed(Exception):
    pass


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(3)
    return {
        split: (torch.randn(n, 4, 8, 8, generator=generator), torch.randint(0, 70, (n, WORDS), generator=generator))
        for split, n in (("train", 10), ("val", 4))
    }


@pytest.fixture(scope="session")
def earlier(base, tmp_path_factory):
    """What a finished SeLoRA run of the tiny pipeline leaves behind, as far as its controls read it."""
    folder = tmp_path_factory.mktemp("selora")
    grown = {"unet": linear_layers(base.unet)[:5], "text_encoder": linear_layers(base.text_encoder)[:3]}
    rows = [
        {"step": step, "network": network, "layer": layer, "fi_ratio": 1.2, "rank": 2, "expanded": True}
        for step in (2, 6)
        for network, layers in grown.items()
        for layer in layers
    ]
    pd.DataFrame(rows).to_csv(folder / "expansions.csv", index=False)
    (folder / "result.json").write_text(json.dumps({"unet_params": 9000, "text_encoder_params": 2000}))
    return folder


def run(base, name, data, checkpoint, earlier=None, kill_at=None, **changes):
    """Train a copy of the tiny pipeline for seven steps with a checkpoint every second; `kill_at` ends it there."""
    pipe = deepcopy(base)
    networks = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    method = make_method(name, SETTINGS.get(name, {}), seed=1, steps=changes.get("steps", 7), earlier=earlier)
    method.inspect(networks, look_batches(*data["train"], pipe.scheduler, seed=1))
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
    outcome = train(networks, method, pipe.scheduler, data, empty_tokens=empty, checkpoint=checkpoint, **settings)
    return networks, outcome


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("kill_at", [1, 4, 7])
def test_a_killed_run_goes_on_to_the_same_weights_bit_for_bit(base, data, earlier, tmp_path, name, kill_at):
    whole, outcome = run(base, name, data, tmp_path / "whole.safetensors", earlier)
    with pytest.raises(Killed):
        run(base, name, data, tmp_path / "killed.safetensors", earlier, kill_at)
    resumed, again = run(base, name, data, tmp_path / "killed.safetensors", earlier)

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
