"""Whatever a profile, a prompt or a saved weight's file holds: a value that is what it promises, or an error with its
name; never another exception."""

import json
from copy import deepcopy

import pytest
import torch
import yaml
from conftest import damaged, fuzzed, tiny_pipeline
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from selora.adapters import add_lora
from selora.data import DataError
from selora.data.checks import text_figures
from selora.data.example import Example
from selora.data.texts import real_text
from selora.diffusion.base import load_tokenizer
from selora.diffusion.checkpoint import load_checkpoint, save_checkpoint
from selora.diffusion.finite import dead_tensors
from selora.diffusion.latents import tokenize
from selora.export import save_lora
from selora.files import FULL, WEIGHTS
from selora.study.profiles import FOLDER, Profile, fits, load_profile
from selora.study.sample_run import load_weights

SMOKE = (FOLDER / "smoke.yaml").read_text(encoding="utf-8")
SETTINGS = yaml.safe_load(SMOKE)

SCALAR = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6),
    st.sampled_from(["1e-4", "iu-drr", "selora", "lora", "bf16", "pndm", "other", 0, -1, 1, 128, 2.5, "x" * 300]),
)  # fmt: skip
VALUE = st.recursive(
    SCALAR,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(SCALAR, inner, max_size=3)),
    max_leaves=6,
)


@st.composite
def profiles(draw) -> str:
    """The smoke profile with some values changed, left out, or added; or with some of its text replaced."""
    if draw(st.booleans()):
        values = dict(SETTINGS)
        for name in draw(st.lists(st.sampled_from([*SETTINGS, "precision", "compile", "seed", "name"]), max_size=3)):
            values[name] = draw(VALUE)
        for name in draw(st.lists(st.sampled_from(list(SETTINGS)), max_size=1)):
            values.pop(name, None)
        return yaml.safe_dump(values, allow_unicode=True)
    start = draw(st.integers(0, len(SMOKE)))
    added = draw(
        st.sampled_from(["&a [*a]", "[" * 3000, "seeds: [1]\n", "!!python/object:os.system x", "2001-99-99", "9" * 5000,
                         "\t", ": ", "? ", "<<: 3\n", "{[1]: 2}", "!!binary x", "\0", "- ", '"', "1_0", "~"])
    )  # fmt: skip
    return SMOKE[:start] + added + SMOKE[start + draw(st.integers(0, 40)) :]


@fuzzed
@given(content=st.one_of(profiles().map(lambda text: text.encode(errors="replace")), st.binary(max_size=100)))
def test_profiles(content, tmp_path):
    (tmp_path / "own.yaml").write_bytes(content)
    try:
        profile = load_profile(str(tmp_path / "own.yaml"))
        for dataset in profile.datasets:
            for method in profile.methods:
                assert profile.run_settings(dataset, method)["steps"] >= 1
    except ValueError as error:
        assert type(error) is ValueError and "\n" not in str(error)
        assert any(word in str(error) for word in ("profile", "unknown", "threshold"))
    else:
        assert all(fits(getattr(profile, name), kind) for name, kind in Profile.__annotations__.items())


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("data/mini-sd")


@fuzzed
@given(text=st.one_of(st.text(max_size=60), st.text(max_size=12).map(lambda part: part * 30)))
def test_prompts(text, tokenizer, tmp_path):
    """What is taken for a text is one that the tokenizer reads, with its start and its end."""
    try:
        prompt = real_text(text, "Image a.png")
    except DataError as error:
        assert str(error).startswith("Image a.png") and str(error).encode()
    else:
        (tokens,) = tokenize(tokenizer, [prompt]).tolist()
        assert len(tokens) == 77 and tokens[0] == tokenizer.bos_token_id and tokenizer.eos_token_id in tokens
        figures = text_figures({"train": [Example("a", tmp_path, prompt, ("nodule",))]}, tokenizer)
        assert figures["prompts"] == 1 and figures["prompts_cut"] <= 1


# ---- saved weights --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory) -> bytes:
    """LoRA of a base, as `save_lora` writes it."""
    pipe, folder = deepcopy(base), tmp_path_factory.mktemp("lora")
    for model in (pipe.unet, pipe.text_encoder):
        add_lora(model, 2, seed=0)
    save_lora(pipe.unet, pipe.text_encoder, folder)
    return (folder / WEIGHTS).read_bytes()


