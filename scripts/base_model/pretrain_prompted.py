"""Does the prompt reach the picture? Measures the mini base on its own views, by words or by the oracle's tokens.

    python scripts/base_model/pretrain_prompted.py --context oracle
    python scripts/base_model/pretrain_prompted.py --each 12

The gauge is the loss of held-out views, by timesteps, with the right findings, with those of another picture of the
same view, and with none. Then every finding is asked for, and a classifier of the views' latents (the tower that
`pretrain_text.py` trained) says what came: AUROC by finding, and a grid of pictures. The tables go to data/mini-sd.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from PIL import Image
from pretrain_base import OUT, SEED, WORK, load_vae
from pretrain_context import Mixture, averaged, context, velocity
from pretrain_data import FINDINGS, KINDS, named
from pretrain_loop import DEVICE, load
from pretrain_parts import NOISE, build_denoiser
from sklearn.metrics import roc_auc_score
from torch import nn

from selora.diffusion.latents import decode
from selora.files import replacing
from selora.scoring.labels import LABELS, SIDED

BANDS = ((0, 250), (250, 500), (500, 750), (750, 1000))
GAUGED = 256  # held-out views with findings
LEAST = 5  # positives, for an AUROC worth printing


@torch.no_grad()
def gauge(parts: nn.ModuleDict, mixture: Mixture, noiser: DDPMScheduler) -> dict[tuple, tuple[float, float, float]]:
    """Loss of held-out views by band of timesteps: with right findings, with those of another picture of the same view,
    and with none. The same noise and times at every call."""
    rng, fixed = np.random.default_rng(SEED), torch.Generator().manual_seed(SEED)
    rows = [i for i in np.flatnonzero(mixture.held_out) if mixture.told[i]["findings"]][:GAUGED]
    right = [mixture.told[i] for i in rows]
    wrong = []
    for one in right:
        names = {(f["name"], f["side"]) for f in one["findings"]}
        pool = [
            r for r in right if r["view"] == one["view"] and not names & {(f["name"], f["side"]) for f in r["findings"]}
        ]
        wrong.append(pool[rng.integers(len(pool))] if pool else one | {"findings": []})
    none = [one | {"findings": []} for one in right]
    latents = mixture.latents[rows].float().to(DEVICE) * mixture.scale
    noise, share = torch.randn(latents.shape, generator=fixed), torch.rand(len(rows), generator=fixed)
    spoken = [
        [mixture.captions.caption(t["view"], t["findings"], 0, rng, 1.0) for t in told] for told in (right, wrong)
    ]
    spoken.append([mixture.captions.caption(t["view"], [], 0, rng, 1.0) for t in none])
    found = {}
    for low, high in BANDS:
        times = (low + share * (high - low)).long().to(DEVICE)
        losses = []
        for texts, told in zip(spoken, (right, wrong, none), strict=True):
            total = 0.0
            for part in torch.arange(len(rows)).split(64):
                at = part.tolist()
                states = context(parts, mixture, [texts[i] for i in at], [told[i] for i in at], np.zeros(len(at), bool))
                own = (latents[part], noise[part].to(DEVICE), times[part])
                error = velocity(parts["unet"], noiser, *own, states) - noiser.get_velocity(*own)
                total += error.square().mean().item() * len(at)
            losses.append(total / len(rows))
        found[low, high] = tuple(losses)
    return found


def write_gauge(path: Path, stage: str, rows: list[list]) -> None:
    """Replace a stage's rows in the table of the gauge: (stage, samples seen, what `gauge` gave)."""
    others = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            others = [line for line in list(csv.reader(file))[1:] if line[0] != stage]
    body = [
        [stage, samples, low, high, *(f"{loss:.4f}" for loss in losses)]
        for stage, samples, bands in rows
        for (low, high), losses in bands.items()
    ]
    for line in body[-len(BANDS) :]:
        print(*line, flush=True)
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        head = ["stage", "samples", "from", "to", "right", "wrong", "none"]
        csv.writer(file, lineterminator="\n").writerows([head, *others, *body])


def asked(each: int) -> list[dict]:
    """Findings to ask for, `each` times: every finding of one side alone, and twice as many pictures of none."""
    told = []
    for name in FINDINGS:
        for side in ("left", "right") if name in SIDED else ("",):
            kinds = KINDS if name == "device" else ("",)
            for i in range(each):
                finding = {"name": name, "side": side, "zone": "", "severity": 2, "kind": kinds[i % len(kinds)]}
                told.append({"view": "coronal", "findings": [finding]})
    return told + [{"view": "coronal", "findings": []}] * (4 * each)


