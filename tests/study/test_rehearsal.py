"""What the end of a run needs is tried before its training, and each lack has a message of its own."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import tiny_pipeline, tiny_unet
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from selora.data.example import DataError, Example
from selora.diffusion import base as loading
from selora.diffusion.base import check_files, check_kind, load_base, try_base
from selora.diffusion.checkpoint import save_checkpoint
from selora.files import REPOSITORY
from selora.study import __main__, preflight, rehearsal
from selora.study.grid import arguments_of
from selora.study.profiles import FOLDER, load_profile
from selora.study.results import Run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A whole base of a few thousand parameters, as diffusers writes it."""
    folder = tmp_path_factory.mktemp("base") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    return folder


def edited(path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


@pytest.fixture
def copy(folder, tmp_path, monkeypatch):
    """A copy of it to break, as the profile's base_model."""
    monkeypatch.setattr(loading, "REPOSITORY", tmp_path)
    return shutil.copytree(folder, tmp_path / "tiny")


def test_a_sound_base_passes(copy):
    try_base(load_base("tiny"), "tiny", 16)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, "is a StableDiffusionXLPipeline: only"),
        ("model_index.json", {"_class_name": "FluxPipeline"}, "is a FluxPipeline: only Stable Diffusion 1.x and 2.x"),
        (
            "scheduler/scheduler_config.json",
            {"num_train_timesteps": 500},
            "schedule of 500 timesteps: only one of 1000",
        ),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "predicts sample"),
        ("tokenizer/tokenizer_config.json", {"model_max_length": int(1e30)}, r'"model_max_length": 77 into its tok'),
        ("tokenizer/tokenizer_config.json", {"model_max_length": 512}, "cuts texts at 512 tokens"),
    ],
)
def test_a_base_of_another_kind_is_named(copy, file, changes, message):
    edited(copy / file, **changes)
    with pytest.raises(ValueError, match=message):
        load_base("tiny")


@pytest.mark.parametrize("channels", [9, 8])
def test_a_unet_that_takes_more_than_latents_is_refused(pipe, channels):
    pipe.unet.register_to_config(in_channels=channels)
    with pytest.raises(ValueError, match=f"{channels} input channels for latents of 4"):
        check_kind(pipe, "inpainting")


def test_a_unet_for_other_texts_is_found_by_one_pass(pipe):
    config = dict(tiny_unet().config) | {"cross_attention_dim": 24}
    pipe.unet = UNet2DConditionModel.from_config(config)
    with pytest.raises(ValueError, match="base model 'wide' cannot be run at 16 pixels"):
        try_base(pipe, "wide", 16)


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        (("unet", ".safetensors", ".fp16.safetensors"), "fp16 variant of its unet alone: .*variant='fp16'"),
        (("text_encoder", ".safetensors", ".fp16.safetensors"), "fp16 variant of its text_encoder alone"),
        (("vae", ".safetensors", ".bin"), r"its vae as a pickle \(.bin\) alone.*use_safetensors=False"),
        (("text_encoder", ".safetensors", ".bin"), r"its text_encoder as a pickle"),
    ],
)
def test_weights_of_one_form_get_their_own_advice(copy, rename, message):
    part, old, new = rename
    for path in (copy / part).glob(f"*{old}"):
        path.rename(path.with_name(path.name.replace(old, new)))
    with pytest.raises(FileNotFoundError, match=message):
        load_base("tiny")


def test_files_of_both_forms_are_no_problem(copy):
    for part in ("unet", "vae"):
        for path in (copy / part).glob("*.safetensors"):
            for ending in (".fp16.safetensors", ".bin"):
                path.with_suffix("").with_suffix(ending).write_bytes(b"")
    check_files(copy)


PARTS_OF_A_BASE = (
    "model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json", "text_encoder/model.safetensors",
    "tokenizer/tokenizer.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
)  # fmt: skip


@pytest.mark.parametrize("file", PARTS_OF_A_BASE)
@pytest.mark.parametrize(
    "damage", [lambda c: b"", lambda c: c[: len(c) // 2], lambda c: b"{}", lambda c: b"[1]", lambda c: c[9:] + c[:9]],
    ids=["empty", "half", "an empty record", "a list", "shifted"],
)  # fmt: skip
def test_a_damaged_base_is_named(copy, file, damage):
    (copy / file).write_bytes(damage((copy / file).read_bytes()))
    with pytest.raises((FileNotFoundError, ValueError), match="tiny") as caught:
        load_base("tiny")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae"])
def test_a_base_that_lacks_tensors_is_not_filled_up_at_random(copy, part):
    (path,) = (copy / part).glob("*.safetensors")
    tensors = load_file(path)
    lost = sorted(tensors)[3]
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, path, {"format": "pt"})
    with pytest.raises(FileNotFoundError, match="1 tensors are not in the file of its"):
        load_base("tiny")


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_a_base_that_lacks_layers_its_file_has_is_another_one(copy, part):
    (path,) = (copy / part).glob("*.safetensors")
    save_file(load_file(path) | {"mid_block.resnets.7.conv1.weight": torch.zeros(1)}, path, {"format": "pt"})
    with pytest.raises(FileNotFoundError, match="1 tensors in its file are none of its .*mid_block.resnets.7"):
        load_base("tiny")


def test_a_base_that_lacks_finite_numbers_ends_first(pipe):
    pipe.unet.conv_in.weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="predicts numbers that are not finite"):
        try_base(pipe, "dead", 16)


