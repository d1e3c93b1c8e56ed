"""The base model: a Stable Diffusion pipeline, and the forward process it was trained with."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, ModelMixin, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from selora.diffusion.machine import autocast, place
from selora.files import REPOSITORY, read_json

TIMESTEPS = 1000  # of the noise schedule: `draws` draws from as many
PARTS = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
BETAS = ("beta_start", "beta_end", "beta_schedule")  # of the noise schedule's configuration
WEIGHTS = ("diffusion_pytorch_model", "model", "pytorch_model")  # how diffusers and transformers name their files


def load_tokenizer(name: str) -> CLIPTokenizer:
    """The tokenizer of a base model, from a folder of the repository or a hub id."""
    folder = REPOSITORY / name
    return CLIPTokenizer.from_pretrained(folder if folder.is_dir() else name, subfolder="tokenizer")


def load_base(name: str, precision: str = "fp32") -> StableDiffusionPipeline:
    """A Stable Diffusion pipeline from a folder of the repository or a hub id, put where `machine.place` says.

    precision: fp32 or bf16 (`machine.DTYPES`).

    Raises:
        FileNotFoundError: where it is neither, with what to do.
        ValueError: for a base of another kind than Stable Diffusion 1.x and 2.x.
    """
    diffusers_logging.set_verbosity_error()  # else it prints the cut end of every long prompt
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    folder = REPOSITORY / name
    source = folder if folder.is_dir() else name
    if folder.is_dir():
        check_files(folder)
    try:
        parts = {part: read_whole(cls, source, subfolder=part) for part, cls in PARTS.items()}
        pipe = StableDiffusionPipeline.from_pretrained(
            source, **parts, safety_checker=None, requires_safety_checker=False, use_safetensors=True
        )
    except Exception as error:  # diffusers, transformers and tokenizers raise whatever they meet in a damaged file
        why = " ".join(f"{type(error).__name__}: {error}".split())
        if folder.is_dir():
            raise FileNotFoundError(
                f"base model {folder} is incomplete or damaged, fetch it again: {why:.500}"
            ) from error
        raise FileNotFoundError(
            f"base model '{name}' is neither a folder in {REPOSITORY} nor a model that can be fetched now: check the "
            "profile's base_model, or fetch it first: python -m selora.data.fetch sd15, or `hf download` for another "
            f"({why:.500})"
        ) from error
    check_kind(pipe, name)
    place(pipe, precision)
    return pipe


def read_whole(cls: type, source: str | Path, **where: str) -> nn.Module:
    """A model of diffusers or transformers, with all its tensors from its file: what a file lacks they would draw at
    random, saying so in a log alone.

    Raises OSError for a file that lacks some, or that holds more than its configuration has a place for; and whatever
    from_pretrained raises.
    """
    model, found = cls.from_pretrained(source, use_safetensors=True, output_loading_info=True, **where)
    if lacking := sorted(found["missing_keys"]):
        raise OSError(f"{len(lacking)} tensors are not in the file of its {cls.__name__}, {lacking[0]} the first")
    if issubclass(cls, ModelMixin) and (spare := sorted(found["unexpected_keys"])):  # text encoders may be cut short
        raise OSError(f"{len(spare)} tensors in its file are none of its {cls.__name__}'s, {spare[0]} the first")
    return model


def check_files(folder: Path) -> None:
    """Look at a base's folder before anything is read.

    Raises:
        ValueError: for a pipeline of another class than Stable Diffusion's, or a noise schedule that is not told.
        FileNotFoundError: for weights in a form alone that is not read, with how to bring them to another.
    """
    index = folder / "model_index.json"
    kind = read_json(index).get("_class_name") if index.is_file() else StableDiffusionPipeline.__name__
    if kind != StableDiffusionPipeline.__name__:
        raise ValueError(
            f"base model {folder} is a {kind}: only Stable Diffusion 1.x and 2.x (a StableDiffusionPipeline) can be "
            "adapted here: choose such a one as base_model"
        )
    schedule = folder / "scheduler" / "scheduler_config.json"
    lacking = [key for key in BETAS if key not in (read_json(schedule) if schedule.is_file() else BETAS)]
    if lacking:  # diffusers has values of its own, of another schedule than Stable Diffusion's
        raise ValueError(f"{schedule} lacks {', '.join(lacking)}: fetch it again")
    save = "StableDiffusionPipeline.from_pretrained({0!r}, {1}).save_pretrained({0!r})"
    for part in ("unet", "text_encoder", "vae"):
        files = [path.name for path in folder.glob(f"{part}/*") if path.name.startswith(WEIGHTS)]
        whole = [name for name in files if name.endswith(".safetensors") and ".fp16." not in name]
        if any(name.endswith(".safetensors") for name in files) and not whole:
            raise FileNotFoundError(
                f"base model {folder} has the fp16 variant of its {part} alone: fetch the other files too, or save it "
                "without the variant: " + save.format(str(folder), "variant='fp16'")
            )
        if any(name.endswith(".bin") for name in files) and not whole:
            raise FileNotFoundError(
                f"base model {folder} has its {part} as a pickle (.bin) alone, which may run code and is not read: "
                "fetch its .safetensors, or, if you trust it, save it as such: "
                + save.format(str(folder), "use_safetensors=False")
            )


def check_kind(pipe: StableDiffusionPipeline, name: str) -> None:
    """Raise ValueError for a base that the training loop's arithmetic is not made for, with what is the matter."""
    predicted, timesteps = (pipe.scheduler.config[key] for key in ("prediction_type", "num_train_timesteps"))
    channels, expected = pipe.unet.config.in_channels, pipe.vae.config.latent_channels
    words, context = pipe.tokenizer.model_max_length, pipe.text_encoder.config.max_position_embeddings
    wrong = None
    if predicted not in ("epsilon", "v_prediction"):
        wrong = f"predicts {predicted}: only epsilon and v_prediction can be trained"
    elif timesteps != TIMESTEPS:
        wrong = f"has a noise schedule of {timesteps} timesteps: only one of {TIMESTEPS} can be trained"
    elif channels != expected:
        wrong = (
            f"has a U-Net of {channels} input channels for latents of {expected} (9 are an inpainting model's): "
            "choose its text-to-image sibling"
        )
    elif pipe.unet.config.addition_embed_type is not None:
        wrong = "has a U-Net that takes more than a text (as SDXL's): choose Stable Diffusion 1.x or 2.x"
    elif any(pipe.vae.config.get(key) is not None for key in ("shift_factor", "latents_mean", "latents_std")):
        wrong = "has an autoencoder whose latents are shifted, which is not done here: choose another"
    elif words > context:
        wrong = (
            f"has a tokenizer that cuts texts at {words} tokens, but a text encoder of {context}: write "
            f'"model_max_length": {context} into its tokenizer/tokenizer_config.json'
        )
    if wrong:
        raise ValueError(f"base model '{name}' {wrong}")


