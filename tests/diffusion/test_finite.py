"""What is not finite ends a run with the step and the batch, and nothing dead is kept."""

import os
import socket
from copy import deepcopy

import numpy as np
import pytest
import torch
from conftest import TRAINED, run, tiny_data, tiny_pipeline
from torch.multiprocessing import start_processes

from selora.diffusion.checkpoint import load_checkpoint
from selora.diffusion.draws import ORDER, generator
from selora.diffusion.finite import NotFinite, dead_numbers, dead_tensors
from selora.diffusion.latents import encode
from selora.diffusion.method import Method
from selora.diffusion.sampling import sample

IDS = [f"patient-{i}" for i in range(10)]
LOOKING = ("eva", "gora")  # at noisy batches of all pictures, before the first step
RUIN = {"learning_rate": 1e30}  # whatever a method makes of it


@pytest.mark.parametrize("name", [name for name in TRAINED if name != "dora"])  # whose weights are normalized
def test_a_rate_that_ruins_the_weights_ends_every_method(base, data, earlier, tmp_path, name):
    checkpoint = tmp_path / "c.safetensors"
    with pytest.raises(NotFinite, match=r"lost at step [1-4] \(batch: patient-\d, patient-\d, patient-\d\)"):
        run(base, name, data, checkpoint, earlier, ids=IDS, **RUIN)
    assert not checkpoint.exists() or not dead_tensors(load_checkpoint(checkpoint)[0])


@pytest.mark.parametrize("name", [name for name in TRAINED if name not in LOOKING])
def test_a_dead_sample_ends_every_method_at_the_step_that_draws_it(base, data, earlier, tmp_path, name):
    data["train"][0][4] = torch.nan
    step = next(step for step in range(1, 8) if IDS[4] in batch_of(step))
    with pytest.raises(NotFinite, match=rf"lost at step {step} \(batch: .*patient-4"):
        run(base, name, data, tmp_path / "c.safetensors", earlier, ids=IDS)


@pytest.mark.parametrize("name", LOOKING)
def test_a_dead_sample_ends_a_look_at_the_networks(base, data, earlier, tmp_path, name):
    data["train"][0][4] = torch.nan
    with pytest.raises(NotFinite, match=r"the look at the networks before training is lost: numbers at layer \S+\."):
        run(base, name, data, tmp_path / "c.safetensors", earlier, ids=IDS)


@pytest.mark.parametrize("name", ["full", "lora", "selora"])
def test_so_in_bf16(base, data, tmp_path, name):
    rough = deepcopy(base)
    for model in (rough.unet, rough.text_encoder):
        model.to(torch.bfloat16)
    with pytest.raises(NotFinite, match="lost at step"):
        run(rough, name, data, tmp_path / "c.safetensors", **RUIN)


def spoiled(monkeypatch, step: int, spoil) -> None:
    """Lets `spoil` loose on the trained parameters at the end of the backward pass of a step, or after the step."""
    start = Method.start

    def watching(self, networks, optimizer):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        take = optimizer.step
        count = 0

        def counted(*args):
            nonlocal count
            count += 1
            return spoil(parameters, take) if count == step else take(*args)

        optimizer.step = counted
        start(self, networks, optimizer)

    monkeypatch.setattr(Method, "start", watching)


def batch_of(step: int) -> list[str]:
    """The ids of a step's batch of three out of ten, by the order that a run draws."""
    epoch, position = divmod(step - 1, 3)
    order = torch.randperm(10, generator=generator(1, ORDER, epoch))
    return [IDS[i] for i in order[3 * position :][:3]]


def test_an_overflown_weight_is_found_before_it_is_kept(base, data, tmp_path, monkeypatch):
    """After step 6 a weight is infinite; the checkpoint of step 4 stays, and a second start ends there too."""

    def spoil(parameters, take):
        take()
        parameters[0].data.view(-1)[0] = float("inf")

    data.pop("val")
    spoiled(monkeypatch, 6, spoil)
    with pytest.raises(NotFinite, match=r"step 6 .*lora_A.*; the checkpoint of step 4 is kept") as caught:
        run(base, "lora", data, tmp_path / "c.safetensors", ids=IDS)
    assert all(name in str(caught.value) for name in batch_of(6))
    tensors, record = load_checkpoint(tmp_path / "c.safetensors")
    assert record["step"] == 4 and not dead_tensors(tensors)


