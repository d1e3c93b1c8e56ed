"""A whole Stable Diffusion in miniature: the real classes, random weights, a few thousand parameters, no download."""

import os
import random

os.environ["HF_HUB_OFFLINE"] = "1"  # before diffusers and transformers are imported
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # of notebooks' kernels too: two tests at a time share two cores

from collections.abc import Mapping
from copy import deepcopy

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from peft import LoraConfig
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from selora import SeLoRA, linear_layers
from selora.adapters import kind, ranks
from selora.diffusion.draws import look_batches
from selora.diffusion.loop import train
from selora.diffusion.method import Earlier
from selora.methods import METHODS, make_method

torch.set_num_threads(1)  # models this small only wait for a second thread

WORDS = 77  # CLIP's context
LONGEST = ["test_run.py", "test_kills.py", "test_grid.py", "test_published.py", "test_loop.py", "test_processes.py"]

fuzzed = settings(  # 200 examples of each kind; `python scripts/fuzz_data.py` has 10,000
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", 200)),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files go first, so that all processes of `make test` end together."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def damaged(whole: bytes, until: int | None = None) -> st.SearchStrategy[bytes]:
    """Files that were cut, or of which some bytes were changed, before a place if one is given."""
    changes = st.lists(st.tuples(st.integers(0, (until or len(whole)) - 1), st.integers(0, 255)), max_size=4)

    def change(changes, end):
        content = bytearray(whole)
        for place, byte in changes:
            content[place] = byte
        return bytes(content[:end])

    return st.builds(change, changes, st.one_of(st.just(len(whole)), st.integers(0, len(whole))))


def tiny_unet() -> UNet2DConditionModel:
    """Both kinds of down and up blocks and a GEGLU; its attention heads, channels and text width all differ."""
    return UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(32, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=8,
        cross_attention_dim=16,
        attention_head_dim=8,
    )


def tiny_tokenizer() -> CLIPTokenizer:
    """Byte-pair encoding with single letters and a handful of merges."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789,."
    merges = [("c", "l"), ("cl", "e"), ("h", "e"), ("he", "a"), ("hea", "r"), ("hear", "t</w>"), ("l", "u")]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=merges, model_max_length=WORDS)


def tiny_text_encoder(vocabulary: int) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=WORDS,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    return CLIPTextModel(config)


def tiny_pipeline() -> StableDiffusionPipeline:
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=16,
    )
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=tiny_text_encoder(len(tokenizer)),
        tokenizer=tokenizer,
        unet=tiny_unet(),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def scored_base() -> StableDiffusionPipeline:
    """The tiny pipeline, with an autoencoder that halves three times: for pictures large enough to be scored."""
    pipe = tiny_pipeline()
    vae = AutoencoderKL(
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=112,
    )
    pipe.register_modules(vae=vae)
    return pipe


@pytest.fixture(scope="session")
def base() -> StableDiffusionPipeline:
    """The pipeline that the other fixtures copy; nobody may change it."""
    return tiny_pipeline()


@pytest.fixture
def pipe(base) -> StableDiffusionPipeline:
    """A copy of the pipeline, for a test to change."""
    return deepcopy(base)


@pytest.fixture
def networks(pipe) -> dict[str, nn.Module]:
    """U-Net and text encoder with plain PEFT LoRA of rank 2 on all linear layers, scaling 1.5, B off zero."""
    torch.manual_seed(1)
    networks = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    for model in networks.values():
        attach(model, rank=2, alpha=3)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.05)
    return networks


def attach(model: nn.Module, rank: int, alpha: float) -> None:
    """The first line of the practitioner's few (design section 5)."""
    model.requires_grad_(False)
    model.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=linear_layers(model)))


def trainable(networks: Mapping[str, nn.Module]) -> list[nn.Parameter]:
    return [p for model in networks.values() for p in model.parameters() if p.requires_grad]


def random_batch(size: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Latents, noise, timesteps and tokens of random samples."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "latents": torch.randn(size, 4, 8, 8, generator=generator),
        "noise": torch.randn(size, 4, 8, 8, generator=generator),
        "timesteps": torch.randint(0, 1000, (size,), generator=generator),
        "tokens": torch.randint(0, 70, (size, WORDS), generator=generator),
    }


def part(batch: Mapping[str, torch.Tensor], which: slice) -> dict[str, torch.Tensor]:
    return {name: tensor[which] for name, tensor in batch.items()}