@torch.no_grad()
def try_base(pipe: StableDiffusionPipeline, name: str, size: int) -> None:
    """One forward pass with the shapes of a study at `size` pixels, so that a base that cannot do it fails first.

    Raises:
        ValueError: with what the networks said.
    """
    side, device = size // pipe.vae_scale_factor, pipe.unet.device
    latents = torch.zeros(1, pipe.unet.config.in_channels, side, side, device=device)
    tokens = torch.zeros(1, pipe.tokenizer.model_max_length, dtype=torch.long, device=device)
    try:
        with autocast(pipe.unet):
            states = pipe.text_encoder(tokens).last_hidden_state
            found = pipe.unet(latents, torch.zeros(1, dtype=torch.long, device=device), states).sample
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"base model '{name}' cannot be run at {size} pixels ({error}): choose another") from error
    if found.shape != latents.shape:
        raise ValueError(f"base model '{name}' predicts no latents of its own kind: choose another")
    if not found.isfinite().all():
        raise ValueError(f"base model '{name}' predicts numbers that are not finite: fetch it again")


def noise_schedule(pipe: StableDiffusionPipeline) -> DDPMScheduler:
    """The forward process the base was trained with, and what it predicts."""
    return DDPMScheduler.from_config(pipe.scheduler.config)
