"""Teaches the mini base's text encoder its words before any denoiser hears them, as CLIP's was.

    python scripts/base_model/pretrain_text.py --budget 3000
    python scripts/base_model/pretrain_text.py --gate              # only measure what is there

Three losses are added: contrast between captions and the latents of their pictures (views of the CT, scenes, clip art),
naming of findings, sides and views by linear layers on the states that the U-Net attends to, and prediction of the next
word in captions and in reports outside the study. What does the teaching is dropped. Goes on from its checkpoint in
data/raw/pretrain/text.pt; starts from the published encoder. The gate: a linear probe on those states reads each
finding and side at an AUROC over 0.95, of unseen captions and of reports outside the study.
"""

from __future__ import annotations

import argparse
import re
import time

import numpy as np
import torch
import torch.nn.functional as F
from pretrain_base import OUT, SEED, WORK, encode
from pretrain_captions import Captions, normalized, outside_reports, sentences, study_sentences
from pretrain_data import VIEWS, load_views, named
from pretrain_loop import DEVICE, autocast, descend, load, row, save, steps, write_log
from pretrain_parts import build_denoiser, load_published, tokenize
from pretrain_pictures import picture_set
from pretrain_words import reword
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from transformers import CLIPTokenizer

from selora.data import findings as terms
from selora.data.iu_reports import Report
from selora.scoring.classifier import label_matrix
from selora.scoring.labels import LABELS

BATCH, OTHERS, REPORTS = 48, 16, 16  # views, scenes and clip art, reports of a step
LR = 1e-3
WIDTH = 128
NAMING, LANGUAGE = 2.0, 0.3  # weights of the losses beside the contrast
REPORTED = 0.5  # weight of the naming of reports beside that of captions
CHECK_SECONDS = 180
LEAST = 8  # positives, for an AUROC worth printing


class LatentTower(nn.Module):
    """Latents (N, 4, 16, 16) to embeddings (N, WIDTH). Each place is an input: sides matter."""

    def __init__(self) -> None:
        super().__init__()
        widths = (6, 64, 96, 128)
        self.body = nn.Sequential()
        for before, after in zip(widths, widths[1:], strict=False):
            self.body += nn.Sequential(nn.Conv2d(before, after, 3, 1, 1), nn.GroupNorm(8, after), nn.SiLU())
            self.body += nn.Sequential(nn.Conv2d(after, after, 3, 1, 1), nn.GroupNorm(8, after), nn.SiLU())
            self.body += nn.Sequential(nn.AvgPool2d(2)) if after < widths[-1] else nn.Sequential()
        self.head = nn.Linear(2 * widths[-1], WIDTH)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        axis = torch.linspace(-1, 1, latents.shape[-1], device=latents.device)
        place = torch.stack(torch.meshgrid(axis, axis, indexing="ij")).expand(len(latents), -1, -1, -1)
        seen = self.body(torch.cat([latents, place], 1))
        return self.head(torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], 1))


