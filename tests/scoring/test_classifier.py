"""The classifier of findings against hand-written labels, the reference images and the mirror."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from selora.data import DataError, Example, load_examples, open_image
from selora.files import REPOSITORY
from selora.scoring.classifier import CLASSIFIER, Classifier, finding_scores, label_matrix, load_classifier
from selora.scoring.labels import LABELS


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return load_classifier()


@pytest.fixture(scope="module")
def reference() -> list[Example]:
    return load_examples("iu-drr", "test")


def stack(examples: list[Example]) -> np.ndarray:
    return np.stack([np.asarray(open_image(example.path, 128)) for example in examples])


def column(scores: torch.Tensor, label: str) -> np.ndarray:
    return scores[:, LABELS.index(label)].numpy()


@pytest.mark.parametrize(
    ("findings", "places", "expected"),
    [
        (["normal"], [""], set()),
        (["tuberculosis"], [], set()),
        (["cardiomegaly"], [""], {"cardiomegaly"}),
        (["device"], ["line right"], {"device"}),  # a device has no sided label
        (["scoliosis"], [""], {"scoliosis"}),
        (
            ["pleural effusion"],
            ["both base"],
            {"pleural effusion", "pleural effusion, left", "pleural effusion, right"},
        ),
        (["opacity", "nodule"], ["left base", ""], {"opacity", "opacity, left", "nodule"}),
        (
            ["scarring", "atelectasis"],
            ["left apex + right upper", "right"],
            {"scarring", "scarring, left", "scarring, right", "atelectasis", "atelectasis, right"},
        ),
    ],
)
def test_labels_of_findings_and_places(findings, places, expected):
    row = label_matrix([findings], [places])[0]
    assert row.dtype == torch.bool
    assert {label for label, shown in zip(LABELS, row, strict=True) if shown} == expected


def test_labels_need_a_place_for_each_finding():
    with pytest.raises(ValueError, match="shorter"):
        label_matrix([["opacity", "nodule"]], [["left"]])


@pytest.mark.parametrize("name", ["iu-drr", "montgomery-drr"])
def test_rendered_examples_have_a_place_for_each_finding(name):
    examples = load_examples(name, "test")
    assert all(len(example.places) == len(example.findings) for example in examples)
    sided = label_matrix([e.findings for e in examples], [e.places for e in examples])
    effusion = [LABELS.index(f"pleural effusion{side}") for side in ("", ", left", ", right")]
    assert (sided[:, effusion[0]] == sided[:, effusion[1:]].any(1)).all()  # the renderer draws it on some side
    assert sided[:, effusion[1]].any() and sided[:, effusion[2]].any()


def test_cardiomegaly_is_seen_in_reference_images(classifier, reference):
    large = [e for e in reference if "cardiomegaly" in e.findings][:20]
    others = [e for e in reference if "cardiomegaly" not in e.findings][:40]
    scores = column(finding_scores(classifier, stack(large + others)), "cardiomegaly")
    assert roc_auc_score([1] * 20 + [0] * 40, scores) > 0.85


@pytest.mark.parametrize(("side", "other"), [("left", "right"), ("right", "left")])
def test_a_mirrored_effusion_is_on_the_other_side(classifier, reference, side, other):
    shown = [e for e in reference if ("pleural effusion", side) in zip(e.findings, e.places, strict=True)]
    assert len(shown) >= 3
    images = stack(shown)
    plain, mirrored = (finding_scores(classifier, i) for i in (images, images[:, :, ::-1].copy()))
    lead, lead_mirrored = (
        column(scores, f"pleural effusion, {side}") - column(scores, f"pleural effusion, {other}")
        for scores in (plain, mirrored)
    )
    assert lead_mirrored.mean() < 0 < lead.mean()


def test_pictures_of_another_size_and_batching_change_little(classifier, reference):
    images = stack(reference[:5])
    large = np.stack([np.asarray(Image.fromarray(i).resize((256, 256), Image.Resampling.BICUBIC)) for i in images])
    scores = finding_scores(classifier, images)
    assert scores.shape == (5, len(LABELS)) and ((scores >= 0) & (scores <= 1)).all()
    assert torch.allclose(scores, finding_scores(classifier, images, batch_size=2), atol=1e-5)
    assert (scores - finding_scores(classifier, large)).abs().mean() < 0.05


def test_folder_is_small_and_documented():
    assert sum(file.stat().st_size for file in CLASSIFIER.rglob("*")) < 1e6
    assert (CLASSIFIER / "README.md").is_file()


def test_missing_weights_name_the_script(tmp_path):
    with pytest.raises(FileNotFoundError, match="train_findings.py"):
        load_classifier(tmp_path)


def test_reports_of_the_study_are_refused_as_outside(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts" / "judges"))
    import train_findings

    table = (REPOSITORY / "data" / "iu-drr" / "cases.csv").read_text().splitlines()
    (tmp_path / "cases.csv").write_text("\n".join(table[:2]) + "\n")
    with pytest.raises(DataError, match="report CXR5 of the study"):
        train_findings.read_renders([tmp_path])
    with pytest.raises(DataError, match="cases.csv is missing"):
        train_findings.read_renders([tmp_path / "nowhere"])


def test_a_classifier_of_real_radiographs_is_asked_for_what_it_knows(monkeypatch):
    """torchxrayvision itself is not installed whole: a stand-in with its names and its range of input."""
    import sys
    from types import ModuleType

    from selora.scoring import classifier

    package, models = ModuleType("torchxrayvision"), ModuleType("torchxrayvision.models")
    labels = ["Hernia", "Effusion", "", "Cardiomegaly"]
    models.model_urls = {"densenet121-res224-nih": {"labels": labels}}
    package.models = models
    monkeypatch.setitem(sys.modules, "torchxrayvision", package)
    monkeypatch.setitem(sys.modules, "torchxrayvision.models", models)

    class Brightness(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, x):
            assert x.shape[1:] == (1, 224, 224)
            return torch.stack([x.mean((1, 2, 3)), *[x.mean((1, 2, 3)) / 1024 * k for k in (1, 2, 3)]], 1)

    monkeypatch.setattr(classifier, "xray_densenet", lambda source: Brightness())
    dark_and_bright = np.stack([np.zeros((32, 32, 3)), np.full((32, 32, 3), 255)]).astype(np.uint8)
    scores = finding_scores(classifier.make_classifier("xrv-nih"), dark_and_bright)
    known = [label for label, column in zip(LABELS, scores.T, strict=True) if not column.isnan().any()]
    assert known == ["cardiomegaly", "pleural effusion"]
    assert torch.allclose(scores[:, LABELS.index("pleural effusion")], torch.tensor([-1.0, 1.0]).sigmoid(), atol=1e-5)
    assert torch.allclose(scores[:, LABELS.index("cardiomegaly")], torch.tensor([-3.0, 3.0]).sigmoid(), atol=1e-5)


def test_an_unknown_classifier_lists_the_choices_and_a_missing_package_says_what_to_do(monkeypatch):
    import sys

    from selora.scoring.classifier import make_classifier

    with pytest.raises(ValueError, match="choose from mini-findings, xrv-nih, xrv-chex"):
        make_classifier("xrv")
    monkeypatch.setitem(sys.modules, "torchxrayvision", None)
    monkeypatch.setitem(sys.modules, "torchxrayvision.models", None)
    with pytest.raises(RuntimeError, match=r"pip install -e '\.\[paper\]'"):
        make_classifier("xrv-chex")
