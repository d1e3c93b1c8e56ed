"""Loading the base pipeline, and the machine it runs on."""

import resource
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import CLIPTokenizer
from transformers.utils import logging as transformers_logging

from selora import processes
from selora.profiles import REPOSITORY

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_tokenizer(name: str) -> CLIPTokenizer:
    """The tokenizer of a base model, from a folder of the repository or a hub id."""
    folder = REPOSITORY / name
    return CLIPTokenizer.from_pretrained(folder if folder.is_dir() else name, subfolder="tokenizer")


def load_base(name: str, precision: str = "fp32") -> StableDiffusionPipeline:
    """A Stable Diffusion pipeline from a folder of the repository or a hub id, put where `place` says.

    precision: a key of DTYPES.

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
            "profile's base_model, or fetch it first: python -m selora.download sd15, or `hf download` for another"
        ) from error
    predicted = pipe.scheduler.config.prediction_type
    if predicted not in ("epsilon", "v_prediction"):
        raise ValueError(f"base model '{name}' predicts {predicted}: only epsilon and v_prediction can be trained")
    place(pipe, precision)
    return pipe


def place(pipe: StableDiffusionPipeline, precision: str) -> None:
    """Bring a pipeline to this process's device, its U-Net and text encoder to a precision. The autoencoder is in fp32
    always: in bf16 its pictures would have steps of two grey levels."""
    pipe.to(processes.state().device, torch.float32)
    for model in (pipe.unet, pipe.text_encoder):
        model.to(DTYPES[precision])
    pipe.unet.to(memory_format=torch.channels_last)  # a tenth faster


def raise_trained(networks: Mapping[str, nn.Module]) -> None:
    """Bring what is trained to fp32: steps of a small learning rate vanish in bf16, and so do Adam's moments.

    PEFT would bring each layer's input to fp32 then, only for `autocast` to bring it back: it is told not to.
    """
    for model in networks.values():
        for p in model.parameters():
            if p.requires_grad:
                p.data = p.data.float()
        for module in model.modules():
            if isinstance(module, BaseTunerLayer) and model.dtype != torch.float32:
                module.cast_input_dtype_enabled = False


def autocast(unet: UNet2DConditionModel) -> torch.autocast:
    """Run a U-Net and a text encoder in the precision of the U-Net's frozen weights, what is trained included."""
    return torch.autocast(unet.device.type, unet.dtype, enabled=unet.dtype != torch.float32)


def compile_blocks(unet: UNet2DConditionModel, backend: str = "inductor") -> None:
    """Compile the U-Net's transformer blocks, where most of its time goes, so that growing ranks do not compile anew.

    A rank is a size that may change; only 1 is a case of its own for torch.compile, so a layer that leaves it compiles
    its block once more. `compiled_graphs` counts.
    """
    dynamo = torch._dynamo.config
    dynamo.force_parameter_static_shapes = dynamo.force_nn_module_property_static_shapes = False
    dynamo.recompile_limit = 256  # of one function, which all blocks share; beyond it code runs uncompiled
    unet.compile_repeated_blocks(dynamic=True, backend=backend)


def compiled_graphs() -> int:
    """How many graphs torch.compile has compiled in this process."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


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
