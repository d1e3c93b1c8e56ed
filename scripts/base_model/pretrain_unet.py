"""Trains the mini base's U-Net on views of the CT, scenes and clip art, after its text encoder has learned its words.

    python scripts/base_model/pretrain_unet.py --context oracle --budget 2083   # a learned token per finding, no words
    python scripts/base_model/pretrain_unet.py --budget 4500                    # captions, the text encoder frozen
    python scripts/base_model/pretrain_unet.py --prompted 12                    # what comes of asking for findings

The oracle says how well the pictures can be followed at all, and then teaches: where a caption says what a picture does
not show, the oracle's answer is what is learned. The gauge is the loss of held-out views with the right findings, with
those of another picture of the same view, and with none. Goes on from its checkpoint in data/raw/pretrain; starts from
the published U-Net, or from the oracle's where there is one.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image
from pretrain_base import EMA, OUT, SEED, WORK, encode, load_vae, with_coarse
from pretrain_captions import NAMED_VIEW, Captions, study_sentences
from pretrain_data import FINDINGS, KINDS, VIEWS, load_views, named
from pretrain_loop import DEVICE, HALF, autocast, descend, load, row, save, steps, write_log
from pretrain_parts import NOISE, build_denoiser, load_published, tokenize
from pretrain_pictures import picture_set
from pretrain_words import reword
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.optim.swa_utils import AveragedModel
from transformers import CLIPTokenizer

from selora.diffusion.latents import decode
from selora.scoring.labels import LABELS, SIDED

LR = 8e-4  # high, as a short budget asks for; warm-up and cosine keep it stable
VIEWS_SHARE = 0.6  # of a batch; the rest is scenes and clip art: a general model that has seen medical pictures
TAUGHT_SHARE = 0.3  # of a batch; half of the views
EARLY_SHARE, EARLY = 0.5, (450, 1000)  # half the times are drawn where findings are decided
DROP_CAPTION = 0.1  # the empty prompt, for classifier-free guidance, as Stable Diffusion
SAVE_SECONDS = 300
BANDS = ((0, 250), (250, 500), (500, 750), (750, 1000))
GAUGED = 256  # held-out views with findings
WIDTH, TOKENS = 128, 12  # of the oracle's context


class Oracle(nn.Module):
    """Findings as tokens of their own: (N, TOKENS, WIDTH). No words are in the way."""

    def __init__(self) -> None:
        super().__init__()
        names = [*VIEWS, *KINDS]
        names += [(f, part) for f in FINDINGS for part in ("", "left", "right", 0, 1, 2)]  # its sides, its severity
        self.number = {name: i for i, name in enumerate(names, start=1)}
        self.table = nn.Embedding(1 + len(names), WIDTH)

    def forward(self, told: list[dict | None]) -> torch.Tensor:
        """The context of views; None is the empty prompt."""
        ids = torch.zeros(len(told), TOKENS, dtype=torch.long)
        for i, one in enumerate(told):
            named = [one["view"]] if one else []
            for f in one["findings"] if one else []:
                sides = ("left", "right") if f["side"] == "both" else (f["side"],)
                named += [(f["name"], part) for part in (*sides, f["severity"])] + [f["kind"]] * bool(f["kind"])
            numbers = [self.number[name] for name in named][:TOKENS]
            ids[i, : len(numbers)] = torch.tensor(numbers, dtype=torch.long)
        return self.table(ids.to(DEVICE))


class Data:
    """All pictures and captions of the training, and how a batch of them is drawn."""

    def __init__(self, oracle: bool) -> None:
        self.tokenizer = CLIPTokenizer.from_pretrained(OUT / "tokenizer")
        self.captions = Captions(study_sentences())
        cached = encode()
        self.scale = cached["scaling_factor"]
        self.latents, self.told, self.held_out = load_views()
        self.view_rows = np.flatnonzero(~self.held_out)
        self.share = 1.0 if oracle else VIEWS_SHARE
        _, self.other_captions, other_held = picture_set(WORK, SEED)
        self.other_latents, self.other_rows = cached["latents"], np.flatnonzero(~other_held)
        self.other_held = np.flatnonzero(other_held)[::2]
        # a picture with findings counts thrice as often as one without
        weight = np.array([3.0 if self.told[i]["findings"] else 1.0 for i in self.view_rows])
        self.weight = weight / weight.sum()

    def batch(
        self, size: int, length: float, rng: np.random.Generator, taught: int = 0
    ) -> tuple[torch.Tensor, list[str], list]:
        """Latents (size, 4, 16, 16), captions, and what the views among them are said to show (None for others).

        The first `taught` of the views are said to show what another one shows: for the oracle to say what then.
        """
        n = round(size * self.share)
        rows, others = rng.choice(self.view_rows, n, p=self.weight), rng.choice(self.other_rows, size - n)
        told = [self.told[i] for i in rows]
        told[:taught] = [
            t | {"findings": other["findings"]} for t, other in zip(told[:taught], told[::-1], strict=False)
        ]
        texts = [
            self.captions.caption(
                t["view"], t["findings"], length * rng.random(), rng, 1.0 if i < taught else NAMED_VIEW
            )
            for i, t in enumerate(told)
        ]
        texts += [reword(self.other_captions[i], rng) for i in others]
        latents = torch.cat([self.latents[rows], self.other_latents[others]]).float() * self.scale
        return latents.to(DEVICE), texts, [*told, *[None] * (size - n)]


def build(data: Data, oracle: bool) -> nn.ModuleDict:
    """U-Net and context; the text encoder is the one that `pretrain_text.py` has taught, where there is one."""
    torch.manual_seed(SEED)
    parts = build_denoiser(data.tokenizer)
    load_published(OUT, parts)
    if oracle:
        parts["text_encoder"] = Oracle()
    else:
        if (WORK / "oracle.pt").exists():  # its U-Net knows the views already
            averaged = load(WORK / "oracle.pt", {})["average"]
            parts["unet"].load_state_dict(
                {k.removeprefix("module.unet."): v for k, v in averaged.items() if k.startswith("module.unet.")}
            )
        if (WORK / "text.pt").exists():
            taught = load(WORK / "text.pt", {})["model"]
            parts["text_encoder"].load_state_dict(
                {k.removeprefix("text_encoder."): v for k, v in taught.items() if k.startswith("text_encoder.")}
            )
        parts["text_encoder"].requires_grad_(False)
    if HALF and DEVICE.type == "cpu":  # fused attention and channels-last group norm have no fast bfloat16 there
        parts["unet"].set_attn_processor(AttnProcessor())
        return parts
    return parts.to(DEVICE, memory_format=torch.channels_last)


def context(parts: nn.ModuleDict, data: Data, texts: list[str], told: list, dropped: np.ndarray) -> torch.Tensor:
    """What the U-Net attends to, (N, 77 or TOKENS, WIDTH); dropped (N,): those that get the empty prompt."""
    encoder = parts["text_encoder"]
    if isinstance(encoder, Oracle):
        return encoder([None if d else t for t, d in zip(told, dropped, strict=True)])
    ids = tokenize(data.tokenizer, ["" if d else t for t, d in zip(texts, dropped, strict=True)])
    with autocast():
        return encoder(ids.to(DEVICE)).last_hidden_state.float()


def velocity(
    unet: nn.Module,
    noiser: DDPMScheduler,
    latents: torch.Tensor,
    noise: torch.Tensor,
    t: torch.Tensor,
    states: torch.Tensor,
) -> torch.Tensor:
    """The velocity (N, 4, 16, 16) that a U-Net predicts. states: what it attends to, (N, tokens, WIDTH)."""
    with autocast():
        return unet(noiser.add_noise(latents, noise, t), t, states).sample.float()


def train(oracle: bool, budget: str, batch: int) -> None:
    data, stage = Data(oracle), "oracle" if oracle else "unet"
    noiser, parts = DDPMScheduler(**NOISE), build(data, oracle)
    trained = [p for p in parts.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LR, betas=(0.9, 0.99), weight_decay=0.01)
    average = AveragedModel(
        parts, avg_fn=lambda mean, new, n: torch.lerp(mean, new, max(1 - EMA, (1 / (n + 1)) ** 0.75))
    )
    state = load(WORK / f"{stage}.pt", {"step": 0, "seconds": 0.0, "log": []})
    if state["step"]:
        taught = parts["text_encoder"].state_dict()
        parts.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.load_state_dict(state["average"])
        if not oracle:  # the words as they are now
            parts["text_encoder"].load_state_dict(taught)
            average.module["text_encoder"].load_state_dict(taught)
    # The oracle's velocity for a prompt has no noise of its own: it teaches more than a picture does.
    teacher = averaged(data, True) if not oracle and (WORK / "oracle.pt").exists() else None
    taught = round(batch * TAUGHT_SHARE) if teacher else 0
    print(len(data.view_rows), "views", flush=True)

    def checkpoint(losses: list) -> None:
        bands = gauge(average.module, data, noiser)
        print_bands(bands)
        state["log"].append(row(stage, state, losses, np.mean([found[0] for found in bands.values()])))
        write_log(OUT, stage, state["log"])
        save(
            WORK / f"{stage}.pt",
            state | {"model": parts.state_dict(), "optimizer": optimizer.state_dict(), "average": average.state_dict()},
        )

    losses, saved = [], time.time()
    for step, spent in steps(state, budget):
        rng = np.random.default_rng((SEED, step))
        latents, texts, told = data.batch(batch, min(1.0, 2 * spent), rng, taught)
        low = np.where(rng.random(batch) < EARLY_SHARE, EARLY[0], 0)
        times = torch.from_numpy(rng.integers(low, 1000)).to(DEVICE)
        dropped, noise = rng.random(batch) < DROP_CAPTION, torch.randn(latents.shape).to(DEVICE)
        target = noiser.get_velocity(latents, noise, times)
        if taught:
            first = (latents[:taught], noise[:taught], times[:taught])
            with torch.no_grad():
                states = context(teacher, data, texts[:taught], told[:taught], dropped[:taught])
                target[:taught] = velocity(teacher["unet"], noiser, *first, states)
        states = context(parts, data, texts, told, dropped)
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


@torch.no_grad()
def gauge(parts: nn.ModuleDict, data: Data, noiser: DDPMScheduler) -> dict[tuple, tuple[float, float, float]]:
    """Loss of held-out views by band of timesteps: with right findings, with those of another picture of the same view,
    and with none. The same noise and times at every call."""
    rng, fixed = np.random.default_rng(SEED), torch.Generator().manual_seed(SEED)
    rows = [i for i in np.flatnonzero(data.held_out) if data.told[i]["findings"]][:GAUGED]
    right = [data.told[i] for i in rows]
    wrong = []
    for one in right:
        names = {(f["name"], f["side"]) for f in one["findings"]}
        pool = [
            r for r in right if r["view"] == one["view"] and not names & {(f["name"], f["side"]) for f in r["findings"]}
        ]
        wrong.append(pool[rng.integers(len(pool))] if pool else one | {"findings": []})
    none = [one | {"findings": []} for one in right]
    latents = data.latents[rows].float().to(DEVICE) * data.scale
    noise, share = torch.randn(latents.shape, generator=fixed), torch.rand(len(rows), generator=fixed)
    spoken = [[data.captions.caption(t["view"], t["findings"], 0, rng, 1.0) for t in told] for told in (right, wrong)]
    spoken.append([data.captions.caption(t["view"], [], 0, rng, 1.0) for t in none])
    found = {}
    for low, high in BANDS:
        times = (low + share * (high - low)).long().to(DEVICE)
        losses = []
        for texts, told in zip(spoken, (right, wrong, none), strict=True):
            total = 0.0
            for part in torch.arange(len(rows)).split(64):
                at = part.tolist()
                states = context(parts, data, [texts[i] for i in at], [told[i] for i in at], np.zeros(len(at), bool))
                own = (latents[part], noise[part].to(DEVICE), times[part])
                error = velocity(parts["unet"], noiser, *own, states) - noiser.get_velocity(*own)
                total += error.square().mean().item() * len(at)
            losses.append(total / len(rows))
        found[low, high] = tuple(losses)
    return found


def print_bands(bands: dict[tuple, tuple[float, float, float]]) -> None:
    print("timesteps: right, wrong, none")
    for (low, high), found in bands.items():
        print(f"{low}-{high}: " + ", ".join(f"{loss:.4f}" for loss in found), flush=True)


def averaged(data: Data, oracle: bool) -> nn.ModuleDict:
    """The parts with the averaged weights of the checkpoint."""
    parts = build(data, oracle)
    kept = load(WORK / f"{'oracle' if oracle else 'unet'}.pt", {})["average"]
    parts.load_state_dict({k.removeprefix("module."): v for k, v in kept.items() if k != "n_averaged"})
    return parts.eval()


# ---- does the prompt reach the picture? -----------------------------------------------------------------------------


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
def sample(parts: nn.ModuleDict, data: Data, told: list[dict], guidance: float, steps: int = 20) -> torch.Tensor:
    """Latents (n, 4, 16, 16) of views asked for; the i-th from noise of its own, whatever the model."""
    solver = DPMSolverMultistepScheduler(
        **NOISE, timestep_spacing="trailing", algorithm_type="sde-dpmsolver++", use_karras_sigmas=True
    )
    rng, made = np.random.default_rng(SEED), []
    texts = [data.captions.caption(t["view"], t["findings"], 0, rng, 1.0) for t in told]
    for part in torch.arange(len(told)).split(24):
        draws = [torch.Generator().manual_seed(int(i)) for i in part]
        latents = torch.stack([torch.randn(4, 16, 16, generator=draw) for draw in draws]).to(DEVICE)
        at = part.tolist()
        both = [
            context(parts, data, [texts[i] for i in at], [told[i] for i in at], np.full(len(at), empty))
            for empty in (True, False)
        ]
        solver.set_timesteps(steps)
        for t in solver.timesteps:
            velocity = parts["unet"](torch.cat([latents, latents]), t.to(DEVICE), torch.cat(both)).sample
            away, towards = velocity.chunk(2)
            latents = solver.step(away + guidance * (towards - away), t, latents, generator=draws).prev_sample
        made.append(latents)
    return torch.cat(made)


@torch.no_grad()
def prompted(oracle: bool, guidance: float, each: int) -> None:
    """Prints AUROC by finding of pictures asked for, in the eyes of the tower that `pretrain_text.py` trained on the
    latents of views; writes a grid of pictures."""
    from pretrain_text import Teacher

    stage = "oracle" if oracle else "unet"
    data = Data(oracle)
    parts = averaged(data, oracle)
    teacher = Teacher(build_denoiser(data.tokenizer)["text_encoder"], len(data.tokenizer)).to(DEVICE).eval()
    teacher.load_state_dict(load(WORK / "text.pt", {})["model"])
    told = asked(each)
    latents = sample(parts.eval(), data, told, guidance)
    held = [i for i in np.flatnonzero(data.held_out) if "coronal" in data.told[i]["view"]]
    table = {
        "real views": (data.latents[held].float() * data.scale, [data.told[i] for i in held]),
        "asked for": (latents, told),
    }
    found = {}
    for name, (shown, what) in table.items():
        truth = named(what)[:, : len(LABELS)].numpy()
        scores = teacher.seen_names(teacher.pictures(shown.to(DEVICE))).cpu().numpy()
        found[name] = [
            roc_auc_score(truth[:, i], scores[:, i]) if truth[:, i].sum() >= 5 else float("nan")
            for i in range(len(LABELS))
        ]
    print("| finding | " + " | ".join(found) + " |")
    for i, label in enumerate(LABELS):
        print(f"| {label} | " + " | ".join(f"{column[i]:.3f}" for column in found.values()) + " |")
    print({name: round(float(np.nanmean(column)), 3) for name, column in found.items()})
    pictures = decode(load_vae(), latents[:: max(1, each // 6)] / data.scale * load_vae().config.scaling_factor, 16)
    rows = [np.concatenate(list(pictures[i : i + 12, ..., 0]), 1) for i in range(0, len(pictures) - 11, 12)]
    Image.fromarray(np.concatenate(rows)).save(WORK / f"{stage}_{guidance:g}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", choices=["text", "oracle"], default="text")
    parser.add_argument("--budget", default="3000", help="minutes (14m) or steps (3000)")
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--prompted", type=int, default=0, help="only sample so many pictures of each finding")
    parser.add_argument("--gauge", action="store_true", help="only measure the checkpoint")
    parser.add_argument("--guidance", type=float, default=3.0)
    args = parser.parse_args()
    if args.gauge:
        data = Data(args.context == "oracle")
        print_bands(gauge(averaged(data, args.context == "oracle"), data, DDPMScheduler(**NOISE)))
    elif args.prompted:
        prompted(args.context == "oracle", args.guidance, args.prompted)
    else:
        train(args.context == "oracle", args.budget, args.batch)
