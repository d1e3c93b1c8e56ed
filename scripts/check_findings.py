"""Can the findings of iu-drr be seen? A small classifier is trained on train + val and tested on the test split.

    python scripts/check_findings.py

Prints the table of the data card: AUROC for each finding, and for each side where the findings have one. Below it, how
well the anatomy and exposure parameters alone predict the findings: they should not. Takes about 3 minutes on one core.
"""

from __future__ import annotations

import csv

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from tqdm import trange

from selora.data import FINDINGS, SPLITS, load_examples, open_image
from selora.data.common import RENDERED

EPOCHS, BATCH = 16, 32
SIDED = ("opacity", "atelectasis", "pleural effusion", "nodule", "calcified granuloma", "scarring", "scoliosis")
PARAMETERS = "width height heart breast fat breath tilt nod turn shift_x shift_z exposure contrast".split()


class Net(nn.Module):
    """Radiographs (n, 1, 128, 128) to logits (n, labels). The position of each pixel is an input: sides matter."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        widths = (4, 12, 24, 48, 96)
        self.body = nn.Sequential()
        for before, after in zip(widths, widths[1:], strict=False):
            # full resolution before each pooling: a granuloma is 4 pixels wide
            self.body += nn.Sequential(nn.Conv2d(before, after, 3, 1, 1, bias=False), nn.MaxPool2d(2))
            self.body += nn.Sequential(nn.BatchNorm2d(after), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(2 * widths[-1], labels))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        detail = 4 * (image - F.avg_pool2d(F.pad(image, (4, 4, 4, 4), mode="replicate"), 9, 1))
        axis = torch.linspace(-1, 1, image.shape[-1])
        place = torch.stack(torch.meshgrid(axis, axis, indexing="ij")).expand(len(image), -1, -1, -1)
        features = self.body(torch.cat([image, detail, place], 1))
        return self.head(torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1))


def load() -> tuple[torch.Tensor, np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Images (n, 1, 128, 128), labels (n, names), parameters (n, 13), whether a case is for testing (n,), names."""
    with (RENDERED / "iu-drr" / "cases.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["report_id"]: row for row in csv.DictReader(file)}
    examples = [(split, example) for split in SPLITS for example in load_examples("iu-drr", split)]
    present = [name for name in FINDINGS if any(name in e.findings for _, e in examples)]
    names = present + [f"{name}, {side}" for name in SIDED for side in ("left", "right")]
    images, labels = [], []
    for _, example in examples:
        images.append(np.asarray(open_image(example.path, 128).convert("L"), dtype=np.float32) / 128 - 1)
        shown = set(example.findings)
        for name, place in zip(example.findings, rows[example.id]["places"].split(";"), strict=True):
            shown |= {f"{name}, {side}" for side in ("left", "right") if side in place or "both" in place}
        labels.append([name in shown for name in names])
    parameters = np.array([[float(rows[e.id][p]) for p in PARAMETERS] for _, e in examples])
    test = np.array([split == "test" for split, _ in examples])
    return torch.tensor(np.array(images))[:, None], np.array(labels), parameters, test, names


def fit(images: torch.Tensor, labels: torch.Tensor) -> Net:
    """Trains with random shifts and contrast. labels: (n, names) of 0 and 1."""
    torch.manual_seed(0)
    net = Net(labels.shape[1])
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.02)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    weight = ((len(labels) - labels.sum(0)) / labels.sum(0)).sqrt()
    for _ in trange(EPOCHS, unit="epoch"):
        order = torch.randperm(len(images))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            batch = images[chosen] * (0.85 + 0.3 * torch.rand(BATCH, 1, 1, 1)) + 0.1 * torch.randn(BATCH, 1, 1, 1)
            x, y = torch.randint(0, 9, (2,)).tolist()
            batch = F.pad(batch, (4, 4, 4, 4), mode="replicate")[..., y : y + 128, x : x + 128]
            loss = F.binary_cross_entropy_with_logits(net(batch), labels[chosen], pos_weight=weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def main() -> None:
    images, labels, parameters, test, names = load()
    net = fit(images[~test], torch.tensor(labels[~test]).float())
    with torch.no_grad():
        scores = torch.cat([net(part) for part in images[test].split(100)]).numpy()
    print("| finding | n train + val | n test | AUROC |\n|---|---:|---:|---:|")
    for i, name in enumerate(names):
        if labels[test, i].sum() < 8:  # too few for a figure
            continue
        auroc = roc_auc_score(labels[test, i], scores[:, i])
        print(f"| {name} | {labels[~test, i].sum()} | {labels[test, i].sum()} | {auroc:.3f} |")

    known = []
    for i, name in enumerate(names):
        if name in FINDINGS:
            model = make_pipeline(StandardScaler(), LogisticRegression()).fit(parameters[~test], labels[~test, i])
            known.append(roc_auc_score(labels[test, i], model.decision_function(parameters[test])))
    print(f"\nFrom the parameters of anatomy and exposure alone: mean {np.mean(known):.3f}, highest {max(known):.3f}.")


if __name__ == "__main__":
    main()
