"""data/mini-sd is a stock Stable Diffusion pipeline that needs neither network nor dtype argument."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from selora.files import DATA

FOLDER = DATA / "mini-sd"


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    loaded = StableDiffusionPipeline.from_pretrained(FOLDER, local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_folder_is_small_and_documented() -> None:
    assert sum(file.stat().st_size for file in FOLDER.rglob("*")) < 24e6
    assert (FOLDER / "README.md").exists() and (FOLDER / "pretrain_log.csv").exists()


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_plain_load_gives_fp32_everywhere(pipeline: StableDiffusionPipeline, part: str) -> None:
    assert {parameter.dtype for parameter in getattr(pipeline, part).parameters()} == {torch.float32}


def test_tokenizer_is_clips_kind(pipeline: StableDiffusionPipeline) -> None:
    tokenizer = pipeline.tokenizer
    assert tokenizer.model_max_length == 77 and 4000 <= len(tokenizer) <= 8000
    text = "the heart is normal in size . no pneumothorax or pleural effusion . café xyzzy"
    ids = tokenizer(text, padding="max_length", truncation=True, max_length=77).input_ids
    assert len(ids) == 77
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id == tokenizer.pad_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert len(tokenizer("pneumothorax").input_ids) == 3, "a frequent word of the reports is one token"


def test_text_encoder_pools_at_the_end_token(pipeline: StableDiffusionPipeline) -> None:
    """CLIP takes its pooled output at the first end token; the configuration must name this tokenizer's."""
    assert pipeline.text_encoder.config.eos_token_id == pipeline.tokenizer.eos_token_id
    assert pipeline.text_encoder.config.vocab_size == len(pipeline.tokenizer)


def test_latents_are_16_x_16_with_unit_variance(pipeline: StableDiffusionPipeline) -> None:
    x = torch.linspace(-1, 1, 128)
    disc = 1.6 * (x[None] ** 2 + x[:, None] ** 2 < 0.4).float() - 0.8
    with torch.no_grad():
        latents = pipeline.vae.encode(disc.expand(1, 3, 128, 128)).latent_dist.mean
        back = pipeline.vae.decode(latents).sample
    assert latents.shape == (1, 4, 16, 16) == (1, 4, *2 * (pipeline.unet.config.sample_size,))
    assert 0.3 < (latents * pipeline.vae.config.scaling_factor).std() < 3
    assert (back - disc).abs().mean() < 0.1


def test_sampling_is_deterministic_and_finite(pipeline: StableDiffusionPipeline) -> None:
    def sample() -> np.ndarray:
        return pipeline(
            "a large bright circle in the centre on a dark background",
            num_inference_steps=2,
            output_type="np",
            generator=torch.Generator().manual_seed(0),
        ).images[0]

    first = sample()
    assert first.shape == (128, 128, 3) and np.isfinite(first).all() and first.std() > 0
    assert np.array_equal(first, sample())
