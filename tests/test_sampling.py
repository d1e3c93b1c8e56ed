"""Sampling and latents: an image depends on its own seed and prompt, not on the batch it was made in."""

import numpy as np
import pytest
import torch

from selora.data.common import DataError, Example
from selora.latents import cached_latents, tokenize
from selora.sampling import sample, starting_noise

PROMPTS = ["heart clear", "lungs clear", "heart", "a large heart", "clear"]


def draw(pipe, prompts, batch_size, seed=0):
    return sample(pipe, prompts, size=16, steps=2, guidance_scale=2.0, batch_size=batch_size, seed=seed)


def test_batch_size_does_not_change_an_image(pipe):
    whole, single = draw(pipe, PROMPTS, batch_size=5), draw(pipe, PROMPTS, batch_size=1)
    assert whole.shape == (5, 16, 16, 3) and whole.dtype == np.uint8
    assert np.abs(whole.astype(int) - single.astype(int)).max() <= 1  # the last bit may differ with the batch's shape
    assert np.abs(whole[0].astype(int) - whole[1].astype(int)).max() > 1


def test_the_seed_changes_the_images_and_a_prefix_does_not(pipe):
    assert not np.array_equal(draw(pipe, PROMPTS[:2], 2, seed=0), draw(pipe, PROMPTS[:2], 2, seed=1))
    assert torch.equal(starting_noise(pipe, 2, 16, seed=0), starting_noise(pipe, 5, 16, seed=0)[:2])


def test_sampling_leaves_the_pipeline_its_scheduler(pipe):
    own = pipe.scheduler
    draw(pipe, PROMPTS[:1], 1)
    assert pipe.scheduler is own


def test_a_long_prompt_keeps_its_end_token(pipe):
    tokens = tokenize(pipe.tokenizer, ["heart " * 200, ""])
    assert tokens.shape == (2, 77)
    assert tokens[0, -1] == pipe.tokenizer.eos_token_id


def test_latents_are_cached_by_content(pipe, tmp_path):
    from PIL import Image

    examples = []
    for i in range(3):
        path = tmp_path / f"{i}.png"
        Image.fromarray(np.full((20, 16, 3), 80 * i, dtype=np.uint8)).save(path)
        examples.append(Example(str(i), path, "", ()))
    first = cached_latents(pipe.vae, examples, 16, tmp_path / "cache", batch_size=2)
    again = cached_latents(pipe.vae, examples, 16, tmp_path / "cache", batch_size=2)
    assert torch.equal(first, again)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    Image.fromarray(np.full((16, 16, 3), 7, dtype=np.uint8)).save(tmp_path / "0.png")
    cached_latents(pipe.vae, examples, 16, tmp_path / "cache", batch_size=2)
    assert len(list((tmp_path / "cache").iterdir())) == 2

    (tmp_path / "1.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match="1.png"):
        cached_latents(pipe.vae, examples, 16, tmp_path / "cache", batch_size=2)
