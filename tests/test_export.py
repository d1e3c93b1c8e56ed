"""An adapter in each format is the same adapter to the tool that reads it: images, products, names, metadata, cards."""

import json
from copy import deepcopy

import numpy as np
import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline
from peft import PeftModel, inject_adapter_in_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_round_trip import WEIGHTS, images, noise, products, read
from torch import nn

from selora.adapters import add_lora, ranks
from selora.export import export, read_adapter, save_lora, shrink
from selora.export.adapter import config_of
from selora.files import write_json

RECORD = {
    "dataset": "iu-drr",
    "method": "selora",
    "seed": 3,
    "settings": {"base_model": "data/mini-sd", "steps": 8, "method": {"threshold": 1.5}},
    "commit": "0123456789ab",
    "versions": {"peft": "1"},
    "kid": 0.2,
}
FORMATS = ("diffusers", "peft", "kohya")


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    """The folder of a finished run of SeLoRA."""
    folder = tmp_path_factory.mktemp("run")
    save_lora(trained.unet, trained.text_encoder, folder)
    write_json(folder / "result.json", RECORD)
    return folder


@pytest.fixture(scope="module")
def scaled(base, tmp_path_factory):
    """A folder of the practitioner's own: alpha is three times the rank, and no record."""
    folder, pipe = tmp_path_factory.mktemp("scaled"), deepcopy(base)
    torch.manual_seed(5)
    for model in (pipe.unet, pipe.text_encoder):
        add_lora(model, 2, seed=0)
        model.peft_config["default"].lora_alpha = 6
        for name, module in model.named_modules():
            if name.endswith("lora_B.default"):
                torch.nn.init.normal_(module.weight, std=0.05)
            elif hasattr(module, "scaling"):
                module.scaling["default"] = 3.0
    save_lora(pipe.unet, pipe.text_encoder, folder)
    return folder, pipe


def test_saving_asks_nobody_for_the_base(trained, run, tmp_path, monkeypatch, recwarn):
    pipe = deepcopy(trained)
    for model in (pipe.unet, pipe.text_encoder):
        model.peft_config["default"].base_model_name_or_path = "someone/a-base-that-is-not-here"
    asked = []
    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", lambda *of, **_: asked.append(of))
    save_lora(pipe.unet, pipe.text_encoder, tmp_path)
    assert not asked
    assert not list(recwarn)
    saved, before = load_file(tmp_path / WEIGHTS), load_file(run / WEIGHTS)
    assert saved.keys() == before.keys()
    assert all(torch.equal(saved[name], before[name]) for name in saved)


def loaded(base, folder, format) -> StableDiffusionPipeline:
    """A stock pipeline with an exported adapter, loaded in the words of the format's own tool."""
    stock = deepcopy(base)
    if format == "diffusers":
        stock.load_lora_weights(folder)
    elif format == "kohya":
        (file,) = folder.glob("*.safetensors")
        stock.load_lora_weights(folder, weight_name=file.name)
    else:
        for network in ("unet", "text_encoder"):
            setattr(stock, network, PeftModel.from_pretrained(getattr(stock, network), folder / network))
    return stock


def difference(one: StableDiffusionPipeline, other: StableDiffusionPipeline) -> float:
    """The largest, between pixels of their images, in [0, 1], and between the noises that they predict."""
    return max((images(one) - images(other)).abs().max().item(), (noise(one) - noise(other)).abs().max().item())


@pytest.mark.parametrize(("format", "close"), [("diffusers", 1e-5), ("peft", 1e-5), ("kohya", 1e-4)])
@pytest.mark.parametrize("whose", ["run", "scaled"])
def test_an_export_gives_the_images_of_the_original_in_its_own_tool(
    base, trained, run, scaled, tmp_path, format, close, whose
):
    folder, original = (run, trained) if whose == "run" else scaled
    export(folder, format, tmp_path)
    assert difference(loaded(base, tmp_path, format), original) < close
    assert difference(base, original) > 100 * close


