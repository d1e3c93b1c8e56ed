"""data/mini-clip is a stock CLIP that knows which report a rendered radiograph belongs to."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.multimodal import CLIPScore
from transformers import CLIPModel, CLIPProcessor

from selora.data import Example, load_examples, open_image
from selora.files import REPOSITORY
from selora.scoring.clip import CLIP, contrasts, embed_pairs, scores_of_pairs

FOLDER = REPOSITORY / "data" / "mini-clip"


@pytest.fixture
def train_clip(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts" / "judges"))
    import train_clip

    return train_clip


@pytest.fixture(scope="module")
def model() -> CLIPModel:
    return CLIPModel.from_pretrained(FOLDER, local_files_only=True)


@pytest.fixture(scope="module")
def processor() -> CLIPProcessor:
    return CLIPProcessor.from_pretrained(FOLDER, local_files_only=True)


def test_folder_is_small_and_documented():
    assert sum(file.stat().st_size for file in FOLDER.rglob("*")) < 8e6
    assert (FOLDER / "README.md").is_file() and (FOLDER / "pretrain_log.csv").is_file()
    assert not list(FOLDER.rglob("*.bin"))


def test_plain_load_gives_fp32(model):
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_processor_takes_pictures_of_any_size_and_long_text(model, processor):
    config = model.config
    assert config.text_config.eos_token_id == processor.tokenizer.eos_token_id
    assert config.text_config.vocab_size == len(processor.tokenizer)
    picture = torch.randint(0, 256, (3, 200, 160), dtype=torch.uint8)
    batch = processor(images=picture, text="heart " * 100, truncation=True, return_tensors="pt")
    assert batch["pixel_values"].shape == (1, 3, 128, 128) and batch["pixel_values"].abs().max() <= 1
    assert batch["input_ids"].shape == (1, 77) and batch["input_ids"][0, -1] == config.text_config.eos_token_id
    with torch.no_grad():
        assert torch.isfinite(model(**batch).logits_per_image).all()


@torch.no_grad()
def test_right_pairs_score_above_shuffled_ones(model, processor):
    """Abnormal reference pairs, none of which it was trained on; each image against its own report and the next."""
    examples: list[Example] = [e for e in load_examples("iu-drr", "test") if e.findings != ("normal",)][:48]
    images = [open_image(example.path, 128) for example in examples]
    texts = [example.prompt for example in examples]
    batch = processor(images=images, text=texts, padding=True, truncation=True, return_tensors="pt")
    found = model(**batch)
    cosine = found.image_embeds @ found.text_embeds.T  # both are of unit length
    gap = cosine.diag() - cosine.roll(1, dims=1).diag()
    assert gap.mean() > 3 * gap.std() / len(gap) ** 0.5


def test_scores_are_those_of_torchmetrics(model, processor):
    """One by one, through CLIPScore; its state before the end, where it is cut off at 0."""

    class Towers(torch.nn.Module):
        """Its features plain tensors, as torchmetrics expects them; transformers 5 wraps them."""

        config = model.config

        def get_image_features(self, *given) -> torch.Tensor:
            return model.get_image_features(*given).pooler_output

        def get_text_features(self, *given) -> torch.Tensor:
            return model.get_text_features(*given).pooler_output

    def cut(**given):
        return processor(**given, **({"truncation": True} if "text" in given else {}))

    images = np.random.default_rng(0).integers(0, 256, (5, 128, 128, 3), dtype=np.uint8)
    images[1:3] = [open_image(e.path, 128) for e in load_examples("iu-drr", "test")[:2]]
    prompts = ["", "heart large, lungs clear.", "no effusion.", "heart " * 100, "Nodule in the left upper lobe."]
    metric, expected = CLIPScore(lambda: (Towers(), cut)), []
    for image, prompt in zip(images, prompts, strict=True):
        metric.reset()
        metric.update(torch.from_numpy(image).permute(2, 0, 1), prompt)
        expected.append(metric.score.item())
    assert min(expected) < 0 < max(expected)
    found = scores_of_pairs(*embed_pairs(CLIP("data/mini-clip"), images, prompts, batch_size=3))
    assert found.tolist() == pytest.approx(expected, rel=0, abs=1e-5)


def test_contrast_is_the_mean_over_all_shuffles():
    images, texts = torch.nn.functional.normalize(
        torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    found = contrasts(images, texts)
    for i in range(4):
        others = [100 * (images[i] @ texts[j]).item() for j in range(4) if j != i]
        assert found[i].item() == pytest.approx(100 * (images[i] @ texts[i]).item() - np.mean(others), abs=1e-4)
    assert contrasts(images, texts[:1].expand(4, -1)).tolist() == pytest.approx([0] * 4, abs=1e-4)
    assert contrasts(images[:1], texts[:1]).isnan().all()


def test_recall_against_rows_counted_by_hand(train_clip):
    similarity = torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.7, 0.1], [0.3, 0.2, 0.1]])
    own = torch.eye(3).bool()
    assert train_clip.recall(similarity, own, 1) == pytest.approx(1 / 3)
    assert train_clip.recall(similarity, own, 2) == pytest.approx(2 / 3)


def test_chance_is_the_share_of_draws_with_a_right_one(train_clip):
    right = torch.tensor([[1, 0, 0, 0, 1], [0, 1, 0, 0, 0]]).bool()
    draws = list(combinations(range(5), 2))
    counted = np.mean([[row[list(draw)].any().item() for draw in draws] for row in right])
    assert train_clip.chance(right, 2) == pytest.approx(counted)


def test_pairs_that_show_the_same_are_no_negatives(train_clip):
    def example(text: str, findings: str, places: str) -> Example:
        return Example("", Path(), text, tuple(findings.split(";")), tuple(places.split(";")))

    examples = [
        example("Left base opacity. Large heart.", "opacity;cardiomegaly", "left base;"),
        example("Big heart, opacity in the left base.", "cardiomegaly;opacity", ";left base"),
        example("Right base opacity.", "opacity", "right base"),
        example("RIGHT BASE OPACITY.", "normal", ""),
    ]
    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert train_clip.alike(examples).int().tolist() == expected


def test_rewording_keeps_whole_sentences(train_clip):
    text = "The heart is large. Lungs are clear. Size is 1.5 cm."
    for seed in range(20):
        kept = train_clip.reworded(text, np.random.default_rng(seed))
        assert kept and all(part in text for part in kept.replace(". ", ".|").split("|"))
