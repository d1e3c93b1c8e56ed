"""The base model: a Stable Diffusion pipeline, and the forward process it was trained with."""

from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from selora.diffusion.machine import place
from selora.files import REPOSITORY


def load_base(name: str, precision: str = "fp32") -> StableDiffusionPipeline:
    """A Stable Diffusion pipeline from a folder of the repository or a hub id, put where `machine.place` says.

    precision: fp32 or bf16 (`machine.DTYPES`).

    Raises:
        FileNotFoundError: where it is neither, with what to do.
        ValueError: for a base that predicts neither the noise nor the velocity.
    """
    diffusers_logging.set_verbosity_error()  # else it prints the cut end of every long prompt
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    folder = REPOSITORY / name
    try:
        pipe = StableDiffusionPipeline.from_pretrained(
            folder if folder.is_dir() else name,
            safety_checker=None,
            requires_safety_checker=False,
            use_safetensors=True,
        )
    except (OSError, ValueError) as error:  # ValueError: the name of a folder that is not there is no hub id
        if folder.is_dir():
            raise FileNotFoundError(f"base model {folder} is incomplete, fetch it again: {error}") from error
        raise FileNotFoundError(
            f"base model '{name}' is neither a folder in {REPOSITORY} nor a model that can be fetched now: check the "
            "profile's base_model, or fetch it first: python -m selora.data.fetch sd15, or `hf download` for another"
        ) from error
    predicted = pipe.scheduler.config.prediction_type
    if predicted not in ("epsilon", "v_prediction"):
        raise ValueError(f"base model '{name}' predicts {predicted}: only epsilon and v_prediction can be trained")
    place(pipe, precision)
    return pipe


def noise_schedule(pipe: StableDiffusionPipeline) -> DDPMScheduler:
    """The forward process the base was trained with, and what it predicts."""
    return DDPMScheduler.from_config(pipe.scheduler.config)