class Teacher(nn.Module):
    """The text encoder with all that teaches it."""

    def __init__(self, text_encoder: nn.Module, vocabulary: int) -> None:
        super().__init__()
        self.text_encoder, self.pictures = text_encoder, LatentTower()
        self.project = nn.Linear(WIDTH, WIDTH)
        self.end_names, self.mean_names, self.seen_names = (
            nn.Linear(WIDTH, len(LABELS) + len(VIEWS)) for _ in range(3)
        )
        self.words = nn.Linear(WIDTH, vocabulary)
        self.log_scale = nn.Parameter(torch.tensor(2.5))

    def read(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """States (N, 77, WIDTH), the one at the end mark (N, WIDTH), and their mean (N, WIDTH)."""
        with autocast():
            states = self.text_encoder(ids).last_hidden_state.float()
        return states, states[torch.arange(len(ids)), ends(ids)], states.mean(1)


def ends(ids: torch.Tensor) -> torch.Tensor:
    """The place (N,) of the first end mark, which is also what pads."""
    return (ids == ids[:, -1:]).int().argmax(1)


def report_labels(found: list[Report]) -> torch.Tensor:
    """What the MeSH terms of reports name: (n, LABELS), 0 and 1 as float."""
    rows = []
    for report in found:
        names, sides = [], []
        for term in report.mesh:
            if name := terms.of_term(term):
                names.append(name)
                sides.append(next((s for s in ("left", "right") if s in term), "both" if "bilateral" in term else ""))
        rows.append((names, sides))
    return label_matrix([r[0] for r in rows], [r[1] for r in rows]).float()


# What a text has to hold, for a label of its report to be asked of it: a sentence that the study has too was taken out.
KEYS = {
    "cardiomegaly": "cardi|heart",
    "opacity": "opac|infiltr|consolid|airspace|air space|pneumonia|edema|congest|density",
    "nodule": "nodul|mass|round",
    "calcified granuloma": "granulo|calcif",
    "pleural effusion": "effus|pleural|fluid|costophrenic|blunt",
    "atelectasis": "atelec|volume loss|collaps",
    "hyperinflation": "inflat|expan|emphys|diaphragm|copd|chronic obstructive|lucen",
    "hypoinflation": "volume|inspir|inflat|expan",
    "scarring": "scar|fibro",
    "scoliosis": "scolio|curv",
    "device": "clip|pac|defib|catheter|tube|line|wire|stern|port|surg|device|lead|valve|stent",
}


def halves() -> tuple[list[Report], list[Report]]:
    """The reports outside the study: those to learn from, and those kept for the gate."""
    found = list(outside_reports().values())
    return found[0::2], found[1::2]


def language(forbidden: frozenset[str]) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    """Texts of reports outside the study, less every sentence that stands in one of the study too; their labels (n, L);
    and which of these may be asked for (n, L)."""
    kept, source = [], []
    for report in halves()[0]:
        own = " ".join(s for s in sentences(report.findings) if normalized(s) not in forbidden)
        if own:
            kept.append(own)
            source.append(report)
    labels = report_labels(source)
    told = torch.tensor(
        [[bool(re.search(KEYS[label.split(",")[0]], text.lower())) for label in LABELS] for text in kept]
    )
    return kept, labels, (told | (labels == 0)).float()


def contrast(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, alike: torch.Tensor) -> torch.Tensor:
    """CLIP's loss, both ways; pairs that are alike (n, n) share the target."""
    logits = scale * F.normalize(image) @ F.normalize(text).T
    target = alike / alike.sum(1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def next_word(teacher: Teacher, states: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Cross entropy of each word after the first, up to the end mark."""
    wanted = torch.arange(ids.shape[1] - 1, device=ids.device)[None] < ends(ids)[:, None]  # (N, 76)
    return F.cross_entropy(teacher.words(states[:, :-1][wanted]), ids[:, 1:][wanted])


def build(tokenizer: CLIPTokenizer) -> Teacher:
    torch.manual_seed(SEED)
    parts = build_denoiser(tokenizer)
    load_published(OUT, torch.nn.ModuleDict({"text_encoder": parts["text_encoder"]}))
    return Teacher(parts["text_encoder"], len(tokenizer)).to(DEVICE)


def train(budget: str) -> None:
    forbidden = study_sentences()
    captions, (texts, text_labels, text_asked) = Captions(forbidden), language(forbidden)
    tokenizer = CLIPTokenizer.from_pretrained(OUT / "tokenizer")
    _, other_captions, other_held = picture_set(WORK, SEED)
    cached = encode()
    scale = cached["scaling_factor"]
    others, other_train = cached["latents"], np.flatnonzero(~other_held)
    latents, told, held_out = load_views()
    labels, train_rows, checked = named(told), np.flatnonzero(~held_out), np.flatnonzero(held_out)[:256]
    print(len(train_rows), "views to learn from,", len(texts), "texts outside the study", flush=True)
    likely = np.where(text_labels.any(1), 3.0, 1.0)  # most reports are normal
    likely /= likely.sum()
    positive = labels[train_rows].mean(0).clamp(min=0.01)
    weight = ((1 - positive) / positive).sqrt().to(DEVICE)
    teacher = build(tokenizer)
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=LR, betas=(0.9, 0.98), weight_decay=0.05)
    state = load(WORK / "text.pt", {"step": 0, "seconds": 0.0, "log": []})
    if state["step"]:
        teacher.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])

    def losses_of(rows: np.ndarray, other_rows: np.ndarray, length: float, rng: np.random.Generator) -> tuple:
        own = [captions.caption(told[i]["view"], told[i]["findings"], length * rng.random(), rng) for i in rows]
        ids = tokenize(tokenizer, own + [reword(other_captions[i], rng) for i in other_rows]).to(DEVICE)
        shown = torch.cat([latents[rows], others[other_rows]]).float().to(DEVICE) * scale
        shown = shown + 0.1 * rng.random() * torch.randn_like(shown)
        states, end, mean = teacher.read(ids)
        seen = teacher.pictures(shown)
        keys = [str(sorted(map(str, told[i]["findings"]))) + told[i]["view"] for i in rows] + [
            f"o{i}" for i in other_rows
        ]
        _, keys = np.unique(keys, return_inverse=True)
        alike = torch.from_numpy(keys[:, None] == keys).to(DEVICE).float()
        truth = labels[rows].to(DEVICE)
        viewless = truth.clone()  # a caption may not name its view: only findings are asked of the words
        n = len(rows)
        names = sum(
            F.binary_cross_entropy_with_logits(
                (head(what[:n]))[:, : len(LABELS)], viewless[:, : len(LABELS)], pos_weight=weight[: len(LABELS)]
            )
            for head, what in ((teacher.end_names, end), (teacher.mean_names, mean))
        )
        names = names + F.binary_cross_entropy_with_logits(teacher.seen_names(seen[:n]), truth, pos_weight=weight)
        pairs = contrast(seen, teacher.project(end), teacher.log_scale.exp().clamp(max=100), alike)
        return pairs, names, next_word(teacher, states, ids)

    def checkpoint(losses: list) -> None:
        rng = np.random.default_rng(SEED)
        with torch.no_grad():
            teacher.eval()
            found = [losses_of(part, np.zeros(0, int), 1.0, rng) for part in np.array_split(checked, 4)]
        print(
            "val contrast, naming, words:", np.round(np.mean([[float(v) for v in f] for f in found], 0), 3), flush=True
        )
        state["log"].append(row("text", state, losses, np.mean([float(f[0] + NAMING * f[1]) for f in found])))
        write_log(OUT, "text", state["log"])
        save(WORK / "text.pt", state | {"model": teacher.state_dict(), "optimizer": optimizer.state_dict()})

    losses, saved = [], time.time()
    for step, spent in steps(state, budget):
        rng = np.random.default_rng((SEED, step))
        teacher.train()
        rows, other_rows = rng.choice(train_rows, BATCH), rng.choice(other_train, OTHERS)
        pairs, names, words = losses_of(rows, other_rows, min(1.0, 2 * spent), rng)
        chosen = rng.choice(len(texts), REPORTS, p=likely)
        ids = tokenize(tokenizer, [texts[i] for i in chosen]).to(DEVICE)
        states, end, mean = teacher.read(ids)
        words = words + next_word(teacher, states, ids)
        for head, what in ((teacher.end_names, end), (teacher.mean_names, mean)):
            asked, truth = text_asked[chosen].to(DEVICE), text_labels[chosen].to(DEVICE)
            found = F.binary_cross_entropy_with_logits(
                head(what)[:, : len(LABELS)], truth, asked, pos_weight=weight[: len(LABELS)]
            )
            names = names + REPORTED * found
        descend(optimizer, pairs + NAMING * names + LANGUAGE * words, LR, step, spent)
        losses.append((pairs + NAMING * names).item())
        if time.time() - saved > CHECK_SECONDS:
            checkpoint(losses)
            losses, saved = [], time.time()
    if losses:
        checkpoint(losses)


@torch.no_grad()
def features(teacher: Teacher, tokenizer: CLIPTokenizer, texts: list[str]) -> np.ndarray:
    """What the probe reads, (n, 2 x WIDTH): the state at the end mark and the mean of all 77."""
    parts = [teacher.read(tokenize(tokenizer, texts[i : i + 100]).to(DEVICE)) for i in range(0, len(texts), 100)]
    return torch.cat([torch.cat([end, mean], 1) for _, end, mean in parts]).cpu().numpy()


def probe(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> list[float]:
    """AUROC of a linear probe for each label; nan where there are too few positives."""
    found = []
    for i in range(len(LABELS)):
        if y[:, i].sum() < LEAST or y_test[:, i].sum() < LEAST:
            found.append(float("nan"))
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000, class_weight="balanced"))
        found.append(roc_auc_score(y_test[:, i], model.fit(x, y[:, i]).decision_function(x_test)))
    return found


def gate() -> None:
    """Prints the AUROC of linear probes: captions to captions, captions to reports, reports to reports."""
    tokenizer = CLIPTokenizer.from_pretrained(OUT / "tokenizer")
    teacher = build(tokenizer)
    if (WORK / "text.pt").exists():
        teacher.load_state_dict(load(WORK / "text.pt", {})["model"])
    teacher.eval()
    captions, rng = Captions(study_sentences()), np.random.default_rng(1)
    _, told, held_out = load_views()
    rows = [np.flatnonzero(~held_out)[:6000], np.flatnonzero(held_out)]
    rows[1] = np.tile(rows[1], 4)
    texts = [[captions.caption(told[i]["view"], told[i]["findings"], 1.0, rng) for i in part] for part in rows]
    x, x_test = (features(teacher, tokenizer, part) for part in texts)
    y, y_test = (named([told[i] for i in part])[:, : len(LABELS)].numpy() for part in rows)
    seen, unseen = halves()
    (x_seen, y_seen), (x_out, y_out) = (
        (features(teacher, tokenizer, [r.findings for r in part]), report_labels(part).numpy())
        for part in (seen, unseen)
    )
    columns = {
        "captions": probe(x, y, x_test, y_test),
        "captions to reports": probe(x, y, x_out, y_out),
        "reports": probe(x_seen, y_seen, x_out, y_out),
    }
    print(f"| label | n captions | n reports | {' | '.join(columns)} |\n|---|---:|---:|---:|---:|---:|")
    for i, label in enumerate(LABELS):
        cells = " | ".join(f"{column[i]:.3f}" for column in columns.values())
        print(f"| {label} | {y_test[:, i].sum():.0f} | {y_out[:, i].sum():.0f} | {cells} |")
    print({name: f"{np.nanmean(column):.3f} mean, {np.nanmin(column):.3f} least" for name, column in columns.items()})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="3000", help="minutes (14m) or steps (3000)")
    parser.add_argument("--gate", action="store_true", help="only measure")
    args = parser.parse_args()
    if not args.gate:
        train(args.budget)
    gate()
