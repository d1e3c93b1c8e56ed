"""A merged folder is a plain pipeline that makes the images of the base with its adapter."""

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft.tuners.tuners_utils import BaseTunerLayer
from test_round_trip import images, noise

from selora.diffusion.checkpoint import save_checkpoint
from selora.diffusion.merge import add_product, merge
from selora.export import export, save_lora
from selora.files import write_json


@pytest.fixture(scope="module")
def folders(base, trained, tmp_path_factory):
    """A base on the disk, and the folder of a run that was made from it."""
    folder = tmp_path_factory.mktemp("merge")
    base.save_pretrained(folder / "base")
    save_lora(trained.unet, trained.text_encoder, folder / "run")
    record = {"dataset": "iu-drr", "method": "selora", "seed": 0, "settings": {"base_model": str(folder / "base")}}
    write_json(folder / "run" / "result.json", record)
    return folder / "base", folder / "run"


def read(folder) -> StableDiffusionPipeline:
    """Stock diffusers, and nothing of an adapter."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    assert not any(isinstance(m, BaseTunerLayer) for net in (pipe.unet, pipe.text_encoder) for m in net.modules())
    return pipe


def test_a_merged_run_makes_the_images_of_the_adapter(folders, trained, tmp_path):
    merge(folders[1], tmp_path)
    merged = read(tmp_path)
    assert torch.allclose(images(merged), images(trained), rtol=0, atol=1e-5)
    assert torch.allclose(noise(merged), noise(trained), rtol=0, atol=1e-5)


def test_an_exported_adapter_is_merged_too(folders, trained, tmp_path):
    export(folders[1], "diffusers", tmp_path / "export")
    merge(tmp_path / "export", tmp_path / "merged")
    assert torch.allclose(noise(read(tmp_path / "merged")), noise(trained), rtol=0, atol=1e-5)


def test_a_full_fine_tune_is_merged_by_its_weights(folders, base, tmp_path):
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    weight = torch.randn_like(base.unet.get_parameter(name.removeprefix("unet.")))
    save_checkpoint(tmp_path / "full" / "linear_layers.safetensors", {name: weight}, {})
    write_json(tmp_path / "full" / "result.json", {"method": "full", "settings": {"base_model": str(folders[0])}})
    merge(tmp_path / "full", tmp_path / "merged")
    merged = read(tmp_path / "merged")
    for key, value in base.unet.state_dict().items():
        assert torch.equal(merged.unet.state_dict()[key], weight if f"unet.{key}" == name else value)


def test_what_cannot_be_merged_says_why(folders, trained, tmp_path):
    save_lora(trained.unet, trained.text_encoder, tmp_path / "bare")
    with pytest.raises(ValueError, match="does not say what its base model is: name it with --base"):
        merge(tmp_path / "bare", tmp_path / "out")
    with pytest.raises(
        ValueError, match=r"text_encoder is \(512, 128\), the adapter's \(24, 16\): name the adapter's own"
    ):
        merge(tmp_path / "bare", tmp_path / "out", "data/mini-sd")
    with pytest.raises(ValueError, match="has no layer nowhere.to_q in its unet: name the adapter's own base"):
        add_product(trained, "unet", "nowhere.to_q", torch.zeros(1, 2), torch.zeros(2, 1))
    with pytest.raises(FileNotFoundError, match="holds no LoRA adapter"):
        merge(tmp_path, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="neither a folder"):
        merge(tmp_path / "bare", tmp_path / "out", str(tmp_path / "no-base"))
    with pytest.raises(ValueError, match="own folder"):
        merge(folders[1], folders[1])
    assert not (tmp_path / "out").exists()