def weights_changed(folder, base) -> dict[str, torch.Tensor]:
    """What ComfyUI and the web UIs add to each weight, written from their description of the layout alone.

    `lora_unet_` and the U-Net's names in diffusers, `lora_te_text_model_` and CLIP's names without its `text_model.`,
    dots as underscores; up @ down, times alpha over the number of rows of down.
    """
    (file,) = folder.glob("*.safetensors")
    stored, added = load_file(file), {}
    for prefix, network in (("lora_unet_", "unet"), ("lora_te_text_model_", "text_encoder")):
        for name, _ in getattr(base, network).named_modules():
            key = prefix + name.replace(".", "_")
            if f"{key}.lora_up.weight" in stored:
                down, up = stored.pop(f"{key}.lora_down.weight"), stored.pop(f"{key}.lora_up.weight")
                added[f"{network}.{name}"] = stored.pop(f"{key}.alpha").item() / down.shape[0] * up @ down
    assert not stored, "keys that no layer has"
    return added


def test_an_independent_reader_of_the_kohya_layout_finds_every_product(base, trained, run, tmp_path):
    export(run, "kohya", tmp_path)
    added = weights_changed(tmp_path, base)
    expected = {
        f"{network}.{name}": product
        for network in ("unet", "text_encoder")
        for name, product in products(getattr(trained, network)).items()
    }
    assert added.keys() == expected.keys()
    assert all(torch.allclose(added[name], expected[name], rtol=0, atol=1e-6) for name in expected)


def test_alpha_is_the_rank_wherever_the_format_keeps_both(run, trained, tmp_path):
    export(run, "diffusers", tmp_path / "diffusers")
    export(run, "peft", tmp_path / "peft")
    found = ranks(trained.text_encoder)
    _, words = read(tmp_path / "diffusers" / WEIGHTS)
    config = json.loads((tmp_path / "peft" / "text_encoder" / "adapter_config.json").read_text())
    for kept in (config, {name.removeprefix("text_encoder."): value for name, value in words.items()}):
        assert kept["r"] == kept["lora_alpha"] and kept["rank_pattern"] == kept["alpha_pattern"]
        assert {name: kept["rank_pattern"].get(name, kept["r"]) for name in found} == found


@pytest.mark.parametrize("format", FORMATS)
def test_metadata_and_card_say_what_an_adapter_came_from(run, trained, tmp_path, format):
    export(run, format, tmp_path)
    files = list(tmp_path.rglob("*.safetensors"))
    assert len(files) == (2 if format == "peft" else 1)
    for file in files:
        with safe_open(file, framework="pt") as stored:
            words = json.loads(stored.metadata()["selora"])
        assert words["base_model"] == "data/mini-sd" and words["dataset"] == "iu-drr"
        assert words["settings"] == RECORD["settings"] and words["commit"] == RECORD["commit"]
        assert words["ranks"] == {"unet": ranks(trained.unet), "text_encoder": ranks(trained.text_encoder)}
        _, front, text = (file.parent / "README.md").read_text().split("---\n", 2)
        front = yaml.safe_load(front)
        assert front["base_model"] == "data/mini-sd" and "lora" in front["tags"]
        assert front["library_name"] == ("peft" if format == "peft" else "diffusers")
        assert "0123456789ab" in text and "selora on iu-drr" in text
        assert f"| {min(ranks(trained.unet).values())} |" in text


def test_the_code_of_a_card_loads_the_adapter(base, run, trained, tmp_path):
    """Followed to the letter, with the two paths put in."""
    base.save_pretrained(tmp_path / "base")
    for format in FORMATS:
        export(run, format, tmp_path / format)
        code = (tmp_path / format / "README.md").read_text().split("```python\n")[1].split("```")[0]
        code = code.replace("data/mini-sd", str(tmp_path / "base")).replace(
            "path/to/this/folder", str(tmp_path / format)
        )
        names = {}
        exec(code, names)
        names["pipe"].set_progress_bar_config(disable=True)
        assert (noise(names["pipe"]) - noise(trained)).abs().max() < 1e-4


