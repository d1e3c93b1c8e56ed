"""Which findings a radiograph shows, in the eyes of a small convolutional network trained on rendered ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from selora.files import DATA
from selora.scoring.labels import LABELS

CLASSIFIER = DATA / "mini-findings"
SIZE = 128  # px, a side of the pictures it was trained on


# torchxrayvision's names, where it has one for what the study renders
XRAY = {
    "Atelectasis": "atelectasis",
    "Cardiomegaly": "cardiomegaly",
    "Effusion": "pleural effusion",
    "Emphysema": "hyperinflation",
    "Fibrosis": "scarring",
    "Lung Opacity": "opacity",
    "Nodule": "nodule",
}


class Classifier(nn.Module):
    """Radiographs (N, 1, 128, 128) in [-1, 1) to logits (N, L). Each pixel's position is an input: sides matter."""

    def __init__(self, labels: int = len(LABELS)) -> None:
        super().__init__()
        widths = (4, 12, 24, 48, 96)
        self.body = nn.Sequential()
        for before, after in zip(widths, widths[1:], strict=False):
            # full resolution before each pooling: a granuloma is 4 pixels wide
            self.body += nn.Sequential(nn.Conv2d(before, after, 3, 1, 1, bias=False), nn.MaxPool2d(2))
            self.body += nn.Sequential(nn.BatchNorm2d(after), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(2 * widths[-1], labels))

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """The map (N, 96, 8, 8) that the labels are read from."""
        detail = 4 * (image - F.avg_pool2d(F.pad(image, (4, 4, 4, 4), mode="replicate"), 9, 1))
        axis = torch.linspace(-1, 1, image.shape[-1], device=image.device)
        place = torch.stack(torch.meshgrid(axis, axis, indexing="ij")).expand(len(image), -1, -1, -1)
        return self.body(torch.cat([image, detail, place], 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.features(image)
        return self.head(torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1))

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) uint8 of any size to (N, L) in 0..1."""
        return self(to_input(images)).sigmoid()


def label_matrix(findings: Sequence[Sequence[str]], places: Sequence[Sequence[str]]) -> torch.Tensor:
    """Which of the LABELS each example shows: (N, L) bool. places: parallel to the findings of each example, such as
    'left base + right upper'; '' names no side, and () none for any. Findings without a label ('normal', 'cavity') set
    none.

    Raises ValueError where the lengths of findings and places differ.
    """
    rows = []
    for named, where in zip(findings, places, strict=True):
        shown = set(named)
        for name, place in zip(named, where or ("",) * len(named), strict=True):
            shown |= {f"{name}, {side}" for side in ("left", "right") if side in place or "both" in place}
        rows.append([label in shown for label in LABELS])
    return torch.tensor(rows, dtype=torch.bool).reshape(-1, len(LABELS))


def load_classifier(folder: Path = CLASSIFIER) -> Classifier:
    """The trained classifier, for use. Raises FileNotFoundError where its weights are missing."""
    path = folder / "model.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: restore it with git, or make it with scripts/judges/train_findings.py"
        )
    classifier = Classifier()
    classifier.load_state_dict(load_file(path))
    return classifier.eval().requires_grad_(False)


def to_input(images: torch.Tensor) -> torch.Tensor:
    """Images (N, C, H, W) uint8 as the classifier takes them: (N, 1, 128, 128), grey, in [-1, 1)."""
    grey = images.float().mean(1, keepdim=True)
    return F.interpolate(grey, size=(SIZE, SIZE), mode="bicubic", antialias=True) / 128 - 1


class XRayClassifier(nn.Module):
    """A DenseNet of torchxrayvision, trained on real radiographs of one source ('nih' or 'chex') alone.

    For real data. It knows no sides, and half of the findings: the others' scores are no numbers. Neither source is IU
    X-Ray: the weights of 'all' saw it, and would flatter whatever was trained on it.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        from torchxrayvision.models import model_urls

        self.network = xray_densenet(source)
        theirs = model_urls[f"densenet121-res224-{source}"]["labels"]
        self.columns = {LABELS.index(ours): theirs.index(name) for name, ours in XRAY.items() if name in theirs}

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) uint8 to (N, L)."""
        resized = F.interpolate(images.float(), size=(224, 224), mode="bicubic", antialias=True).clamp(0, 255)
        found = self.network((resized / 255 * 2048 - 1024).mean(dim=1, keepdim=True)).sigmoid()
        scores = torch.full((len(images), len(LABELS)), torch.nan, device=found.device)
        for ours, theirs in self.columns.items():
            scores[:, ours] = found[:, theirs]
        return scores


def xray_densenet(source: str) -> nn.Module:
    """torchxrayvision's DenseNet of a source, its weights fetched when it is first used."""
    from torchxrayvision import models

    url = models.model_urls[f"densenet121-res224-{source}"]["weights_url"]
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path))
    network = models.DenseNet()
    network.load_state_dict(weights_of_pickled(path, network))
    return network.eval().requires_grad_(False)


def weights_of_pickled(path: Path, like: nn.Module) -> dict[str, torch.Tensor]:
    """The weights in a file that holds a whole pickled module, without running what else a pickle may hold.

    Only the classes that `like`, a module of the same make, consists of are let through.
    """
    with torch.serialization.safe_globals([*{type(module) for module in like.modules()}, set]):
        pickled = torch.load(path, map_location="cpu", weights_only=True)
    for module in pickled.modules():
        vars(module).setdefault("_non_persistent_buffers_set", set())  # pickles of before torch 1.6 lack it
    return pickled.state_dict()


CLASSIFIERS = {
    "mini-findings": load_classifier,
    "xrv-nih": lambda: XRayClassifier("nih"),
    "xrv-chex": lambda: XRayClassifier("chex"),
}


def make_classifier(name: str) -> nn.Module:
    """A classifier by its name.

    Raises:
        ValueError: for an unknown one, with the choices.
        RuntimeError: where torchxrayvision or its weights are not here, with what to do.
    """
    if name not in CLASSIFIERS:
        raise ValueError(f"unknown classifier '{name}': choose from {', '.join(CLASSIFIERS)}")
    try:
        return CLASSIFIERS[name]()
    except (ImportError, OSError) as error:
        raise RuntimeError(
            f"classifier '{name}' is not on this machine ({error}): install the extra with pip install -e '.[paper]' "
            "and go online once to fetch its weights; mini-findings needs nothing, but knows rendered radiographs only"
        ) from error


@torch.no_grad()
def finding_scores(classifier: nn.Module, images: np.ndarray, batch_size: int = 64) -> torch.Tensor:
    """Scores (N, L) in 0..1 of images (N, H, W, 3) uint8 of any size, in the order of LABELS. They rank pictures; they
    are not calibrated probabilities."""
    device = next(classifier.parameters()).device
    parts = torch.from_numpy(images).permute(0, 3, 1, 2).split(batch_size)
    return torch.cat([classifier.scores(part.to(device)).cpu() for part in parts])
