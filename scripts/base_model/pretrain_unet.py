"""Trains the mini base's U-Net on views of the CT, scenes and clip art, after its text encoder has learned its words.

    python scripts/base_model/pretrain_unet.py --context oracle --budget 2083   # a learned token per finding, no words
    python scripts/base_model/pretrain_unet.py --budget 4500                    # captions, the text encoder frozen

The oracle says how well the pictures can be followed at all, and then teaches: where a caption says what a picture does
not show, the oracle's answer is what is learned. Goes on from its checkpoint in data/raw/pretrain; starts from the
published U-Net, or from the oracle's where there is one. `pretrain_prompted.py` measures what came of it.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from pretrain_base import OUT, SEED, WORK
from pretrain_context import Mixture, averaged, build, context, velocity
from pretrain_loop import DEVICE, descend, load, row, save, steps, write_log
from pretrain_parts import NOISE
from pretrain_prompted import gauge, write_gauge
from torch.optim.swa_utils import AveragedModel

LR = 8e-4  # high, as a short budget asks for; warm-up and cosine keep it stable
COARSE = {4: 0.25, 16: 0.25}  # weights of the error's means over 4 x 4 and all 16 x 16: brightness must not drift
TAUGHT_SHARE = 0.3  # of a batch; half of the views
EARLY_SHARE, EARLY = 0.5, (450, 1000)  # half the times are drawn where findings are decided
DROP_CAPTION = 0.1  # the empty prompt, for classifier-free guidance, as Stable Diffusion
EMA = 0.999  # averages about the last 1,000 steps
SAVE_SECONDS = 300


def with_coarse(error: torch.Tensor) -> torch.Tensor:
    """The squared error, and that of its means over larger cells: brightness must not drift."""
    loss = error.square().mean()
    for cells in COARSE:  # times its area, so that errors without structure count alike at every size
        loss = loss + COARSE[cells] * cells**2 * F.avg_pool2d(error, cells).square().mean()
    return loss


def train(oracle: bool, budget: str, batch: int) -> None:
    mixture, stage = Mixture(oracle), "oracle" if oracle else "unet"
    noiser, parts = DDPMScheduler(**NOISE), build(mixture, oracle)
    trained = [p for p in parts.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LR, betas=(0.9, 0.99), weight_decay=0.01)
    average = AveragedModel(
        parts, avg_fn=lambda mean, new, n: torch.lerp(mean, new, max(1 - EMA, (1 / (n + 1)) ** 0.75))
    )
    state = load(WORK / f"{stage}.pt", {"step": 0, "seconds": 0.0, "log": [], "gauge": []})
    if state["step"]:
        taught = parts["text_encoder"].state_dict()
        parts.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.load_state_dict(state["average"])
        if not oracle:  # the words as they are now
            parts["text_encoder"].load_state_dict(taught)
            average.module["text_encoder"].load_state_dict(taught)
    # The oracle's velocity for a prompt has no noise of its own: it teaches more than a picture does.
    teacher = averaged(mixture, True) if not oracle and (WORK / "oracle.pt").exists() else None
    taught = round(batch * TAUGHT_SHARE) if teacher else 0
    print(len(mixture.view_rows), "views", flush=True)

    def checkpoint(losses: list) -> None:
        bands = gauge(average.module, mixture, noiser)
        state["gauge"].append([stage, (state["step"] + 1) * batch, bands])
        write_gauge(OUT / "gauge.csv", stage, state["gauge"])
        state["log"].append(row(stage, state, losses, np.mean([found[0] for found in bands.values()])))
        write_log(OUT, stage, state["log"])
        save(
            WORK / f"{stage}.pt",
            state | {"model": parts.state_dict(), "optimizer": optimizer.state_dict(), "average": average.state_dict()},
        )

    losses, saved = [], time.time()
    for step, spent in steps(state, budget):
        rng = np.random.default_rng((SEED, step))
        latents, texts, told = mixture.batch(batch, min(1.0, 2 * spent), rng, taught)
        low = np.where(rng.random(batch) < EARLY_SHARE, EARLY[0], 0)
        times = torch.from_numpy(rng.integers(low, 1000)).to(DEVICE)
        dropped, noise = rng.random(batch) < DROP_CAPTION, torch.randn(latents.shape).to(DEVICE)
        target = noiser.get_velocity(latents, noise, times)
        if taught:
            first = (latents[:taught], noise[:taught], times[:taught])
            with torch.no_grad():
                states = context(teacher, mixture, texts[:taught], told[:taught], dropped[:taught])
                target[:taught] = velocity(teacher["unet"], noiser, *first, states)
        states = context(parts, mixture, texts, told, dropped)
        error = velocity(parts["unet"], noiser, latents, noise, times, states) - target
        loss = with_coarse(error)
        descend(optimizer, loss, LR, step, spent)
        average.update_parameters(parts)
        losses.append(error.detach().square().mean().item())
        if time.time() - saved > SAVE_SECONDS:
            checkpoint(losses)
            losses, saved = [], time.time()
    if losses:
        checkpoint(losses)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", choices=["text", "oracle"], default="text")
    parser.add_argument("--budget", default="4500", help="minutes (14m) or steps (3000)")
    parser.add_argument("--batch", type=int, default=48)
    args = parser.parse_args()
    train(args.context == "oracle", args.budget, args.batch)
