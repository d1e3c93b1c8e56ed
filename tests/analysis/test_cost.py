"""Costs: what is counted against counts by hand, turns by a clock that is made up, what is said by its numbers."""

import re
from collections import Counter
from copy import deepcopy
from dataclasses import replace
from itertools import count, pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import random_batch
from torch import nn

from selora.adapters import ranks
from selora.analysis import timing
from selora.analysis.cost import Training, flops, give_ranks, memory, moment_bytes
from selora.analysis.cost_ratios import BARS, INTERVAL, ratios, sentence, steps_to_loss, whole
from selora.analysis.timing import in_turns
from selora.diffusion.loop import make_optimizer, train_step
from selora.diffusion.method import Method
from selora.methods import make_method
from selora.study.laboratory import Study
from selora.study.profiles import load_profile
from selora.study.records import write_table

FLOAT = 4  # bytes


class Doubled(nn.Linear):
    """A linear layer with a device, as networks have one."""

    device = torch.device("cpu")


def training(width: int = 5, out: int = 3, samples: int = 7) -> Training:
    """A linear layer without bias, and the mean square of what it gives."""
    layer, x = Doubled(width, out, bias=False), torch.randn(samples, width)
    optimizer = make_optimizer({"unet": layer}, 1e-3)

    def make_step(method: Method, step: int) -> None:
        layer(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return Training({"unet": layer}, Method({}, 0, 0), optimizer, make_step, 1, None, None, "first")


def test_flops_and_bytes_of_a_layer_are_those_counted_by_hand():
    width, out, samples = 5, 3, 7
    one = training(width, out, samples)
    forward = 2 * samples * width * out
    assert flops(one.plain_step) == 2 * forward  # and as much for the weight's gradient; the input has none
    weights = width * out
    moments = 2 * weights + 1  # Adam's, and its count of steps
    assert moment_bytes(one) == FLOAT * moments
    passed = samples * width + samples * out  # the input, for the weight's gradient; the output, for the square's
    assert memory(one) == FLOAT * (weights + weights + moments + passed)


def test_attention_is_counted_whatever_the_device_makes_of_it():
    """Two products of (L, d) by (d, L) size for each head, forward."""
    heads, length, width = 2, 6, 4
    q = torch.randn(1, heads, length, width)
    found = flops(lambda: nn.functional.scaled_dot_product_attention(q, q, q))
    assert found == 2 * heads * 2 * length * length * width


def test_turns_change_their_order_and_the_first_rounds_do_not_count(monkeypatch):
    """By a clock that counts the calls; over many rounds each variant follows each other one about as often."""
    clock, calls = count(1), []
    monkeypatch.setattr(timing, "seconds_of", lambda run: run() or next(clock))
    found = in_turns({name: lambda name=name: calls.append(name) for name in "abc"}, rounds=600, warm_up=2)
    assert list(found) == list("abc") and len(found) == 600 and found.min().min() == 7
    for name, own in found.items():
        assert [calls[place - 1] for place in own] == [name] * 600
        assert sorted({*own % 3}) == [0, 1, 2]  # first, second and third
    assert (np.sort(found, axis=1) == np.arange(7, 7 + 1800).reshape(600, 3)).all()
    follows = Counter(pair for pair in pairwise(calls) if len({*pair}) == 2)
    assert len(follows) == 6 and min(follows.values()) > 0.7 * max(follows.values())


@pytest.mark.parametrize(("name", "reserve"), [("selora", 0), ("increlora", 2)])
def test_a_growing_method_gets_the_ranks_that_a_run_ended_with_and_trains_on(pipe, name, reserve):
    """IncreLoRA's ranks are counted without those in reserve."""
    networks = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    method = make_method(name, {"interval": 2, "growing": 1.0} if reserve else {"threshold": 9.0}, 0, 40)
    method.attach(networks)
    draw = np.random.default_rng(0)
    ended = {(net, layer): int(draw.integers(1, 6)) for net, model in networks.items() for layer in ranks(model)}
    give_ranks(networks, ended, reserve)
    assert {(net, layer): r - reserve for net, model in networks.items() for layer, r in ranks(model).items()} == ended
    optimizer = make_optimizer(networks, 1e-3)
    method.start(networks, optimizer)
    pieces = [slice(0, 2), slice(2, 4)] if method.divisible else [slice(0, 4)]
    loss, slope, _ = train_step(networks, method, optimizer, pipe.scheduler, random_batch(4), pieces, 1)
    assert torch.isfinite(loss) and slope > 0


def test_without_ranks_all_stays(pipe):
    networks = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    make_method("lora", {}, 0, 4).attach(networks)
    before = deepcopy(pipe.unet.state_dict())
    give_ranks(networks, {})
    assert all(torch.equal(before[name], tensor) for name, tensor in pipe.unet.state_dict().items())


# ---------------------------------------------------------------- from records


@pytest.fixture
def study(tmp_path):
    """LoRA, two seeds: 0.5 at step 20, and 0.7 at step 30; SeLoRA gets to 0.7 with one of its seeds, DyLoRA never."""
    profile = replace(load_profile("smoke", datasets="iu-drr", methods="base,lora,dylora,selora"), seeds=[0, 1])
    study = Study(profile, tmp_path / "smoke")
    losses = {
        "lora": [[0.9, 0.5, 0.6], [0.9, 0.8, 0.7]],
        "selora": [[0.69, 0.9, 0.4], [1, 1, 1]],
        "dylora": [[1, 1, 1], [2, 2, 2]],
    }
    for method, seeds in losses.items():
        for seed, found in enumerate(seeds):
            history = pd.DataFrame({"step": range(1, 31), "val_loss": np.nan})
            history.loc[history.step % 10 == 0, "val_loss"] = found
            run = study.named("iu-drr", method, seed)
            run.folder.mkdir(parents=True)
            write_table(history, run.folder / "history.csv")
    return study


def test_the_fixed_loss_is_the_lowest_that_all_of_loras_runs_reach(study):
    found = steps_to_loss(study).set_index("method")
    assert set(found.loss) == {0.7} and "base" not in found.index
    assert found.reached.to_dict() == {"lora": 2, "dylora": 0, "selora": 1} and set(found.seeds) == {2}
    assert found.steps["lora"] == 25 and found.steps["selora"] == 10 and np.isnan(found.steps["dylora"])


def test_without_a_run_of_lora_there_is_no_such_loss(study, tmp_path):
    assert steps_to_loss(replace(study, folder=tmp_path / "elsewhere" / "smoke")).empty


def costs(**changes) -> pd.DataFrame:
    """Costs of LoRA and of SeLoRA, with a probe every tenth step that takes 1.5 of a plain one."""
    lora = {"method": "lora", "ranks": "first", "step": 1.01, "p95": 1.2, "interval": None, "probe": None, "own": None}
    lora |= {"gflop": 10, "memory_mb": 100, "parameters": 50, "optimizer_mb": 8, "file_mb": 4, "rounds": 9}
    selora = lora | {"method": "selora", "ranks": "final", "step": 0.9, "interval": 10, "probe": 1.5, "own": 1.0}
    selora |= {"gflop": 8, "memory_mb": 90, "parameters": 25, "optimizer_mb": 2, "file_mb": None}
    table = pd.DataFrame([lora, selora | changes]).assign(device="a machine")
    return table.astype({"probe": float, "own": float, "interval": float, "file_mb": float})


def test_all_ratios_are_to_lora(study):
    found = ratios(costs(), steps_to_loss(study))
    row = found.loc["selora"]
    assert row.run == pytest.approx(0.9 * (9 + 1.5) / 10)
    counted = row[["flop", "memory", "parameters", "optimizer"]].astype(float)
    assert counted.to_list() == pytest.approx([0.8, 0.9, 0.5, 0.25]) and np.isnan(row.file)
    assert row["to loss"] == pytest.approx(10 / 25 * row.run / 1.01)  # LoRA's own step, timed against its twin
    assert found.loc["lora", ["run", "to loss", "file"]].to_list() == pytest.approx([1.01, 1, 1])
    assert found.reached.to_dict() == {"lora": "2 of 2", "selora": "1 of 2"}
    never = ratios(costs(method="dylora"), steps_to_loss(study)).loc["dylora"]
    assert never.reached == "never" and np.isnan(never["to loss"])


def test_a_method_without_runs_has_no_time_to_the_loss(study, tmp_path):
    found = ratios(costs(), steps_to_loss(replace(study, folder=tmp_path / "elsewhere" / "smoke")))
    assert found["to loss"].isna().all() and set(found.reached) == {""} and found.run.notna().all()


def test_a_runs_mean_step_is_that_of_its_steps_written_down():
    steps = [1.5 if step % INTERVAL == 0 else 1.0 for step in range(1, 10 * INTERVAL + 1)]
    assert whole(costs(), INTERVAL)[1] == pytest.approx(np.mean(steps)) and whole(costs(), INTERVAL)[0] == 1


@pytest.mark.parametrize(("probe", "own"), [(1.1, 1.0), (1.3, 1.0), (1.1, 1.03)])
def test_the_sentence_says_of_each_bar_whether_it_is_held(probe, own):
    text = sentence(costs(probe=probe, own=own))
    assert ("**above** the bar of 1.20" in text) == (probe > BARS["probe"])
    run = own * (INTERVAL - 1 + probe) / INTERVAL
    assert ("**above** the bar of 1.02" in text) == (run > BARS["own"])
    said = float(re.search(r"takes (\S+) of what plain LoRA", text)[1])
    assert said == pytest.approx(run, abs=0.0006)
    assert "two equal LoRAs came out at 1.010" in text and "Medians of 9 steps on a machine" in text


def test_without_a_probe_nothing_is_said_of_its_cost():
    assert "not known here" in sentence(costs(probe=None)) and "not known here" in sentence(costs().head(1))