def test_a_base_by_its_whole_path_is_named_in_the_card_without_it(trained, tmp_path):
    save_lora(trained.unet, trained.text_encoder, tmp_path / "run")
    write_json(tmp_path / "run" / "result.json", RECORD | {"settings": {"base_model": str(tmp_path / "my-base")}})
    export(tmp_path / "run", "diffusers", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "base_model: my-base" in card and str(tmp_path) not in card


def test_an_export_is_exported_again_without_loss(run, tmp_path):
    export(run, "diffusers", tmp_path / "once")
    export(tmp_path / "once", "diffusers", tmp_path / "twice")
    (first, words), (again, same_words) = (read(folder / WEIGHTS) for folder in (run, tmp_path / "twice"))
    assert first.keys() == again.keys() and all(torch.equal(first[name], again[name]) for name in first)
    assert words["unet.rank_pattern"] and {words["format"], same_words["format"]} == {"pt"}
    one, two = read_adapter(tmp_path / "once"), read_adapter(tmp_path / "twice")
    assert one.origin == two.origin == {"base_model": "data/mini-sd"} | {k: v for k, v in RECORD.items() if k != "kid"}


def test_a_layer_whose_name_ends_anothers_keeps_its_rank():
    """PEFT reads a pattern as the end of a name: 'proj' is the end of 'block.proj' too."""
    block = nn.ModuleDict({"proj": nn.Linear(3, 3), "other": nn.Linear(3, 3)})
    model, wanted = (
        nn.ModuleDict({"proj": nn.Linear(3, 3), "block": block}),
        {"proj": 2, "block.proj": 1, "block.other": 1},
    )
    inject_adapter_in_model(config_of(wanted, None), model)
    assert ranks(model) == wanted


def test_what_cannot_be_exported_says_why(base, run, tmp_path):
    with pytest.raises(ValueError, match="unknown format 'onnx': choose from diffusers, peft, kohya"):
        export(run, "onnx", tmp_path)
    with pytest.raises(ValueError, match="is the adapter's own folder"):
        export(run, "diffusers", run)
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        export(tmp_path / "nowhere", "peft", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "linear_layers.safetensors").touch()
    with pytest.raises(FileNotFoundError, match="full fine-tune, which `selora merge`"):
        export(tmp_path / "full", "peft", tmp_path / "out")
    write_json(tmp_path / "vera" / "result.json", {"method": "vera"})
    with pytest.raises(FileNotFoundError, match="its method, vera, leaves none"):
        export(tmp_path / "vera", "peft", tmp_path / "out")
    pipe = deepcopy(base)
    for model in (pipe.unet, pipe.text_encoder):
        add_lora(model, 2, seed=0, use_dora=True)
    save_lora(pipe.unet, pipe.text_encoder, tmp_path / "dora")
    with pytest.raises(ValueError, match="lora_magnitude_vector.*not plain LoRA"):
        export(tmp_path / "dora", "peft", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("half", ["lora.up", "lora.down", "lora_A", "lora_B"])
def test_an_adapter_that_lacks_one_side_of_a_layer_is_not_converted_without_it(half, run, tmp_path):
    tensors = load_file(run / WEIGHTS)
    lost = next(name for name in tensors if half in name)
    del tensors[lost]
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match="is damaged .*is not in it"):
        read_adapter(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b"<!DOCTYPE html>" * 40, None]
)
def test_a_file_that_is_no_adapter_is_named(content, run, tmp_path):
    whole = (run / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ValueError, match=f"{WEIGHTS} is damaged .*: fetch it again"):
        export(tmp_path, "kohya", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def small(rank: int = 2, **changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """The tensors of one layer of an adapter, some of them others or none."""
    sides = {"down": torch.ones(rank, 4), "up": torch.ones(3, rank)} | changes
    return {f"unet.mid.to_q.lora.{side}.weight": tensor for side, tensor in sides.items() if tensor is not None}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"lora_adapter_metadata": "[1]"}, "metadata 'lora_adapter_metadata' holds no record"),
        ({"lora_adapter_metadata": "null"}, "metadata 'lora_adapter_metadata' holds no record, but None"),
        ({"lora_adapter_metadata": '{"unet.r": 2'}, "metadata 'lora_adapter_metadata' cannot be read"),
        ({"lora_adapter_metadata": "[" * 100_000}, "metadata 'lora_adapter_metadata' cannot be read"),
        ({"selora": '["selora"]'}, "metadata 'selora' holds no record"),
        ({"selora": '{"settings": null}'}, "its settings is None"),
        ({"selora": '{"base_model": 3}'}, "its base_model is 3"),
        ({"selora": '{"seed": "0"}'}, "its seed is '0'"),
        *(
            ({"lora_adapter_metadata": f'{{"unet.lora_alpha": {alpha}}}'}, "alpha of mid.to_q of the unet is")
            for alpha in ("null", '"4"', "NaN", "-Infinity", "[4]", "true", "1" + "0" * 400)
        ),
        *(
            ({"lora_adapter_metadata": f'{{"unet.alpha_pattern": {pattern}}}'}, "alpha_pattern of the unet is")
            for pattern in ('{"mid[": 4}', '{"a{99999999999}": 4}', '["to_q"]', "7", '"to_q"')
        ),
        ({"lora_adapter_metadata": '{"unet.alpha_pattern": {"to_q": "4"}}'}, "alpha of mid.to_q of the unet is '4'"),
        ({"lora_adapter_metadata": '{"unet.use_rslora": "no"}'}, "use_rslora of the unet is 'no'"),
    ],
)
def test_metadata_that_cannot_be_right_is_refused(words, message, tmp_path):
    """A tool's factor that is not known is not taken for 1."""
    save_file(small(), tmp_path / WEIGHTS, words)
    with pytest.raises(ValueError, match=f"{WEIGHTS} is damaged .*{message}"):
        read_adapter(tmp_path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            small(down=torch.tensor([[1.0, torch.nan, 1, 1]] * 2)),
            "mid.to_q of the unet has numbers that are not finite",
        ),
        (small(up=torch.tensor([[1.0, -torch.inf]] * 3)), "mid.to_q of the unet has numbers that are not finite"),
        (small(up=torch.ones(3, 5)), r"lora_A of mid.to_q of the unet is \(2, 4\), its lora_B \(3, 5\)"),
        (small(rank=0), r"lora_A of mid.to_q of the unet is \(0, 4\)"),
        (small(up=None, down=None), "it holds no tensors"),
        (small() | {"unet.mid.to_q.lora_A.weight": torch.zeros(2, 4)}, "mid.to_q.* is in it under another name too"),
    ],
)
def test_tensors_that_are_no_adapter_are_refused(tensors, message, tmp_path):
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match=f"{WEIGHTS} is damaged .*{message}"):
        read_adapter(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8])
