"""Trains data/mini-findings, the small classifier that says which findings a radiograph shows, and tests it.

    python scripts/radiographs/render_radiographs.py --set iu-outside --seed 2000 --out RENDERS
    python scripts/judges/train_findings.py RENDERS/iu-outside

It learns from the train and val splits of iu-drr and from renders of other reports. Prints the table of the data cards:
AUROC on the test split for each finding, and for each side where the findings have one, on the images as they are and
on blurred ones. Below it, how well the anatomy and exposure parameters alone predict the findings: they should not.
Takes about 6 minutes on one core.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import trange

from selora.data import DataError, Example, iu_reports, load_parts, open_image
from selora.files import DATA
from selora.scoring.classifier import CLASSIFIER, SIZE, Classifier, label_matrix, to_input
from selora.scoring.labels import LABELS, SIDED

EPOCHS, BATCH = 16, 32  # more epochs gain nothing that shows
LR = 3e-3  # at its highest; high, since the epochs are few
SHIFT = 4  # px at most, to each side
NOISE = 0.1  # 13 grey levels at most: the network must not rely on the renderer's grain
BLUR = 1.0  # px at most: generated pictures come through an autoencoder that softens detail
LEAST_POSITIVES = 8  # test images; fewer give no figure worth printing
PARAMETERS = "width height heart breast fat breath tilt nod turn shift_x shift_z exposure contrast".split()


def read_table(folder: Path) -> list[dict[str, str]]:
    """The rows of a rendered set's cases.csv. Raises DataError where it is missing."""
    path = folder / "cases.csv"
    if not path.is_file():
        raise DataError(f"{path} is missing. Give a folder made by render_radiographs.py: RENDERS/iu-outside.")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_renders(folders: Sequence[Path]) -> list[Example]:
    """The examples of rendered sets outside the study. Raises DataError for a report that the study uses."""
    studied = {row["report_id"] for row in read_table(DATA / "iu-drr")}
    examples = []
    for folder in folders:
        for row in read_table(folder):
            if row["report_id"] in studied:
                raise DataError(f"{folder} shows report {row['report_id']} of the study. Render --set iu-outside.")
            findings, places = (tuple(row[column].split(";")) for column in ("findings", "places"))
            path = folder / "images" / f"{row['report_id']}.webp"
            examples.append(Example(row["report_id"], path, iu_reports.prompt(row["report_id"]), findings, places))
    return examples


def pictures(examples: Sequence[Example]) -> torch.Tensor:
    """The images of examples as the classifier takes them: (n, 1, 128, 128)."""
    return to_input(
        torch.from_numpy(np.stack([np.asarray(open_image(e.path, SIZE).convert("L")) for e in examples]))[:, None]
    )


def labels_of(examples: Sequence[Example]) -> torch.Tensor:
    """The label matrix (n, L) of examples, 0 and 1 as float."""
    return label_matrix([e.findings for e in examples], [e.places for e in examples]).float()


def blur(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of (n, 1, h, w), sigma in px, above 0."""
    x = torch.arange(-3.0, 4.0, device=images.device)  # 3 sigma at the most blur
    kernel = torch.softmax(-(x**2) / (2 * sigma**2), 0)
    padded = F.pad(images, (3, 3, 3, 3), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, 7)), kernel.view(1, 1, 7, 1))


def augment(images: torch.Tensor) -> torch.Tensor:
    """Random contrast and noise for each of the images (n, 1, 128, 128); one random blur and shift for all of them."""
    contrast, noise = 0.85 + 0.3 * torch.rand(len(images), 1, 1, 1), NOISE * torch.rand(len(images), 1, 1, 1)
    images = blur(images, 0.1 + (BLUR - 0.1) * torch.rand(()).item()) * contrast.to(images)
    images = images + (noise * torch.randn(images.shape)).to(images)
    x, y = torch.randint(0, 2 * SHIFT + 1, (2,)).tolist()
    return F.pad(images, (SHIFT,) * 4, mode="replicate")[..., y : y + SIZE, x : x + SIZE]


def fit(images: torch.Tensor, labels: torch.Tensor) -> Classifier:
    """Trains on augmented images (n, 1, 128, 128). labels: (n, L) of 0 and 1."""
    torch.manual_seed(0)
    net = Classifier()
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=EPOCHS * (len(images) // BATCH))
    weight = ((len(labels) - labels.sum(0)) / labels.sum(0)).sqrt()
    for _ in trange(EPOCHS, unit="epoch"):
        order = torch.randperm(len(images))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            logits = net(augment(images[chosen]))
            loss = F.binary_cross_entropy_with_logits(logits, labels[chosen], pos_weight=weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


@torch.no_grad()
def aurocs(net: Classifier, images: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """AUROC of each label, nan for one with fewer than LEAST_POSITIVES. images: (n, 1, 128, 128), labels: (n, L)."""
    scores = torch.cat([net(part) for part in images.split(100)])
    return [
        roc_auc_score(labels[:, i], scores[:, i]) if labels[:, i].sum() >= LEAST_POSITIVES else float("nan")
        for i in range(len(LABELS))
    ]


def print_parameters_alone(known: list[Example], test: list[Example], y: torch.Tensor, truth: torch.Tensor) -> None:
    """How well anatomy and exposure predict the findings of iu-drr. y, truth: labels (n, L) of known and test."""
    rows = {row["report_id"]: [float(row[p]) for p in PARAMETERS] for row in read_table(DATA / "iu-drr")}
    x, x_test = ([rows[e.id] for e in examples] for examples in (known, test))
    found = []
    for i in range(len(LABELS) - 2 * len(SIDED)):
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y[:, i])
        found.append(roc_auc_score(truth[:, i], model.decision_function(x_test)))
    print(f"\nFrom the parameters of anatomy and exposure alone: mean {np.mean(found):.3f}, highest {max(found):.3f}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("renders", type=Path, nargs="+", help="folders of rendered radiographs outside the study")
    args = parser.parse_args()

    parts, outside = load_parts("iu-drr"), read_renders(args.renders)
    known, test = parts["train"] + parts["val"], parts["test"]
    y, truth = labels_of(known + outside), labels_of(test)
    net = fit(pictures(known + outside), y)
    CLASSIFIER.mkdir(exist_ok=True)
    save_file(net.state_dict(), CLASSIFIER / "model.safetensors")
    (CLASSIFIER / "model.safetensors").chmod(0o644)  # safetensors makes files only their owner can read

    images = pictures(test)
    print("| finding | n train | n test | AUROC | AUROC, blurred |\n|---|---:|---:|---:|---:|")
    plain, blurred = aurocs(net, images, truth), aurocs(net, blur(images, BLUR), truth)
    for i, label in enumerate(LABELS):
        if not np.isnan(plain[i]):
            print(f"| {label} | {y[:, i].sum():.0f} | {truth[:, i].sum():.0f} | {plain[i]:.3f} | {blurred[i]:.3f} |")
    print_parameters_alone(known, test, y[: len(known)], truth)


if __name__ == "__main__":
    main()
