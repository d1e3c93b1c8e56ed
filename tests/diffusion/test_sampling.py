"""Sampling and latents: an image depends on its own seed and prompt, not on the batch it was made in."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from selora.data.example import DataError, Example
from selora.data.pictures import load_images
from selora.diffusion import latents
from selora.diffusion.latents import cached_latents, encode, tokenize
from selora.diffusion.sampling import sample, starting_noise
from selora.diffusion.solvers import SOLVERS

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


@pytest.fixture
def examples(tmp_path) -> list[Example]:
    """Five grey pictures on disk."""
    for i in range(5):
        save_grey(tmp_path / f"{i}.png", 50 * i)
    return [Example(str(i), tmp_path / f"{i}.png", "", ()) for i in range(5)]


def save_grey(path, level):
    Image.fromarray(np.full((20, 16, 3), level, dtype=np.uint8)).save(path)


@pytest.fixture
def encoded(pipe, examples, tmp_path, monkeypatch):
    """The latents of the pictures in three shards, and the folder they are in."""
    monkeypatch.setattr(latents, "SHARD", 2)
    return lambda: (cached_latents(pipe.vae, examples, 16, tmp_path / "cache", batch_size=2), tmp_path / "cache")


def test_latents_in_shards_are_those_of_all_images_at_once(pipe, examples, encoded):
    found, cache = encoded()
    wanted = encode(pipe.vae, load_images(examples, 16), batch_size=5)
    assert len(found) == 5 and found.shape == wanted.shape and len(list(cache.iterdir())) == 3
    torch.testing.assert_close(found[:], wanted)
    torch.testing.assert_close(found[torch.tensor([4, 0, 3, 0])], wanted[[4, 0, 3, 0]])
    torch.testing.assert_close(found[1:4], wanted[1:4])


def test_finished_shards_are_read_and_those_of_changed_images_made_again(encoded, tmp_path, monkeypatch):
    first, cache = encoded()
    made = []
    monkeypatch.setattr(latents, "encode", lambda *args: (made.append(len(args[1])), encode(*args))[1])
    assert torch.equal(encoded()[0][:], first[:]) and not made
    save_grey(tmp_path / "2.png", 7)
    changed = encoded()[0]
    assert made == [2] and len(list(cache.iterdir())) == 4
    assert torch.equal(changed[torch.tensor([0, 1, 3, 4])], first[torch.tensor([0, 1, 3, 4])])
    assert not torch.equal(changed[2:3], first[2:3])


def test_images_alike_in_name_size_and_time_are_told_apart(tmp_path):
    """Uncompressed images in one folder per patient, out of an archive that gives all the same time."""
    for patient, level in (("a", 1), ("b", 2)):
        (tmp_path / patient).mkdir()
        Image.fromarray(np.full((4, 4), level, dtype=np.uint8)).save(tmp_path / patient / "1.bmp")
        os.utime(tmp_path / patient / "1.bmp", (0, 0))
    a, b = ([Example(f"{patient}_1", tmp_path / patient / "1.bmp", "", ())] for patient in "ab")
    assert latents.stamps(a) != latents.stamps(b)


def test_processes_that_find_different_shards_encode_all(encoded, monkeypatch):
    """A process that comes late, and finds the first one's shards, must still make its own and no more."""
    waited = []

    def process(index: int):
        return SimpleNamespace(process_index=index, num_processes=2, wait_for_everyone=lambda: waited.append(index))

    monkeypatch.setattr(latents, "Latents", lambda paths: [path.exists() for path in paths])
    monkeypatch.setattr(latents.machine, "state", lambda: process(0))
    assert encoded()[0] == [True, False, True]
    monkeypatch.setattr(latents.machine, "state", lambda: process(1))
    assert encoded()[0] == [True, True, True] and waited == [0, 1]


def test_an_image_that_cannot_be_read_is_named(encoded, tmp_path):
    (tmp_path / "1.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match="1.png"):
        encoded()
    (tmp_path / "1.png").unlink()
    with pytest.raises(DataError, match="1.png"):
        encoded()


def test_every_solver_of_the_profiles_samples_in_its_own_way(pipe):
    drawn = {
        solver: sample(pipe, PROMPTS[:1], 16, steps=4, guidance_scale=2.0, batch_size=1, seed=0, solver=solver)
        for solver in SOLVERS
    }
    assert len({images.tobytes() for images in drawn.values()}) == len(SOLVERS)


def test_the_autoencoder_stays_in_fp32_where_the_networks_are_in_bf16(pipe):
    exact = draw(pipe, PROMPTS[:2], 2)
    for model in (pipe.unet, pipe.text_encoder):
        model.to(torch.bfloat16)
    rough = draw(pipe, PROMPTS[:2], 2)
    assert pipe.vae.dtype == torch.float32
    assert 0 < np.abs(exact.astype(int) - rough.astype(int)).mean() < 3
