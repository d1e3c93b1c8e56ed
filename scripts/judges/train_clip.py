"""Trains data/mini-clip, a small CLIP of rendered radiographs and report text, and tests it on the study's test split.

    python scripts/radiographs/render_radiographs.py --set iu-outside --seed 2000 --out RENDERS
    python scripts/judges/train_clip.py RENDERS/iu-outside --budget 1300
    python scripts/judges/train_clip.py --evaluate

It learns from renders outside the study alone. A vision transformer cannot learn from so few pictures what to look for,
so its patches are taught the feature map of a convolutional network (a classifier of findings, trained first on the
same renders), and both embeddings have to tell the findings; what does the teaching is dropped at the end. Goes on from
its checkpoint in data/raw/clip; to start over, remove that folder. One CUDA device is used where there is one. A
finished run is written and evaluated. Takes about half an hour on one core.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from train_findings import NOISE, augment, fit, labels_of, pictures, read_renders
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from selora.data import Example, load_examples, open_image
from selora.files import DATA, RAW
from selora.scoring.classifier import SIZE, Classifier
from selora.scoring.labels import LABELS

sys.path.append(str(Path(__file__).resolve().parents[1] / "base_model"))
from pretrain_loop import DEVICE, autocast, descend, load, row, save, steps, write_log  # noqa: E402

WORK = RAW / "clip"  # teacher and checkpoint: not tracked
OUT = DATA / "mini-clip"  # the model and its log: tracked
TOKENIZER = DATA / "mini-sd" / "tokenizer"  # knows the reports' words
SEED = 0

BATCH = 64  # most of a larger one would be normal radiographs, which are no negatives of one another
LR = 1e-3  # for a model of this size
WIDTH, HEADS, PATCH, PROJECTION = 128, 4, 16, 128  # 16 px: 64 patches, as many as the teacher's map has places
IMAGE_LAYERS, TEXT_LAYERS = 4, 2  # the text says few things in few words
START = 0.5  # scale of the first patch and position embeddings: well above the default, so that both are heard
GRAIN = NOISE**2 / 3  # variance of the noise in training; components below it are not whitened fully
LABEL_WEIGHT, MAP_WEIGHT = 2.0, 5.0  # makes the three losses about as large
DROP_SENTENCE = 0.1  # seldom, since a finding may go with it
CHECK_SECONDS = 120  # between validations, each with a checkpoint
RESAMPLES = 2000  # of the bootstrap; its interval then moves in the third digit only


# ---- training -------------------------------------------------------------------------------------------------------


def build_model(tokenizer: CLIPTokenizer) -> CLIPModel:
    shared = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": HEADS}
    marks = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = {"vocab_size": len(tokenizer), "num_hidden_layers": TEXT_LAYERS, **marks}
    vision = {"image_size": SIZE, "patch_size": PATCH, "num_hidden_layers": IMAGE_LAYERS}
    return CLIPModel(CLIPConfig(text_config=shared | text, vision_config=shared | vision, projection_dim=PROJECTION))


@torch.no_grad()
def ease_start(vision: nn.Module, images: torch.Tensor) -> None:
    """Start the patches at their whitened principal components and the positions at waves over rows and columns.

    Next to the brightness of a patch a granuloma is faint: with random weights it is not seen in the steps there are.
    images: (n, 1, 128, 128).
    """
    patches = F.unfold(images, PATCH, stride=PATCH).transpose(1, 2).reshape(-1, PATCH**2)
    variance, components = torch.linalg.eigh(torch.cov(patches.T))  # in rising order
    rotation = torch.linalg.qr(torch.randn(WIDTH, WIDTH))[0]
    kernels = (rotation * (variance[-WIDTH:] + GRAIN).rsqrt()) @ components[:, -WIDTH:].T
    kernels = kernels.reshape(WIDTH, 1, PATCH, PATCH).expand(-1, 3, -1, -1) / 3  # the channels of grey are the same
    vision.embeddings.patch_embedding.weight.copy_(START * kernels)

    side = SIZE // PATCH
    waves = 4 * math.pi * 100 ** -torch.linspace(0, 1, WIDTH // 4)  # from two periods over the image to a slope
    angles = torch.linspace(0, 1, side)[:, None] * waves
    code = torch.cat([angles.sin(), angles.cos()], 1)
    grid = torch.cat([code[:, None].expand(-1, side, -1), code.expand(side, -1, -1)], 2)
    vision.embeddings.position_embedding.weight[1:].copy_(START * grid.flatten(0, 1))


def build_teacher(images: torch.Tensor, labels: torch.Tensor) -> Classifier:
    """A classifier of findings that has seen the renders alone; trained once and kept beside the checkpoint."""
    if not (WORK / "teacher.pt").exists():
        save(WORK / "teacher.pt", fit(images, labels).state_dict())
    teacher = Classifier()
    teacher.load_state_dict(load(WORK / "teacher.pt", {}))
    return teacher.eval().requires_grad_(False).to(DEVICE)


def reworded(text: str, rng: np.random.Generator) -> str:
    """The sentences of a report in another order, a few left out: they are independent statements."""
    sentences = re.split(r"(?<=\.)\s+", text)
    kept = [s for s in sentences if rng.random() >= DROP_SENTENCE] or sentences
    return " ".join(rng.permutation(kept).tolist())


def groups(examples: Sequence[Example]) -> np.ndarray:
    """The same number (n,) for examples that show the same findings in the same places."""
    shown = [tuple(sorted(zip(e.findings, e.places, strict=True))) for e in examples]
    return np.unique([str(s) for s in shown], return_inverse=True)[1]


def alike(examples: Sequence[Example]) -> torch.Tensor:
    """Which pairs (n, n) of examples show the same or have the same text: they are no negatives of each other."""
    shown, text = groups(examples), np.unique([e.prompt.lower() for e in examples], return_inverse=True)[1]
    return torch.from_numpy((shown[:, None] == shown) | (text[:, None] == text)).to(DEVICE)


class Pupil(nn.Module):
    """A CLIPModel with the heads that help it to learn."""

    def __init__(self, model: CLIPModel) -> None:
        super().__init__()
        self.model = model
        self.image_labels, self.text_labels = nn.Linear(PROJECTION, len(LABELS)), nn.Linear(PROJECTION, len(LABELS))
        self.map = nn.Linear(WIDTH, 96)

    def forward(self, images: torch.Tensor, tokens: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Image and text embeddings (n, PROJECTION) and, from the patches, the teacher's map (n, 64, 96).
        images: (n, 1, 128, 128)."""
        seen = self.model.vision_model(images.expand(-1, 3, -1, -1))
        read = self.model.text_model(**tokens)
        image, text = self.model.visual_projection(seen.pooler_output), self.model.text_projection(read.pooler_output)
        return image, text, self.map(seen.last_hidden_state[:, 1:])