@torch.no_grad()
def sample(parts: nn.ModuleDict, mixture: Mixture, told: list[dict], guidance: float, steps: int = 20) -> torch.Tensor:
    """Latents (n, 4, 16, 16) of views asked for; the i-th from noise of its own, whatever the model."""
    solver = DPMSolverMultistepScheduler(
        **NOISE, timestep_spacing="trailing", algorithm_type="sde-dpmsolver++", use_karras_sigmas=True
    )
    rng, made = np.random.default_rng(SEED), []
    texts = [mixture.captions.caption(t["view"], t["findings"], 0, rng, 1.0) for t in told]
    for part in torch.arange(len(told)).split(24):
        draws = [torch.Generator().manual_seed(int(i)) for i in part]
        latents = torch.stack([torch.randn(4, 16, 16, generator=draw) for draw in draws]).to(DEVICE)
        at = part.tolist()
        both = [
            context(parts, mixture, [texts[i] for i in at], [told[i] for i in at], np.full(len(at), empty))
            for empty in (True, False)
        ]
        solver.set_timesteps(steps)
        for t in solver.timesteps:
            velocity = parts["unet"](torch.cat([latents, latents]), t.to(DEVICE), torch.cat(both)).sample
            away, towards = velocity.chunk(2)
            latents = solver.step(away + guidance * (towards - away), t, latents, generator=draws).prev_sample
        made.append(latents)
    return torch.cat(made)


def write_prompted(path: Path, stage: str, guidance: float, each: int, found: dict[str, list[float]]) -> None:
    """Replace a stage's rows in the table of what came of asking; prints its means."""
    others = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            others = [line for line in list(csv.reader(file))[1:] if line[0] != stage]
    rows = [
        [stage, guidance, each, label, *(f"{column[i]:.3f}" for column in found.values())]
        for i, label in enumerate(LABELS)
    ]
    for line in rows:
        print(*line)
    print({name: round(float(np.nanmean(column)), 3) for name, column in found.items()})
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        head = ["stage", "guidance", "pictures_each", "finding", "auroc_views", "auroc_asked"]
        csv.writer(file, lineterminator="\n").writerows([head, *others, *rows])


@torch.no_grad()
def prompted(oracle: bool, guidance: float, each: int) -> None:
    """Prints AUROC by finding of pictures asked for, in the eyes of the tower that `pretrain_text.py` trained on the
    latents of views; writes a grid of pictures."""
    from pretrain_text import Teacher

    stage = "oracle" if oracle else "unet"
    mixture = Mixture(oracle)
    parts = averaged(mixture, oracle)
    teacher = Teacher(build_denoiser(mixture.tokenizer)["text_encoder"], len(mixture.tokenizer)).to(DEVICE).eval()
    teacher.load_state_dict(load(WORK / "text.pt", {})["model"])
    told = asked(each)
    latents = sample(parts, mixture, told, guidance)
    held = [i for i in np.flatnonzero(mixture.held_out) if "coronal" in mixture.told[i]["view"]]
    table = {
        "views": (mixture.latents[held].float() * mixture.scale, [mixture.told[i] for i in held]),
        "asked for": (latents, told),
    }
    found = {}
    for name, (shown, what) in table.items():
        truth = named(what)[:, : len(LABELS)].numpy()
        scores = teacher.seen_names(teacher.pictures(shown.to(DEVICE))).cpu().numpy()
        found[name] = [
            roc_auc_score(truth[:, i], scores[:, i]) if truth[:, i].sum() >= LEAST else float("nan")
            for i in range(len(LABELS))
        ]
    write_prompted(OUT / "prompted.csv", stage, guidance, each, found)
    vae = load_vae()
    pictures = decode(vae, latents[:: max(1, each // 6)] / mixture.scale * vae.config.scaling_factor, 16)
    rows = [np.concatenate(list(pictures[i : i + 12, ..., 0]), 1) for i in range(0, len(pictures) - 11, 12)]
    Image.fromarray(np.concatenate(rows)).save(WORK / f"{stage}_{guidance:g}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", choices=["text", "oracle"], default="text")
    parser.add_argument("--each", type=int, default=12, help="pictures of each finding")
    parser.add_argument("--guidance", type=float, default=3.0)
    args = parser.parse_args()
    prompted(args.context == "oracle", args.guidance, args.each)
