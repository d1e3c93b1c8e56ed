"""Loading the base pipeline, and the machine it runs on."""

import resource
import sys
from pathlib import Path

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from selora.profiles import REPOSITORY


def load_base(name: str) -> StableDiffusionPipeline:
    """A Stable Diffusion pipeline in fp32 on the best device there is, from a folder of the repository or a hub id.

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
    except OSError as error:
        if folder.is_dir():
            raise FileNotFoundError(f"base model {folder} is incomplete: {error}") from error
        raise FileNotFoundError(
            f"base model '{name}' is neither a folder in {REPOSITORY} nor a model that can be fetched now: "
            "check the profile's base_model, or fetch it first with `hf download`"
        ) from error
    predicted = pipe.scheduler.config.prediction_type
    if predicted not in ("epsilon", "v_prediction"):
        raise ValueError(f"base model '{name}' predicts {predicted}: only epsilon and v_prediction can be trained")
    pipe.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"), torch.float32)
    pipe.unet.to(memory_format=torch.channels_last)  # a tenth faster
    return pipe


def noise_schedule(pipe: StableDiffusionPipeline) -> DDPMScheduler:
    """The forward process the base was trained with, and what it predicts."""
    return DDPMScheduler.from_config(pipe.scheduler.config)


def device_name() -> str:
    """The device that runs, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"


def reset_peak_memory() -> None:
    """Start a new measurement of `peak_memory_mb`."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb() -> float:
    """Peak memory since the reset: allocated on the GPU, else resident in main memory (not on Linux: ever)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