@pytest.fixture(scope="module")
def linear(base, tmp_path_factory) -> bytes:
    """A few layers of a full fine-tune."""
    path = tmp_path_factory.mktemp("full") / FULL
    named = list(base.unet.named_parameters())[:6]
    save_checkpoint(path, {f"unet.{name}": parameter for name, parameter in named}, {})
    return path.read_bytes()


def header_length(content: bytes) -> int:
    return 8 + int.from_bytes(content[:8], "little")


@st.composite
def changed(draw, path, content: bytes) -> bytes:
    """A file of which tensors were left out, renamed, cut, added or made dead; or whose bytes were damaged."""
    if draw(st.booleans()):
        return draw(damaged(content, until=header_length(content)))
    path.write_bytes(content)
    tensors = load_file(path)
    for name in draw(st.lists(st.sampled_from(sorted(tensors)), max_size=2, unique=True)):
        tensor = tensors.pop(name)
        how = draw(st.sampled_from(["away", "renamed", "cut", "dead", "whole", "half", "more", "other"]))
        if how != "away":
            other = {"cut": tensor[:-1].clone(), "dead": torch.full_like(tensor, torch.nan), "half": tensor.half(),
                     "other": torch.zeros(2, 2), "more": torch.cat([tensor, tensor])}.get(how, tensor)  # fmt: skip
            tensors[draw(st.text(max_size=9)) + name if how == "renamed" else name] = other.contiguous()
    words = {} if draw(st.booleans()) else {"lora_adapter_metadata": draw(st.sampled_from(["", "{", "{}", "[1]"]))}
    save_file(tensors, path, {"record": "{}"} | words)
    return path.read_bytes()


@pytest.mark.parametrize("half", ["lora.up", "lora.down", "lora_A", "lora_B"])
def test_an_adapter_that_lacks_half_of_a_layer(half, base, adapter, tmp_path):
    """Which diffusers loads without a word."""
    path = tmp_path / WEIGHTS
    path.write_bytes(adapter)
    tensors = load_file(path)
    lost = next(name for name in tensors if half in name)
    save_file(tensors | {f"un{lost}": tensors.pop(lost)}, path)
    with pytest.raises(ValueError, match=f"{WEIGHTS} does not fit the base model .*is not in it"):
        load_weights(deepcopy(base), path)


@pytest.mark.parametrize("kind", ["adapter", "linear"])
def test_saved_weights(kind, base, request, tmp_path):
    """Either all of a file is in the pipeline, and finite, or its name is in the error."""
    path = tmp_path / {"adapter": WEIGHTS, "linear": FULL}[kind]
    whole = request.getfixturevalue(kind)
    path.write_bytes(whole)
    load_weights(deepcopy(base), path)

    @fuzzed
    @given(content=changed(path, whole))
    def check(content):
        path.write_bytes(content)
        pipe = deepcopy(base)
        try:
            load_weights(pipe, path)
        except ValueError as error:
            assert path.name in str(error)
        else:
            models = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
            held = {f"{net}.{name}": p for net, model in models.items() for name, p in model.named_parameters()}
            assert not dead_tensors(held)

    check()


@fuzzed
@given(st.data())
def test_checkpoints(linear, tmp_path, data):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(data.draw(damaged(linear, until=header_length(linear))))
    try:
        tensors, record = load_checkpoint(path)
    except ValueError as error:
        assert "checkpoint.safetensors is damaged" in str(error)
    else:
        assert all(torch.is_tensor(tensor) for tensor in tensors.values())
        json.dumps(record)


@pytest.mark.parametrize("record", ["[" * 100_000, '{"a":' * 100_000, "[1]", "5", "null", '"{}"'])
def test_a_checkpoint_without_a_record_is_named(record, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    save_file({"w": torch.zeros(1)}, path, {"record": record})
    with pytest.raises(ValueError, match="checkpoint.safetensors is damaged .*: remove it to make it anew"):
        load_checkpoint(path)


def test_a_folder_in_place_of_a_checkpoint_is_named(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    path.mkdir()
    with pytest.raises(ValueError, match="checkpoint.safetensors is a folder, and no checkpoint: remove it"):
        load_checkpoint(path)
