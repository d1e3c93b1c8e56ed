"""The training loop: denoising loss on cached latents, any method, resumable at any step with the same outcome.

Every random choice of a step (order, noise, timesteps, dropped prompts) follows from the seed and the step alone, so a
checkpoint needs no generator state and a resumed run repeats an uninterrupted one bit for bit on the CPU. Several
processes draw the same batch and take their shares of it, so they train what one process would.
"""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from accelerate.utils import reduce
from diffusers import SchedulerMixin
from torch import nn
from torch.nn.functional import mse_loss
from tqdm.auto import tqdm

from selora.adapters import restore_tensors, trained_tensors
from selora.diffusion import machine
from selora.diffusion.checkpoint import load_checkpoint, save_checkpoint
from selora.diffusion.draws import BATCH, ORDER, draw_batch, generator, target
from selora.diffusion.finite import NotFinite, dead_tensors
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
    """Mean squared error of what the base predicts. latents and noise (B, 4, h, w), tokens (B, 77), timesteps (B,)."""
    device = networks["unet"].device
    latents, tokens, noise, timesteps = (t.to(device) for t in (latents, tokens, noise, timesteps))
    with autocast(networks["unet"]):
        states = networks["text_encoder"](tokens).last_hidden_state  # (B, 77, width)
        prediction = networks["unet"](schedule.add_noise(latents, noise, timesteps), timesteps, states).sample
    return mse_loss(prediction.float(), target(schedule, latents, noise, timesteps).float())


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
    ids: Sequence[str] = (),  # of the training samples, to be named where a number dies; without them their places are
    accumulation: int = 1,  # parts of a process's share of a batch that go through the networks one after the other
) -> dict:
    """Train what the method made trainable; the networks end with the best weights by validation loss, else the last.

    Returns:
        'history' (one row per step: step, epoch, train_loss, and val_loss where measured),
        'expansions' (the method's records), 'best_step', 'best_loss', 'train_seconds' over all sittings, and 'own' (the
        method's numbers).

    Raises:
        ValueError: for a batch that cannot be cut into equal parts, or must not be.
        NotFinite: for a loss, a gradient, a weight or a moment that is not finite, in every process; the last
            checkpoint stays, and holds finite numbers only.
    """
    done = {"step": 0, "history": [], "expansions": [], "best_step": None, "best_loss": None, "train_seconds": 0.0}
    best, moments = {}, {}
    tensors = {}
    raise_trained(networks)
    if checkpoint.exists():
        tensors, done = load_checkpoint(checkpoint)
        restore_tensors(networks, unprefixed(tensors, "now/"))
        best, moments = unprefixed(tensors, "best/"), unprefixed(tensors, "moments/")
    parameters, optimizer = named_trainable(networks), make_optimizer(networks, learning_rate)
    device, main = networks["unet"].device, machine.state().is_main_process
    for key, value in moments.items():
        name, state = key.rsplit("/", 1)
        on_cpu = state == "step" and device.type != "cuda"  # where Adam wants its count of steps
        found = value.tolist() if state == "row_steps" else value if on_cpu else value.to(device)
        optimizer.state[parameters[name]][state] = found
    method.start(networks, optimizer)
    if tensors:
        method.restore(unprefixed(tensors, "method/"))

    def validate() -> float:
        checked = data.get("val") or tuple(part[:CHECKED] for part in data["train"])
        return validation_loss(networks, schedule, *checked, batch_size)

    def named(part: torch.Tensor) -> list[str]:
        return [ids[i] if ids else f"sample {i}" for i in part.tolist()]

    latents, tokens = data["train"]
    batch_size = min(batch_size, len(latents))
    pieces = machine.pieces(batch_size, accumulation)
    if batch_size > pieces[0].stop - pieces[0].start and not method.divisible:
        raise ValueError(
            f"{type(method).__name__} needs whole batches: run it in a single process, with an accumulation of 1"
        )
    per_epoch = len(latents) // batch_size
    order = None  # of the epoch's samples
    losses, slopes = [], []  # since the last checkpoint, on the device: reading each would wait for the GPU
    parts = []  # the same steps' samples

    def read_losses() -> list[float]:
        """The losses since the last checkpoint; the first that is dead, or whose gradient is, ends the run."""
        seen = torch.stack([*losses, *slopes]).tolist()
        values, norms = seen[: len(losses)], seen[len(losses) :]
        for i, (loss, norm) in enumerate(zip(values, norms, strict=True)):
            if not math.isfinite(loss + norm):
                what = f"the loss is {loss}, its gradient's norm {norm}"
                raise lost(done["step"] + i + 1, what, done["step"], named(parts[i]))
        return values

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
        train_loss, slope, tests = train_step(networks, method, optimizer, schedule, batch, pieces, step)
        losses.append(train_loss)
        slopes.append(slope)
        parts.append(part)
        if any(math.isnan(test.get("fi_ratio") or 0) for test in tests):  # infinite it may be
            read_losses()
            raise lost(step, "an FI-Ratio is nan", done["step"], named(part))
        done["expansions"] += tests
        done["history"].append({"step": step, "epoch": epoch + 1, "train_loss": None, "val_loss": None})

        last = step == steps
        validated = "val" in data and (last or position == per_epoch - 1)
        saved = validated or last or step % checkpoint_interval == 0
        if saved:
            values = read_losses()
            if dead := dead_tensors(named_trainable(networks) | moments_of(networks, optimizer)):
                raise lost(step, f"{len(dead)} tensors are not finite, {dead[0]} the first", done["step"], named(part))
        if validated:
            val_loss = done["history"][-1]["val_loss"] = validate()
            if not math.isfinite(val_loss):
                raise lost(step, f"the validation loss is {val_loss}", done["step"], named(part))
            if method.settled(step) and (done["best_loss"] is None or val_loss < done["best_loss"]):
                best, done["best_loss"], done["best_step"] = trained_tensors(networks), val_loss, step
        if saved:
            for row, value in zip(done["history"][-len(values) :], values, strict=True):
                row["train_loss"] = value
            for kept in (losses, slopes, parts):
                kept.clear()
            done |= {"step": step, "train_seconds": time.perf_counter() - started}
            own = {f"method/{name}": tensor for name, tensor in method.state().items()}
            if main:
                save_checkpoint(checkpoint, checkpoint_tensors(networks, best, optimizer) | own, done)

    if best:
        restore_tensors(networks, best)
    seconds = time.perf_counter() - started
    own = method.finish(networks, validate)
    if dead := dead_tensors(named_trainable(networks)):
        raise lost(steps, f"{len(dead)} of the final tensors are not finite, {dead[0]} the first", steps)
    return {**done, "best_step": done["best_step"] or steps, "train_seconds": seconds, "own": own}


