"""What a run came from is told apart by contents: what is replaced under its old name is noticed at the next start."""

import os
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import tiny_pipeline
from diffusers import AutoencoderKL
from PIL import Image

from selora.data.example import Example
from selora.diffusion.latents import cached_latents
from selora.files import REPOSITORY, RESULTS, hash_file, read_json, write_json
from selora.study import fingerprints
from selora.study.fingerprints import hash_examples, hash_model, scoring_cache, settings_of
from selora.study.profiles import load_profile
from selora.study.results import Run
from selora.study.run import make_run

ROWS = ["file_name,text,split,findings", "0.bmp,Heart 0 normal.,test,device"]
ROWS += [f"{i}.bmp,Heart {i} normal.,train,device" for i in range(1, 4)]


def replaced(path, old: bytes, new: bytes) -> None:
    """Other contents of the same length under the same name and time: what size and time cannot tell."""
    stat, found = path.stat(), path.read_bytes()
    assert old in found and len(old) == len(new)
    path.write_bytes(found.replace(old, new, 1))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(4):
        Image.fromarray(np.full((8, 8), 40 * i, dtype=np.uint8)).save(folder / f"{i}.bmp")
    (folder / "metadata.csv").write_text("\n".join(ROWS), encoding="utf-8")
    return folder


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A repository with two models of a few bytes, and the profile that names them."""
    monkeypatch.setattr(fingerprints, "REPOSITORY", tmp_path)
    for name in ("base/unet/config.json", "base/scheduler/scheduler_config.json", "base/tokenizer/merges.txt",
                 "base/vae/diffusion_pytorch_model.safetensors", "clip/preprocessor_config.json", "clip/README.md",
                 "clip/.cache/download.json", "data/mini-findings/model.safetensors"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"beta 1")
    return tmp_path, replace(load_profile("smoke"), base_model="base", clip="clip")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("2.bmp", b"P" * 8, b"Q" * 8),  # pixels of a picture to train on: 40 * 2 is 'P'
        ("0.bmp", b"\0" * 8, b"\1" * 8),  # and of one to test with
        ("metadata.csv", b"Heart 1", b"Lungs 1"),
        ("metadata.csv", b"1 normal.,train", b"1 normal.  ,val"),  # a text's spaces do not count
        ("metadata.csv", b"2 normal.,train,device", b"2 normal.,train,cavity"),
    ],
    ids=["picture", "test picture", "text", "split", "finding"],
)
def test_data_replaced_under_its_name_size_and_time_is_noticed(folder, file, old, new):
    before = hash_examples("imagefolder", str(folder))
    assert hash_examples("imagefolder", str(folder)) == before
    replaced(folder / file, old, new)
    assert hash_examples("imagefolder", str(folder)) != before


@pytest.mark.parametrize(
    "name",
    [
        "base/unet/config.json",
        "base/scheduler/scheduler_config.json",
        "base/tokenizer/merges.txt",
        "base/vae/diffusion_pytorch_model.safetensors",
        "clip/preprocessor_config.json",
        "data/mini-findings/model.safetensors",
    ],
)
def test_any_file_that_a_model_is_read_from_counts(models, tmp_path, name):
    repository, profile = models
    run = Run(profile, "montgomery-drr", "lora", 0, tmp_path / "results")
    before, cache = settings_of(run), scoring_cache(profile, tmp_path)
    write_json(run.record, {"kid": 0.1})
    write_json(run.folder / "settings.json", before)
    assert make_run(run) == {"kid": 0.1}
    replaced(repository / name, b"beta 1", b"beta 2")
    with pytest.raises(ValueError, match=r"made with other settings \((base|clip|classifier)_contents: "):
        make_run(run)
    assert scoring_cache(profile, tmp_path) != cache


@pytest.mark.parametrize("name", ["clip/README.md", "clip/.cache/download.json"])
def test_documentation_and_hidden_files_do_not_count(models, name):
    repository, profile = models
    before = fingerprints.hash_models(profile)
    replaced(repository / name, b"beta 1", b"beta 2")
    assert fingerprints.hash_models(profile) == before


def test_a_file_moved_within_a_model_counts(models):
    repository, profile = models
    before = fingerprints.hash_models(profile)
    (repository / "base/unet/config.json").rename(repository / "base/vae/config.json")
    assert fingerprints.hash_models(profile)["base_contents"] != before["base_contents"]


def test_a_model_of_the_hub_counts_by_its_commit(models, tmp_path, monkeypatch):
    _, profile = models
    commits = iter("ab")
    monkeypatch.setattr(fingerprints, "hub_commit", lambda name: next(commits))
    profile = replace(profile, base_model="somebody/some-model")
    first, second = (fingerprints.hash_models(profile)["base_contents"] for _ in range(2))
    assert (first, second) == ("a", "b")


def test_latents_of_a_replaced_picture_or_another_autoencoder_are_made_anew(folder, tmp_path):
    vae, cache = tiny_pipeline().vae, tmp_path / "cache"
    examples = [Example(str(i), folder / f"{i}.bmp", "", ()) for i in range(4)]
    before = cached_latents(vae, examples, 16, cache, 2)[:]
    replaced(folder / "3.bmp", b"x" * 64, b"y" * 64)  # 40 * 3 is 'x'
    after = cached_latents(vae, examples, 16, cache, 2)[:]
    assert (after[:3] == before[:3]).all() and (after[3] != before[3]).any()
    vae.register_to_config(shift_factor=0.1)
    cached_latents(vae, examples, 16, cache, 2)
    assert len(list(cache.iterdir())) == 3


def test_latents_kept_for_all_runs_do_not_follow_who_made_them_first(tmp_path):
    """The sums of a convolution follow threads and the batch's size, in their last digits, and with them all that is
    trained on it."""
    vae = AutoencoderKL.from_pretrained(REPOSITORY / "data" / "mini-sd", subfolder="vae")
    paths = sorted((REPOSITORY / "data" / "montgomery-drr" / "images").iterdir())[:4]
    found, before = [], torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        examples = [Example(path.stem, path, "", ()) for path in paths]
        found.append(cached_latents(vae, examples, 128, tmp_path / str(threads), 4)[:])
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert torch.equal(*found)
    after = [cached_latents(vae, examples, 128, tmp_path / "both", size)[:] for size in (1, 4)]  # smoke, then quick
    assert torch.equal(after[1], found[0])


@pytest.mark.parametrize("profile", ["quick"])
def test_published_runs_are_finished_ones(profile, tmp_path, monkeypatch):
    """A copy of them is read, and nothing is made."""
    shutil.copytree(RESULTS / "published" / profile, tmp_path / profile)
    monkeypatch.setattr("selora.study.stages.execute", lambda *args: pytest.fail("it would be made again"))
    loaded = load_profile(profile)
    made_with = read_json(Run(loaded, loaded.datasets[0], "base", 0, tmp_path).folder / "settings.json")
    if made_with["base_contents"] != hash_model(loaded.base_model):
        pytest.skip("the published runs were made with a former base: publish them anew")
    for dataset in loaded.datasets:
        for method in loaded.methods:
            assert make_run(Run(loaded, dataset, method, 0, tmp_path))["n"] > 0


def test_hashing_all_that_is_shipped_takes_about_a_second():
    files = [path for path in (REPOSITORY / "data").rglob("*") if path.suffix in (".webp", ".safetensors")]
    assert len(files) > 2000
    started = time.process_time()
    for path in files:
        hash_file(path)
    assert time.process_time() - started < 1