def contrastive_loss(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """CLIP's loss, both ways, where all pairs that are alike (n, n) share the target."""
    logits = scale * F.normalize(image) @ F.normalize(text).T
    target = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def train(folders: Sequence[Path], budget: str) -> None:
    examples, checks = read_renders(folders), load_examples("iu-drr", "val")
    images, labels = pictures(examples), labels_of(examples)
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    teacher = build_teacher(images, labels)
    weight = ((len(labels) - labels.sum(0)) / labels.sum(0)).sqrt().to(DEVICE)
    torch.manual_seed(SEED)
    pupil = Pupil(build_model(tokenizer))
    ease_start(pupil.model.vision_model, images[::8])
    pupil.to(DEVICE)
    optimizer = torch.optim.AdamW(pupil.parameters(), lr=LR, betas=(0.9, 0.98), weight_decay=0.05)
    state = load(WORK / "clip.pt", {"step": 0, "seconds": 0.0, "log": []})
    if state["step"]:
        pupil.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])

    def tokens(texts: list[str]) -> dict[str, torch.Tensor]:
        return tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(DEVICE)

    def scale() -> torch.Tensor:
        return pupil.model.logit_scale.exp().clamp(max=100)

    check_images, check_tokens, check_alike = pictures(checks), tokens([e.prompt for e in checks]), alike(checks)

    def checkpoint() -> None:
        with torch.no_grad():
            image, text, _ = pupil.eval()(check_images.to(DEVICE), check_tokens)
            checked = contrastive_loss(image, text, scale(), check_alike).item()
        state["log"].append(row("clip", state, losses, checked))
        write_log(OUT, "clip", state["log"])
        save(WORK / "clip.pt", state | {"model": pupil.state_dict(), "optimizer": optimizer.state_dict()})

    losses, saved = [], time.time()
    for step, spent in steps(state, budget):
        rng = np.random.default_rng((SEED, step))
        chosen = rng.choice(len(examples), BATCH, replace=False)
        batch = [examples[i] for i in chosen]
        shown, truth = augment(images[chosen].to(DEVICE)), labels[chosen].to(DEVICE)
        with torch.no_grad():
            wanted = teacher.features(shown).flatten(2).transpose(1, 2)
        with autocast():
            image, text, seen = pupil.train()(shown, tokens([reworded(e.prompt, rng) for e in batch]))
            told = [pupil.image_labels(image), pupil.text_labels(text)]
        pairs = contrastive_loss(image.float(), text.float(), scale(), alike(batch))
        named = sum(F.binary_cross_entropy_with_logits(t.float(), truth, pos_weight=weight) for t in told)
        taught = F.mse_loss(seen.float(), wanted)
        descend(optimizer, pairs + LABEL_WEIGHT * named + MAP_WEIGHT * taught, LR, step, spent)
        losses.append(pairs.item())
        if time.time() - saved > CHECK_SECONDS:
            checkpoint()
            losses, saved = [], time.time()
    if losses:
        checkpoint()