def test_numbers_of_a_kind_that_is_not_scaled_are_refused(dtype, tmp_path):
    save_file({name: tensor.to(dtype) for name, tensor in small().items()}, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match=f"{WEIGHTS} holds .* as {dtype}, which is not converted: save it as"):
        read_adapter(tmp_path)


def test_numbers_that_the_scaling_makes_infinite_are_refused(tmp_path):
    tensors = {name: tensor.half() for name, tensor in small().items()}
    save_file(tensors, tmp_path / WEIGHTS, {"lora_adapter_metadata": '{"unet.lora_alpha": 1e6}'})
    with pytest.raises(ValueError, match="mid.to_q of the unet has numbers that are not finite"):
        read_adapter(tmp_path)


@pytest.mark.parametrize(
    "record", [{}, {"settings": None}, {"settings": {}}, {"settings": {"base_model": 3}}, RECORD | {"seed": "3"}]
)
def test_a_record_that_does_not_say_what_an_adapter_came_from_is_refused(record, tmp_path):
    save_file(small(), tmp_path / WEIGHTS)
    assert read_adapter(tmp_path).origin == {}
    write_json(tmp_path / "result.json", record)
    with pytest.raises(ValueError, match="result.json is damaged .*its (settings|base_model|seed) is .*: restore it"):
        read_adapter(tmp_path)


