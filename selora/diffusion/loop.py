"""The training loop: denoising loss on cached latents, any method, resumable at any step with the same outcome.

Every random choice of a step (order, noise, timesteps, dropped prompts) follows from the seed and the step alone, so a
checkpoint needs no generator state and a resumed run repeats an uninterrupted one bit for bit on the CPU. Several
processes draw the same batch and take their shares of it, so they train what one process would.
"""

import time
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate.utils import reduce
from diffusers import SchedulerMixin
from torch import nn
from torch.nn.functional import mse_loss
from tqdm import tqdm

from selora.adapters import restore_tensors, trained_tensors
from selora.diffusion import machine
from selora.diffusion.checkpoint import load_checkpoint, save_checkpoint
from selora.diffusion.draws import BATCH, ORDER, draw_batch, generator
from selora.diffusion.latents import Latents
from selora.diffusion.machine import autocast, raise_trained
from selora.diffusion.method import Method

CHECKED = 64  # training images that stand in where a data set has no validation images


def denoising_loss(
    networks: Mapping[str, nn.Module],
    schedule: SchedulerMixin,
    latents: torch.Tensor,
    tokens: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
) -> torch.Tensor:
    """Mean squared error of what the base predicts: the noise, or the velocity (Salimans and Ho 2022, as Stable
    Diffusion 2). latents and noise (B, 4, h, w), tokens (B, 77), timesteps (B,)."""
    device = networks["unet"].device
    latents, tokens, noise, timesteps = (t.to(device) for t in (latents, tokens, noise, timesteps))
    with autocast(networks["unet"]):
        states = networks["text_encoder"](tokens).last_hidden_state  # (B, 77, width)
        prediction = networks["unet"](schedule.add_noise(latents, noise, timesteps), timesteps, states).sample
    velocity = schedule.config.prediction_type == "v_prediction"
    target = schedule.get_velocity(latents, noise, timesteps) if velocity else noise
    return mse_loss(prediction.float(), target.float())


@torch.no_grad()
def validation_loss(
    networks, schedule, latents: torch.Tensor | Latents, tokens: torch.Tensor, batch_size: int
) -> float:
    """Denoising loss over a set, with the same noise each time and timesteps spread evenly over the schedule; of
    several processes, each takes a share of the batches."""
    noise = torch.randn(latents.shape, generator=generator(0))
    timesteps = torch.linspace(0, 999, len(latents)).long()[torch.randperm(len(latents), generator=generator(1))]
    this = machine.state()
    total = torch.zeros((), dtype=torch.float64, device=networks["unet"].device)
    for part in torch.arange(len(latents)).split(batch_size)[this.process_index :: this.num_processes]:
        loss = denoising_loss(networks, schedule, latents[part], tokens[part], noise[part], timesteps[part])
        total += loss.double() * len(part)
    return reduce(total, "sum").item() / len(latents)


