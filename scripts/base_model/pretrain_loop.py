"""What both training stages of the mini base share: budget, learning rate, checkpoints, log."""

import csv
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Half precision pays on a GPU, and on a CPU with matrix units (AMX); on others it is three times slower.
HALF = DEVICE.type == "cuda" or torch.cpu._is_amx_tile_supported()
WARMUP = 200  # steps; Adam's first estimates are poor


def save(path: Path, state: dict) -> None:
    """Atomic: a kill leaves the old checkpoint or the new one, never half of one."""
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def load(path: Path, default: dict) -> dict:
    return torch.load(path, map_location=DEVICE, weights_only=True) if path.exists() else default


def row(stage: str, state: dict, losses: list[float], checked: float) -> list:
    return [stage, state["step"], round(state["seconds"]), f"{np.mean(losses):.5f}", f"{checked:.5f}"]


def write_log(folder: Path, stage: str, rows: list[list]) -> None:
    """Replace the stage's rows in the log: after a resume they are those of the checkpoint and what followed."""
    path = folder / "pretrain_log.csv"
    others = []
    if path.exists():
        with path.open(newline="") as file:
            others = [line for line in list(csv.reader(file))[1:] if line[0] != stage]
    with path.with_suffix(".tmp").open("w", newline="") as file:
        head = ["stage", "step", "seconds", "loss", "val_loss"]
        body = [*others, *rows]
        csv.writer(file, lineterminator="\n").writerows([head, *body])
    os.replace(path.with_suffix(".tmp"), path)
    print(*rows[-1], flush=True)


def steps(state: dict, budget: str) -> Iterator[tuple[int, float]]:
    """Yield (step, share of the budget spent) until the budget is spent; keeps step and seconds in `state`."""

    def spent() -> float:
        if budget.endswith("m"):
            return state["seconds"] / (60 * float(budget[:-1]))
        return state["step"] / int(budget)

    while spent() < 1:
        began = time.time()
        torch.manual_seed(state["step"])  # a resumed run draws what an unbroken one would have drawn
        yield state["step"], spent()
        state["step"] += 1
        state["seconds"] += time.time() - began


def descend(optimizer: torch.optim.Optimizer, loss: torch.Tensor, lr: float, step: int, spent: float) -> None:
    """One step at a rate that warms up, then follows a half cosine to zero at the end of the budget."""
    optimizer.param_groups[0]["lr"] = lr * min(1, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * spent))
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
    optimizer.step()


def autocast() -> torch.autocast:
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=HALF)


def to_tensor(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (n, h, w), grey -> float (n, 3, h, w) in -1..1, on the device."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).to(DEVICE)[:, None].repeat(1, 3, 1, 1).float() / 127.5 - 1