def export() -> None:
    """Write data/mini-clip from the checkpoint: fp16, marked so that a plain `from_pretrained` gives fp32."""
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    pupil = Pupil(build_model(tokenizer))
    pupil.load_state_dict(torch.load(WORK / "clip.pt", map_location="cpu", weights_only=True)["model"])
    pupil.model.half().save_pretrained(WORK / "export")
    pictures_in = CLIPImageProcessor(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=[0.5] * 3,  # pixels in -1..1, as in training to within half a grey level
        image_std=[0.5] * 3,
    )
    CLIPProcessor(pictures_in, tokenizer).save_pretrained(WORK / "export")
    config = WORK / "export/config.json"  # transformers loads in the dtype written here
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")
    for file in (WORK / "export").iterdir():
        file.chmod(0o644)  # safetensors makes files only their owner can read
        os.replace(file, OUT / file.name)  # no reader ever sees half a file


# ---- evaluation -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def cosines(folder: Path, examples: Sequence[Example]) -> torch.Tensor:
    """Cosine similarity (n images, n texts) of examples, by the model in a folder, loaded as any CLIP is."""
    model, processor = CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)
    images, texts = [open_image(e.path, SIZE) for e in examples], [e.prompt for e in examples]
    batch = processor(text=texts, images=images, padding=True, truncation=True, return_tensors="pt")
    found = model(**batch)
    return F.normalize(found.image_embeds) @ F.normalize(found.text_embeds).T


def recall(similarity: torch.Tensor, right: torch.Tensor, k: int) -> float:
    """Share of the rows whose k highest similarities hold a right one. similarity, right (bool): (n, n)."""
    return right.gather(1, similarity.topk(k).indices).any(1).float().mean().item()


def chance(right: torch.Tensor, k: int) -> float:
    """The recall that k columns drawn at random would have."""
    n, counts = right.shape[1], right.sum(1).tolist()
    return float(np.mean([1 - math.comb(n - count, k) / math.comb(n, k) for count in counts]))


def print_recall(similarity: torch.Tensor, examples: Sequence[Example]) -> None:
    """The table of the model card: recall and chance, both ways, strict and by what is shown."""
    shown, own = torch.from_numpy(groups(examples)), torch.eye(len(examples)).bool()
    abnormal = torch.tensor([e.findings != ("normal",) for e in examples])
    print("| right is | queries | from, to | recall at 1 | chance | recall at 5 | chance |")
    print("|---|---|---|---:|---:|---:|---:|")
    for name, right in {"its own partner": own, "same findings and places": shown[:, None] == shown}.items():
        for queries, rows in {"all": torch.ones_like(abnormal), "abnormal": abnormal}.items():
            for way, table in {"image, text": similarity, "text, image": similarity.T}.items():
                cells = []
                for k in (1, 5):
                    cells += [recall(table[rows], right[rows], k), chance(right[rows], k)]
                shares = " | ".join(f"{100 * cell:.1f} %" for cell in cells)
                print(f"| {name} | {rows.sum()} {queries} | {way} | {shares} |")


def print_gap(similarity: torch.Tensor) -> None:
    """Mean cosine of right and of shuffled pairs, and the bootstrap interval of their difference."""
    rng = np.random.default_rng(SEED)
    n, table = len(similarity), similarity.numpy()
    right, shuffled = table.diagonal(), table[np.arange(n), rng.permutation(n)]
    gap = right - shuffled
    low, high = np.quantile(gap[rng.integers(0, n, (RESAMPLES, n))].mean(1), [0.025, 0.975])
    print(f"\nCosine of right pairs {right.mean():.3f}, of shuffled pairs {shuffled.mean():.3f}.")
    print(f"Difference {gap.mean():.3f}, 95 % interval {low:.3f} to {high:.3f}.")


def evaluate() -> None:
    """Prints how well data/mini-clip tells the pairs of the study's test split apart."""
    examples = load_examples("iu-drr", "test")
    similarity = cosines(OUT, examples)
    print_recall(similarity, examples)
    print_gap(similarity)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("renders", type=Path, nargs="*", help="folders of rendered radiographs outside the study")
    parser.add_argument("--budget", default="1300", help="steps (1300) or minutes (25m)")
    parser.add_argument("--evaluate", action="store_true", help="only evaluate the model in data/mini-clip")
    args = parser.parse_args()
    if not args.evaluate:
        if not args.renders:
            parser.error("give the folders of rendered radiographs to learn from, or --evaluate")
        WORK.mkdir(parents=True, exist_ok=True)
        OUT.mkdir(parents=True, exist_ok=True)
        train(args.renders, args.budget)
        export()
    evaluate()


if __name__ == "__main__":
    main()
