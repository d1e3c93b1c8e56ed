"""A mixed-rank adapter, saved and loaded into a stock pipeline, is the same adapter."""

import json
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from conftest import predict, random_batch
from diffusers import StableDiffusionPipeline
from diffusers.training_utils import _collate_lora_metadata
from diffusers.utils import convert_state_dict_to_diffusers, convert_state_dict_to_kohya
from peft import get_peft_model_state_dict
from peft.tuners.lora import Linear as LoraLinear
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from selora.adapters import add_lora, ranks
from selora.export import save_lora

WEIGHTS = "pytorch_lora_weights.safetensors"  # where a stock pipeline looks


def images(pipe: StableDiffusionPipeline) -> torch.Tensor:
    """Two images in [0, 1], before they are rounded to bytes."""
    draws = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    prompts = ["heart large, lungs clear.", ""]
    return pipe(prompts, num_inference_steps=2, height=16, width=16, generator=draws, output_type="pt").images


def as_bytes(pictures: torch.Tensor) -> torch.Tensor:
    return (pictures * 255).round().byte()


def noise(pipe: StableDiffusionPipeline) -> torch.Tensor:
    with torch.no_grad():
        return predict({"unet": pipe.unet, "text_encoder": pipe.text_encoder}, random_batch(3, seed=9))


def products(model: nn.Module) -> dict[str, torch.Tensor]:
    """What each LoRA layer adds to its weight: scaling * B A."""
    layers = {name: m for name, m in model.named_modules() if isinstance(m, LoraLinear)}
    return {name: m.get_delta_weight(m.active_adapters[0]).detach() for name, m in layers.items()}


@pytest.fixture(scope="module")
def drawn(trained) -> torch.Tensor:
    return images(trained)


def without_metadata(folder) -> None:
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.parametrize("metadata", [True, False], ids=["with metadata", "without metadata"])
def test_a_stock_pipeline_draws_the_same_images(base, trained, drawn, tmp_path, metadata):
    save_lora(trained.unet, trained.text_encoder, tmp_path)
    with safe_open(tmp_path / WEIGHTS, framework="pt") as file:
        assert "lora_adapter_metadata" in file.metadata()
    if not metadata:
        without_metadata(tmp_path)
    stock = deepcopy(base)
    stock.load_lora_weights(tmp_path)

    assert torch.allclose(noise(stock), noise(trained), rtol=0, atol=1e-5)
    again = images(stock)
    assert torch.allclose(again, drawn, rtol=0, atol=1e-5)
    assert torch.equal(as_bytes(again), as_bytes(drawn))
    for name in ("unet", "text_encoder"):
        loaded, saved = products(getattr(stock, name)), products(getattr(trained, name))
        assert loaded.keys() == saved.keys()
        assert all(torch.allclose(loaded[layer], saved[layer], rtol=0, atol=1e-7) for layer in saved)


def test_the_adapter_of_each_network_shows_in_the_images(trained, drawn):
    """Else their equality would show nothing."""
    for name in ("unet", "text_encoder"):
        half = deepcopy(trained)
        getattr(half, name).disable_adapters()
        assert not torch.equal(as_bytes(images(half)), as_bytes(drawn))


