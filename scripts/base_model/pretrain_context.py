"""What the U-Net is trained and measured on: captioned pictures, and what it attends to, words or oracle's tokens."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import DDPMScheduler
from diffusers.models.attention_processor import AttnProcessor
from pretrain_base import OUT, SEED, WORK, encode
from pretrain_captions import NAMED_VIEW, Captions, study_sentences
from pretrain_data import FINDINGS, KINDS, VIEWS, load_views
from pretrain_loop import DEVICE, HALF, autocast, load
from pretrain_parts import build_denoiser, load_published, tokenize
from pretrain_pictures import picture_set
from pretrain_words import reword
from torch import nn
from transformers import CLIPTokenizer

VIEWS_SHARE = 0.6  # of a batch; the rest is scenes and clip art: a general model that has seen medical pictures
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


class Mixture:
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


def build(mixture: Mixture, oracle: bool) -> nn.ModuleDict:
    """U-Net and context; the text encoder is the one that `pretrain_text.py` has taught, where there is one."""
    torch.manual_seed(SEED)
    parts = build_denoiser(mixture.tokenizer)
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


def context(parts: nn.ModuleDict, mixture: Mixture, texts: list[str], told: list, dropped: np.ndarray) -> torch.Tensor:
    """What the U-Net attends to, (N, 77 or TOKENS, WIDTH); dropped (N,): those that get the empty prompt."""
    encoder = parts["text_encoder"]
    if isinstance(encoder, Oracle):
        return encoder([None if d else t for t, d in zip(told, dropped, strict=True)])
    ids = tokenize(mixture.tokenizer, ["" if d else t for t, d in zip(texts, dropped, strict=True)])
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


def averaged(mixture: Mixture, oracle: bool) -> nn.ModuleDict:
    """The parts with the averaged weights of the checkpoint."""
    parts = build(mixture, oracle)
    kept = load(WORK / f"{'oracle' if oracle else 'unet'}.pt", {})["average"]
    parts.load_state_dict({k.removeprefix("module."): v for k, v in kept.items() if k != "n_averaged"})
    return parts.eval()