@pytest.mark.parametrize("size", [64, 104])
def test_a_resolution_that_cannot_be_scored_ends_first(pipe, tmp_path, size):
    run = Run(replace(load_profile("smoke"), resolution=size), "iu-drr", "lora", 0, tmp_path)
    with pytest.raises(ValueError, match=f"resolution {size} is too small for MS-SSIM"):
        rehearsal.try_end(run, pipe, [])


@pytest.mark.parametrize("name", ["1.2.840." + "1" * 250, "ü" * 130, "a\0b"])
def test_a_name_that_no_sample_can_have_ends_first(pipe, tmp_path, name):
    run = Run(load_profile("smoke"), "iu-drr", "lora", 0, tmp_path)
    fine = Example("1.2.840.113619." + "7" * 49, tmp_path, "", ())
    rehearsal.try_end(run, pipe, [fine])
    assert not list((run.folder / "samples").iterdir())
    with pytest.raises((DataError, ValueError), match="Sample .* could not be saved"):
        rehearsal.try_end(run, pipe, [fine, Example(name, tmp_path, "", ())])


def refused(*arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        __main__.main(["--dataset", "iu-drr", "--method", "base", *arguments])
    return str(stop.value)


def test_results_that_cannot_be_written_are_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    said = refused("--profile", "smoke", "--results", str(tmp_path / "file" / "results"))
    assert "nothing can be written to" in said and "Not a directory" in said and "--results" in said
    monkeypatch.setattr(preflight, "CACHE", tmp_path / "file" / "cache")
    assert "SELORA_CACHE" in refused("--profile", "smoke", "--results", str(tmp_path / "results"))


def test_a_full_disk_is_one_line_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("selora.export.tensors.save_file", fail_as_full)
    with pytest.raises(OSError, match="c.safetensors cannot be written .*make room"):
        save_checkpoint(tmp_path / "c.safetensors", {"a": torch.zeros(1)}, {})
    assert not list(tmp_path.iterdir())


def fail_as_full(*args):
    raise SafetensorError("I/O error: No space left on device (os error 28)")


def test_a_profile_of_ones_own_is_a_file(tmp_path):
    text = (FOLDER / "smoke.yaml").read_text(encoding="utf-8")
    own = tmp_path / "mine.yaml"
    own.write_text("# für mich\n" + text.replace("\nimages: 8", "\nimages: 7"), encoding="utf-8")
    profile = load_profile(str(own))
    assert (profile.name, profile.images) == ("mine", 7)
    run = Run(profile, "iu-drr", "lora", 0, tmp_path)
    assert run.folder.parts[-5] == "mine" and str(own) in arguments_of(run)
    assert replace(profile, images=8).run_settings("iu-drr", "lora") == load_profile("smoke").run_settings(
        "iu-drr", "lora"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "cannot be read"),
        ("", "holds no settings"),
        ("- 1", "holds no settings"),
        ("resolution: 128", "lacks base_model, datasets"),
        ("file: x", "unknown setting in profile .* 'file'"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_no_profile_is_one_line(tmp_path, text, message):
    if text is not None:
        (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
    said = refused("--profile", str(tmp_path / "own.yaml"))
    assert said.startswith("selora: ") and "\n" not in said
    assert re.search(message, said)


def test_the_cache_is_where_one_says(tmp_path):
    command = [sys.executable, "-c", "from selora.files import CACHE; print(CACHE)"]
    environment = os.environ | {"SELORA_CACHE": str(tmp_path / "mine"), "PYTHONPATH": str(REPOSITORY)}
    assert subprocess.check_output(command, text=True, env=environment).strip() == str(tmp_path / "mine")


def test_nothing_of_the_package_needs_unix_at_its_top_or_a_machines_own_encoding():
    """`resource` and `fcntl` are not on Windows, whose own encoding is not UTF-8."""
    unix, found = {"resource", "fcntl", "pwd", "grp", "termios"}, []
    for path in sorted((REPOSITORY / "selora").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            names = {a.name for a in node.names} if isinstance(node, ast.Import) else set()
            names |= {node.module} if isinstance(node, ast.ImportFrom) else set()
            found += [f"{path.name}: import {name}" for name in names & unix]
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            inside = [part for argument in call.args for part in ast.walk(argument) if isinstance(part, ast.Constant)]
            binary = any("b" in part.value for part in inside if isinstance(part.value, str) and len(part.value) < 4)
            own = name in ("read_text", "write_text") or (name == "open" and is_files_open(call) and not binary)
            own &= not (name == "write_text" and isinstance(call.func, ast.Name))  # the package's
            if own and "encoding" not in {keyword.arg for keyword in call.keywords}:
                found.append(f"{path.name}:{call.lineno} {name}")
    assert not found


def is_files_open(call) -> bool:
    """Whether a call named open opens a file as text or bytes, and is not of Pillow's, tarfile's or zipfile's."""
    holder = call.func.value if isinstance(call.func, ast.Attribute) else None
    return not (isinstance(holder, ast.Name) and holder.id in ("Image", "tarfile", "zipfile", "gzip", "webbrowser"))