@pytest.mark.parametrize("options", [{}, {"use_dora": True}])
def test_the_file_is_the_one_that_diffusers_itself_writes(base, trained, tmp_path, options):
    """Tensor by tensor, and its metadata, with the two names of the text encoder's that transformers 5 asks for."""
    pipe = deepcopy(base) if options else trained
    if options:
        for model in (pipe.unet, pipe.text_encoder):
            add_lora(model, 2, seed=0, **options)
    save_lora(pipe.unet, pipe.text_encoder, tmp_path / "ours")
    text = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipe.text_encoder))
    text = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in text.items()}
    StableDiffusionPipeline.save_lora_weights(
        tmp_path / "theirs",
        unet_lora_layers=convert_state_dict_to_diffusers(get_peft_model_state_dict(pipe.unet)),
        text_encoder_lora_layers={n + ".weight" * n.endswith("lora_magnitude_vector"): t for n, t in text.items()},
        **_collate_lora_metadata({"unet": pipe.unet, "text_encoder": pipe.text_encoder}),
    )
    (ours, our_words), (theirs, their_words) = (read(tmp_path / whose / WEIGHTS) for whose in ("ours", "theirs"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert our_words == their_words


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """A file's tensors, and its metadata with sets, which are lists of any order, in order."""
    with safe_open(path, framework="pt") as file:
        words = json.loads(file.metadata()["lora_adapter_metadata"])
        words = {name: sorted(value) if isinstance(value, list) else value for name, value in words.items()}
        return {name: file.get_tensor(name) for name in file.keys()}, words | {"format": file.metadata()["format"]}


def test_the_saved_text_encoder_goes_by_the_name_that_other_tools_expect(trained, tmp_path):
    """transformers 5 dropped `text_model.` from CLIP's names; transformers 4 and the kohya layout look for it."""
    save_lora(trained.unet, trained.text_encoder, tmp_path)
    with safe_open(tmp_path / WEIGHTS, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith("text_encoder.")]
    assert len(names) == 2 * len(ranks(trained.text_encoder))
    assert all(name.startswith("text_encoder.text_model.encoder.layers.") for name in names)


def kohya(trained: StableDiffusionPipeline) -> dict[str, torch.Tensor]:
    tensors = {f"unet.{name}": tensor for name, tensor in get_peft_model_state_dict(trained.unet).items()}
    for name, tensor in get_peft_model_state_dict(trained.text_encoder).items():
        tensors[f"text_encoder.text_model.{name.removeprefix('text_model.')}"] = tensor
    return convert_state_dict_to_kohya(tensors)


def test_the_kohya_layout_keeps_every_product(trained):
    """There, a layer `name` adds alpha / rank * up @ down."""
    layout = kohya(trained)
    prefixes = {"lora_unet_": trained.unet, "lora_te1_text_model_": trained.text_encoder}
    for prefix, model in prefixes.items():
        for layer, product in products(model).items():
            name = prefix + layer.replace(".", "_")
            down, up = layout.pop(f"{name}.lora_down.weight"), layout.pop(f"{name}.lora_up.weight")
            assert torch.allclose(layout.pop(f"{name}.alpha") / len(down) * up @ down, product, rtol=0, atol=1e-7)
    assert not layout


def test_the_kohya_layout_with_one_alpha_loads_into_a_stock_pipeline(base, trained, tmp_path):
    """diffusers reads differing alphas wrongly from it, so an export has to bring them to one: alpha 1, up * rank."""
    layout = kohya(trained)
    for name in [key.removesuffix(".alpha") for key in layout if key.endswith(".alpha")]:
        layout[f"{name}.lora_up.weight"] = layout[f"{name}.lora_up.weight"] * layout[f"{name}.alpha"]
        layout[f"{name}.alpha"] = torch.tensor(1.0)
    save_file({name: tensor.contiguous() for name, tensor in layout.items()}, tmp_path / "kohya.safetensors")
    stock = deepcopy(base)
    stock.load_lora_weights(tmp_path, weight_name="kohya.safetensors")
    assert torch.allclose(noise(stock), noise(trained), rtol=0, atol=1e-5)


@pytest.mark.parametrize("metadata", [True, False], ids=["with metadata", "without metadata"])
def test_plain_diffusers_calls_do_the_same(base, trained, tmp_path, metadata):
    """The round trip does not hang on `selora.export`: PEFT's state dicts and diffusers' own saving suffice."""
    configs = {
        f"{name}_lora_adapter_metadata": getattr(trained, name).peft_config["default"].to_dict()
        for name in ("unet", "text_encoder")
    }
    StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=convert_state_dict_to_diffusers(get_peft_model_state_dict(trained.unet)),
        text_encoder_lora_layers=convert_state_dict_to_diffusers(get_peft_model_state_dict(trained.text_encoder)),
        **(configs if metadata else {}),
    )
    stock = deepcopy(base)
    stock.load_lora_weights(tmp_path)
    assert torch.allclose(noise(stock), noise(trained), rtol=0, atol=1e-5)