def predict(networks: Mapping[str, nn.Module], batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The noise that U-Net and text encoder together predict."""
    states = networks["text_encoder"](batch["tokens"]).last_hidden_state
    return networks["unet"](batch["latents"], batch["timesteps"], states).sample


def mean_loss(networks: Mapping[str, nn.Module], batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The denoising loss: a mean over samples, and within each over its entries."""
    return nn.functional.mse_loss(predict(networks, batch), batch["noise"])


@pytest.fixture(scope="session")
def trained(base) -> StableDiffusionPipeline:
    """Trained for eight steps that tested the layers four times: mixed ranks in both networks; nobody may change it."""
    pipe = deepcopy(base)
    networks = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    torch.manual_seed(0)
    for model in networks.values():
        attach(model, rank=1, alpha=1)
    optimizer = torch.optim.Adam(trainable(networks), lr=2e-2)
    selora = SeLoRA(networks, optimizer, threshold=1.5, interval=2)
    for step in range(1, 9):
        with selora.probe(step):
            mean_loss(networks, random_batch(4, seed=step)).backward()
        optimizer.step()
        optimizer.zero_grad()
        selora.expand(step)
    assert all(len(set(ranks(model).values())) > 1 for model in networks.values()), "the ranks should be mixed"
    return pipe


# ---- a run of a few steps -------------------------------------------------------------------------------------------

SETTINGS = {
    "selora": {"threshold": 1.05, "interval": 2},
    "adalora": {"interval": 1},
    "increlora": {"interval": 2, "growing": 1.0},
    "elalora": {"rounds": 2, "share": 0.2},
    "gora": {"gamma": 0.01},
    "dylora": {"newest_only": True},
    "sora": {"shrinkage": 0.1},  # in so few steps all gates would close
    "vera": {"r": 8},
    "eva": {"rank": 2},  # its directions settle sooner
}


# all that need no other package; one of the LoRAs that differ in their ranks alone, and two of the growing ones that
# differ in what they grow by: with sums that a checkpoint holds, and with a K of its own
ALIKE = {name for name in METHODS if name.startswith(("ranks-", "grow-"))}
ALIKE -= {"ranks-selora", "grow-accumulated", "grow-aligned"}
TRAINED = [name for name in METHODS if name not in ("base", "qlora", *ALIKE)]


class Killed(Exception):
    pass


def tiny_data():
    """Latents and tokens of a training and a validation set."""
    generator = torch.Generator().manual_seed(3)
    return {
        split: (torch.randn(n, 4, 8, 8, generator=generator), torch.randint(0, 70, (n, WORDS), generator=generator))
        for split, n in (("train", 10), ("val", 4))
    }


@pytest.fixture
def data():
    return tiny_data()


@pytest.fixture(scope="session")
def earlier(base) -> dict[str, Earlier]:
    return finished_runs_of(base)


def finished_runs_of(base: StableDiffusionPipeline) -> dict[str, Earlier]:
    """A finished SeLoRA run of the tiny pipeline, as far as its controls read it, and ranks of two other methods'."""
    grown = {"unet": linear_layers(base.unet)[:5], "text_encoder": linear_layers(base.text_encoder)[:3]}
    tests = [
        {"step": step, "network": network, "layer": layer, "fi_ratio": 1.2, "rank": 2, "expanded": True}
        for step in (2, 6)
        for network, layers in grown.items()
        for layer in layers
    ]
    found = {
        "unet_params": 9000,
        "text_encoder_params": 2000,
        "settings": {"method": {"rank": 1, "init": "kaiming", "interval": 2}},
    }
    draw = random.Random(0)
    ended = {
        method: [
            {"network": network, "layer": layer, "kind": kind(layer), "rank": draw.randint(1, most)}
            for network in grown
            for layer in linear_layers(getattr(base, network))
        ]
        for method, most in (("selora", 5), ("increlora", 9), ("gora", 16))
    }
    return {
        method: Earlier(found if method == "selora" else {}, tests if method == "selora" else [], rows)
        for method, rows in ended.items()
    }


def run(base, name, data, checkpoint, earlier=None, kill_at=None, **changes):
    """Train a copy of the tiny pipeline for seven steps with a checkpoint every second; `kill_at` ends it there."""
    pipe = deepcopy(base)
    networks = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    method = make_method(name, SETTINGS.get(name, {}), seed=1, steps=changes.get("steps", 7), earlier=earlier)
    method.inspect(networks, look_batches(*data["train"], pipe.scheduler, seed=1))
    method.attach(networks)
    if kill_at:
        after_step = method.after_step

        def dying(step):
            if step == kill_at:
                raise Killed
            return after_step(step)

        method.after_step = dying
    settings = {
        "steps": 7, "batch_size": 3, "learning_rate": 5e-3, "prompt_dropout": 0.2, "checkpoint_interval": 2, "seed": 1,
    } | changes  # fmt: skip
    empty = torch.zeros(1, WORDS, dtype=torch.long)
    outcome = train(networks, method, pipe.scheduler, data, empty_tokens=empty, checkpoint=checkpoint, **settings)
    return networks, outcome
