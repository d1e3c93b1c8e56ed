"""A batch in parts, one after the other or in several processes, trains what the whole batch would."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import finished_runs_of, run, tiny_data, tiny_pipeline
from safetensors.torch import load_file, save_file
from torch.multiprocessing import start_processes

from selora.adapters import trained_tensors
from selora.diffusion.machine import pieces
from selora.diffusion.sampling import sample
from selora.files import REPOSITORY
from selora.study.profiles import load_profile

METHODS = (
    "full",
    "lora",
    "selora",
    "adalora",
    "dylora",
    "sora",
    "grow-accumulated",
)  # whatever takes part in a step in its own way
BATCH = {"batch_size": 4, "learning_rate": 1e-3, "checkpoint_interval": 1}  # in the midst of a window too
PROMPTS = ["heart clear", "lungs clear", "heart"]


def close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        if name.endswith("k_proj.bias"):  # attention ignores it: its gradient is rounding, which Adam makes steps of
            continue
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.fixture(scope="module")
def wholes(base, earlier, tmp_path_factory):
    """Each method's networks and outcome, of one process and whole batches."""
    folder = tmp_path_factory.mktemp("wholes")
    return {name: run(base, name, tiny_data(), folder / f"{name}.safetensors", earlier, **BATCH) for name in METHODS}


@pytest.mark.parametrize("name", METHODS)
def test_an_accumulated_batch_trains_as_a_whole_one(base, data, earlier, tmp_path, wholes, name):
    whole, expected = wholes[name]
    parts, found = run(base, name, data, tmp_path / "parts.safetensors", earlier, accumulation=2, **BATCH)
    close(trained_tensors(parts), trained_tensors(whole))
    assert [r["rank"] for r in found["expansions"]] == [r["rank"] for r in expected["expansions"]]
    losses = [[row["train_loss"] for row in outcome["history"]] for outcome in (found, expected)]
    assert np.allclose(*losses, rtol=1e-5)


def test_a_batch_is_cut_into_equal_parts():
    assert pieces(6, 3) == [slice(0, 2), slice(2, 4), slice(4, 6)]
    with pytest.raises(ValueError, match="batch of 6 cannot be cut into 1 processes x 4"):
        pieces(6, 4)
    with pytest.raises(ValueError, match="batch_size 8 cannot be cut into 3"):
        replace(load_profile("mini"), accumulation=3)


def test_a_method_that_needs_whole_batches_says_so(base, data, tmp_path):
    with pytest.raises(ValueError, match="IncreLoRA needs whole batches"):
        run(base, "increlora", data, tmp_path / "c.safetensors", accumulation=2, batch_size=4)


# ---- two processes --------------------------------------------------------------------------------------------------


def one_of_two(rank: int, folder: Path, port: int) -> None:
    """What one of two processes does: every method, then some images, each written down under its rank."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    base, data = tiny_pipeline(), tiny_data()
    for name in METHODS:
        networks, outcome = run(base, name, data, folder / f"{name}.checkpoint", finished_runs_of(base), **BATCH)
        save_file(trained_tensors(networks), folder / f"{name}.{rank}.safetensors")
        (folder / f"{name}.{rank}.json").write_text(json.dumps([outcome["expansions"], outcome["best_loss"]]))
    np.save(folder / f"images.{rank}.npy", draw(base))
    torch.distributed.destroy_process_group()


def draw(pipe) -> np.ndarray:
    return sample(pipe, PROMPTS, size=16, steps=2, guidance_scale=2.0, batch_size=1, seed=0)


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """The folder that two processes wrote."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    start_processes(one_of_two, (folder, port), nprocs=2, start_method="spawn")
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_train_as_one_and_both_grow_the_same_layers(two, wholes, name):
    networks, outcome = wholes[name]
    first, second = (load_file(two / f"{name}.{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first), "bit for bit"
    close(first, trained_tensors(networks))
    records, loss = json.loads((two / f"{name}.0.json").read_text())
    assert (two / f"{name}.0.json").read_text() == (two / f"{name}.1.json").read_text()
    assert [(r["layer"], r["rank"]) for r in records] == [(r["layer"], r["rank"]) for r in outcome["expansions"]]
    assert loss == (outcome["best_loss"] and pytest.approx(outcome["best_loss"], rel=1e-5))  # None: never settled
    assert name != "selora" or any(r["expanded"] for r in records)


def test_two_processes_make_a_whole_run_and_one_writes_it(tmp_path):
    """The command as the README has it: training, sampling and scoring, with one process waiting at the end."""
    run = ["-m", "selora.study", "--profile", "smoke", "--dataset", "montgomery-drr", "--method", "selora"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", *run, "--results", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "smoke" / "runs" / "montgomery-drr" / "selora" / "seed0"
    result = json.loads((folder / "result.json").read_text())
    assert result["processes"] == 2 and result["n"] == len(list((folder / "samples").iterdir())) == 8
    assert not list(folder.glob("*.partial")) and not (folder / "checkpoint.safetensors").exists()


def test_each_process_samples_its_share_and_has_all(two, base):
    images = [np.load(two / f"images.{rank}.npy") for rank in (0, 1)]
    assert np.array_equal(*images)
    assert np.array_equal(images[0], draw(base))