def make_optimizer(networks: Mapping[str, nn.Module], learning_rate: float) -> torch.optim.AdamW:
    """The optimizer of all that is trainable: without decay AdamW is Adam, which the released code uses."""
    fused = networks["unet"].device.type == "cuda"
    return torch.optim.AdamW(trainable(networks), lr=learning_rate, weight_decay=0.0, fused=fused)


def train_step(
    networks: Mapping[str, nn.Module],
    method: Method,
    optimizer: torch.optim.Optimizer,
    schedule: SchedulerMixin,
    batch: Mapping[str, torch.Tensor],
    pieces: Sequence[slice],
    step: int,
) -> tuple[torch.Tensor, torch.Tensor, list[dict]]:
    """One whole step of a training, the method's part included: a batch's loss, the sum of its gradients' norms, and
    the method's records.

    Args:
        batch: as `draw_batch` draws it.
        pieces: the slices of it that go through the networks one after the other (`machine.pieces`).
    """
    train_loss = torch.zeros((), device=networks["unet"].device)
    with method.around(step):
        for piece in pieces:
            loss = denoising_loss(networks, schedule, **{name: whole[piece] for name, whole in batch.items()})
            (method.loss(loss) / len(pieces)).backward()
            train_loss += loss.detach() / len(pieces)
    gradients = [p.grad for p in trainable(networks) if p.grad is not None]
    machine.average([train_loss, *gradients])
    slope = torch.stack(torch._foreach_norm(gradients)).sum()
    optimizer.step()
    records = method.after_step(step)
    optimizer.zero_grad()
    return train_loss, slope, records


def lost(step: int, what: str, kept: int, batch: Sequence[str] = ()) -> NotFinite:
    """The error that ends a training at a step, with the ids of its batch; `kept` is the step of the last checkpoint, 0
    where there is none."""
    where = f" (batch: {', '.join(batch)})" if batch else ""
    good = f"the checkpoint of step {kept} is kept" if kept else "there is no checkpoint yet"
    advice = "lower the learning rate, or look at these pictures, and move the run's folder away to start anew"
    return NotFinite(f"training is lost at step {step}{where}: {what}; {good}. To go on, {advice}")


def trainable(networks: Mapping[str, nn.Module]) -> list[nn.Parameter]:
    """All trainable parameters, network by network."""
    return list(named_trainable(networks).values())


def named_trainable(networks: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """All trainable parameters, network by network, named `<network>.<parameter>`."""
    return {f"{net}.{name}": p for net, m in networks.items() for name, p in m.named_parameters() if p.requires_grad}


def checkpoint_tensors(
    networks, best: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    """What a run needs to go on: the weights now, the best so far, the optimizer's state; by prefixed name."""
    parts = {"now": trained_tensors(networks), "best": best, "moments": moments_of(networks, optimizer)}
    return {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def moments_of(networks: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state, named `<network>.<parameter>/<state>`."""
    named = named_trainable(networks).items()
    return {f"{name}/{k}": torch.as_tensor(v) for name, p in named for k, v in optimizer.state.get(p, {}).items()}


def unprefixed(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The entries whose name starts with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