def test_a_data_set_without_a_method_has_its_card(tmp_path):
    save_file(small(), tmp_path / WEIGHTS, {"selora": '{"dataset": "iu-drr"}'})
    export(tmp_path, "kohya", tmp_path / "out")
    assert "| dataset | iu-drr |" in (tmp_path / "out" / "README.md").read_text()


# ---- shrink


def dense(folder) -> dict:
    """Each layer's product, in double precision."""
    return {key: B.double() @ A.double() for key, (A, B) in read_adapter(folder).layers.items()}


def test_all_the_energy_is_the_whole_adapter(base, run, trained, tmp_path):
    records = shrink(run, tmp_path, energy=1.0)
    assert difference(loaded(base, tmp_path, "diffusers"), trained) < 1e-5
    assert all(record["rank"] <= record["old_rank"] and record["error"] < 1e-6 for record in records)


@pytest.mark.parametrize("choice", [{"energy": 0.9}, {"energy": 0.5}, {"rank": 1}, {"rank": 2}])
def test_a_shrunk_layer_is_the_best_of_its_rank_with_the_error_that_is_stated(run, tmp_path, choice):
    """Against numpy's decomposition of the whole product."""
    records = shrink(run, tmp_path, **choice)
    before, after = dense(run), dense(tmp_path)
    assert [(r["network"], r["layer"]) for r in records] == list(before) and before.keys() == after.keys()
    for record in records:
        key = record["network"], record["layer"]
        singular = torch.from_numpy(np.linalg.svd(before[key].numpy(), compute_uv=False))
        squares = singular.square()
        k = record["rank"]
        if "energy" in choice:
            share = squares.cumsum(0) / squares.sum()
            assert share[k - 1] >= choice["energy"] - 1e-9 and (k == 1 or share[k - 2] < choice["energy"])
        else:
            assert k == min(choice["rank"], record["old_rank"])
        best = (squares[k:].sum() / squares.sum()).sqrt().item()
        lost = (torch.linalg.matrix_norm(before[key] - after[key]) / torch.linalg.matrix_norm(before[key])).item()
        assert lost == pytest.approx(best, abs=1e-6) and record["error"] == pytest.approx(best, abs=1e-6)
    assert any(record["rank"] < record["old_rank"] for record in records)


def test_a_layer_that_adds_nothing_keeps_one_rank_of_zeros(base, tmp_path):
    pipe = deepcopy(base)
    for model in (pipe.unet, pipe.text_encoder):
        add_lora(model, 3, seed=0)  # B is zero
    save_lora(pipe.unet, pipe.text_encoder, tmp_path / "run")
    records = shrink(tmp_path / "run", tmp_path / "out", energy=0.9)
    assert {(record["old_rank"], record["rank"], record["error"]) for record in records} == {(3, 1, 0.0)}
    assert all((product == 0).all() for product in dense(tmp_path / "out").values())


def test_a_shrunk_adapter_says_so_and_travels_on(base, run, tmp_path):
    shrink(run, tmp_path / "small", rank=1)
    export(tmp_path / "small", "kohya", tmp_path / "kohya")
    assert (tmp_path / "kohya" / "iu-drr-selora-seed3.safetensors").exists()
    for folder in ("small", "kohya"):
        assert "| shrunk_to | rank 1 |" in (tmp_path / folder / "README.md").read_text()
    small, kohya = (loaded(base, tmp_path / name, form) for name, form in (("small", "diffusers"), ("kohya", "kohya")))
    assert difference(small, kohya) < 1e-4


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({}, "give either"),
        ({"energy": 0.9, "rank": 2}, "give either"),
        ({"energy": 0.0}, "energy is 0.0"),
        ({"energy": 1.5}, "energy is 1.5"),
        ({"energy": float("nan")}, "energy is nan"),
        ({"rank": 0}, "rank is 0"),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(run, tmp_path, choice, message):
    with pytest.raises(ValueError, match=message):
        shrink(run, tmp_path / "out", **choice)
    assert not (tmp_path / "out").exists()