def train(
    networks: Mapping[str, nn.Module],  # 'unet' and 'text_encoder', with the method attached
    method: Method,
    schedule: SchedulerMixin,  # the forward process, and what the base predicts
    data: Mapping[
        str, tuple[torch.Tensor | Latents, torch.Tensor]
    ],  # 'train', and 'val' if any: latents (N, 4, h, w), tokens (N, 77)
    *,
    empty_tokens: torch.Tensor,  # (1, 77), the empty prompt
    checkpoint: Path,  # found: the run goes on from it
    steps: int,
    batch_size: int,
    learning_rate: float,
    prompt_dropout: float,  # share of prompts replaced by the empty one, which guidance needs
    checkpoint_interval: int,  # steps; validation saves too
    seed: int,
    accumulation: int = 1,  # parts of a process's share of a batch that go through the networks one after the other
) -> dict:
    """Train what the method made trainable; the networks end with the best weights by validation loss, else the last.

    Returns:
        'history' (one row per step: step, epoch, train_loss, and val_loss where measured),
        'expansions' (the method's records), 'best_step', 'best_loss', 'train_seconds' over all sittings, and 'own' (the
        method's figures).

    Raises:
        ValueError: for a batch that cannot be cut into equal parts, or must not be.
    """
    done = {"step": 0, "history": [], "expansions": [], "best_step": None, "best_loss": None, "train_seconds": 0.0}
    best, moments = {}, {}
    tensors = {}
    raise_trained(networks)
    if checkpoint.exists():
        tensors, done = load_checkpoint(checkpoint)
        restore_tensors(networks, unprefixed(tensors, "now/"))
        best, moments = unprefixed(tensors, "best/"), unprefixed(tensors, "moments/")
    names = [f"{net}.{name}" for net, m in networks.items() for name, p in m.named_parameters() if p.requires_grad]
    parameters = dict(zip(names, trainable(networks), strict=True))
    device, main = networks["unet"].device, machine.state().is_main_process
    fused = device.type == "cuda"
    # without decay AdamW is Adam, which the released code uses
    optimizer = torch.optim.AdamW(parameters.values(), lr=learning_rate, weight_decay=0.0, fused=fused)
    for key, value in moments.items():
        name, state = key.rsplit("/", 1)
        on_cpu = state == "step" and not fused  # where Adam wants its count of steps
        optimizer.state[parameters[name]][state] = value if on_cpu else value.to(device)
    method.start(networks, optimizer)
    if tensors:
        method.restore(unprefixed(tensors, "method/"))

    def validate() -> float:
        checked = data.get("val") or tuple(part[:CHECKED] for part in data["train"])
        return validation_loss(networks, schedule, *checked, batch_size)

    latents, tokens = data["train"]
    batch_size = min(batch_size, len(latents))
    pieces = machine.pieces(batch_size, accumulation)
    if batch_size > pieces[0].stop - pieces[0].start and not method.divisible:
        raise ValueError(
            f"{type(method).__name__} needs whole batches: run it in a single process, with an accumulation of 1"
        )
    per_epoch = len(latents) // batch_size
    order = None  # of the epoch's samples
    losses = []  # of the steps since the last checkpoint, on the device: reading each would wait for the GPU
    started = time.perf_counter() - done["train_seconds"]
    for step in tqdm(
        range(done["step"] + 1, steps + 1), initial=done["step"], total=steps, desc="train", mininterval=5
    ):
        epoch, position = divmod(step - 1, per_epoch)
        if position == 0 or order is None:
            order = torch.randperm(len(latents), generator=generator(seed, ORDER, epoch))
        part = order[position * batch_size :][:batch_size]
        draw = generator(seed, BATCH, step)
        batch = draw_batch(latents, tokens, part, draw, empty_tokens=empty_tokens, prompt_dropout=prompt_dropout)

        train_loss = torch.zeros((), device=device)
        with method.around(step):
            for piece in pieces:
                loss = denoising_loss(networks, schedule, **{name: whole[piece] for name, whole in batch.items()})
                (method.loss(loss) / accumulation).backward()
                train_loss += loss.detach() / accumulation
        machine.average([train_loss, *(p.grad for p in trainable(networks) if p.grad is not None)])
        optimizer.step()
        done["expansions"] += method.after_step(step)
        optimizer.zero_grad()
        losses.append(train_loss)
        done["history"].append({"step": step, "epoch": epoch + 1, "train_loss": None, "val_loss": None})

        last = step == steps
        validated = "val" in data and (last or position == per_epoch - 1)
        if validated:
            val_loss = done["history"][-1]["val_loss"] = validate()
            if method.settled(step) and (done["best_loss"] is None or val_loss < done["best_loss"]):
                best, done["best_loss"], done["best_step"] = trained_tensors(networks), val_loss, step
        if validated or last or step % checkpoint_interval == 0:
            for row, value in zip(done["history"][-len(losses) :], torch.stack(losses).tolist(), strict=True):
                row["train_loss"] = value
            losses.clear()
            done |= {"step": step, "train_seconds": time.perf_counter() - started}
            own = {f"method/{name}": tensor for name, tensor in method.state().items()}
            if main:
                save_checkpoint(checkpoint, checkpoint_tensors(networks, best, optimizer) | own, done)

    if best:
        restore_tensors(networks, best)
    seconds = time.perf_counter() - started
    own = method.finish(networks, validate)
    return {**done, "best_step": done["best_step"] or steps, "train_seconds": seconds, "own": own}


def trainable(networks: Mapping[str, nn.Module]) -> list[nn.Parameter]:
    """All trainable parameters, network by network."""
    return [p for model in networks.values() for p in model.parameters() if p.requires_grad]


def checkpoint_tensors(
    networks, best: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    """What a run needs to go on: the weights now, the best so far, the optimizer's state; by prefixed name."""
    now = trained_tensors(networks)
    moments = {
        f"moments/{name}/{state}": value
        for name, p in zip(now, trainable(networks), strict=True)
        for state, value in optimizer.state.get(p, {}).items()
    }
    return {**{f"now/{k}": v for k, v in now.items()}, **{f"best/{k}": v for k, v in best.items()}, **moments}


def unprefixed(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The entries whose name starts with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