def test_a_gradient_is_named_by_its_own_step(base, data, tmp_path, monkeypatch):
    """A loss of infinite slope at step 5 of 7, with one block from 1 to 7."""
    calls = []

    def loss(self, loss):
        calls.append(loss)
        return loss * float("inf") if len(calls) == 5 else loss

    data.pop("val")
    monkeypatch.setattr(Method, "loss", loss)
    with pytest.raises(NotFinite, match="lost at step 5 .*norm (inf|nan); there is no checkpoint yet") as caught:
        run(base, "lora", data, tmp_path / "c.safetensors", ids=IDS, checkpoint_interval=7)
    assert all(name in str(caught.value) for name in batch_of(5))
    assert not (tmp_path / "c.safetensors").exists()


def test_a_validation_loss_that_is_dead_makes_no_best(base, data, tmp_path):
    data["val"][0][1] = float("nan")
    with pytest.raises(NotFinite, match="step 3 .*the validation loss is nan; the checkpoint of step 2"):
        run(base, "lora", data, tmp_path / "c.safetensors")
    assert not any(name.startswith("best/") for name in load_checkpoint(tmp_path / "c.safetensors")[0])


def test_what_a_method_makes_of_the_best_weights_is_looked_at(base, data, tmp_path, monkeypatch):
    def finish(self, networks, validate):
        next(p for p in networks["unet"].parameters() if p.requires_grad).data.fill_(torch.nan)
        return {}

    monkeypatch.setattr(Method, "finish", finish)
    with pytest.raises(NotFinite, match="final tensors"):
        run(base, "full", data, tmp_path / "c.safetensors")


@pytest.mark.parametrize(("ratio", "ends"), [(float("inf"), False), (float("nan"), True)])
def test_an_fi_ratio_may_be_infinite_but_not_undefined(base, data, tmp_path, monkeypatch, ratio, ends):
    monkeypatch.setattr(Method, "after_step", lambda self, step: [{"step": step, "fi_ratio": ratio}])
    if ends:
        with pytest.raises(NotFinite, match="step 1 .*FI-Ratio"):
            run(base, "lora", data, tmp_path / "c.safetensors")
    else:
        assert len(run(base, "lora", data, tmp_path / "c.safetensors")[1]["expansions"]) == 7


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae"])
def test_dead_images_are_not_scored(pipe, part):
    list(getattr(pipe, part).parameters())[-1].data.fill_(torch.nan)
    with pytest.raises(NotFinite, match="images sampled .* from the batch of 'heart'"):
        sample(pipe, ["heart", "lungs"], size=16, steps=2, guidance_scale=2.0, batch_size=1, seed=0)


def test_dead_latents_are_not_kept(pipe):
    pipe.vae.encoder.conv_in.weight.data.view(-1)[0] = float("inf")
    with pytest.raises(NotFinite, match="latents"):
        encode(pipe.vae, np.full((1, 16, 16, 3), 9, dtype=np.uint8), 1)


def test_dead_numbers_in_a_record_are_named():
    nan, inf = float("nan"), float("inf")
    record = {"kid": nan, "n": 3, "none": None, "floor": {"fid": 1.0, "kid": -inf}, "findings": [{"auroc": nan}]}
    assert dead_numbers(record) == ["kid nan", "floor.kid -inf", "findings[0].auroc nan"]
    assert dead_numbers({"findings": [], "auroc": None}) == []


def one_of_two(rank: int, folder, port: int) -> None:
    """What one of two processes does: it ends with the error, and writes it down under its rank."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    base, data = tiny_pipeline(), tiny_data()
    if rank == 1:
        base.unet.conv_in.weight.data.fill_(torch.nan)  # of one process alone
    for name in ("lora", "full"):
        try:
            run(base, name, data, folder / f"{name}.checkpoint", batch_size=4)
        except NotFinite as error:
            (folder / f"{name}.{rank}").write_text(str(error), encoding="utf-8")
    torch.distributed.destroy_process_group()


def test_all_processes_end_where_one_is_ruined(tmp_path):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    start_processes(one_of_two, (tmp_path, port), nprocs=2, start_method="spawn")
    for name in ("lora", "full"):
        assert "step 1" in (tmp_path / f"{name}.0").read_text(encoding="utf-8")
        assert "step" in (tmp_path / f"{name}.1").read_text(encoding="utf-8")
