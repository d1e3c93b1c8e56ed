"""The machine a run is on: its device and precision, its memory, and the processes that share the run.

Several processes (`accelerate launch -m selora.study ...`) each take their share of every batch, sums are taken over
all. A single process is its own share, and nothing here costs it anything.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from selora.adapters import row_by_row

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PATIENCE = timedelta(hours=6)  # for the others while the main process scores; NCCL's own is ten minutes


def state() -> PartialState:
    """Which process this is, of how many, on which device: a CUDA device if there is one, else the CPU."""
    return PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


def pieces(count: int, accumulation: int) -> list[slice]:
    """The slices of a batch of `count` samples that this process puts through the networks, one after the other.

    All processes' slices are of one size, so that a mean of their means is the batch's.

    Raises:
        ValueError: for a batch that cannot be cut so.
    """
    this = state()
    size, rest = divmod(count, this.num_processes * accumulation)
    if rest:
        raise ValueError(
            f"a batch of {count} cannot be cut into {this.num_processes} processes x {accumulation} equal parts: "
            "choose a batch_size that both divide"
        )
    starts = range(this.process_index * accumulation * size, (this.process_index + 1) * accumulation * size, size)
    return [slice(start, start + size) for start in starts]


def average(tensors: Iterable[torch.Tensor]) -> None:
    """Replace tensors of one type and device by their mean over all processes, in one exchange."""
    if state().num_processes > 1:
        tensors = list(tensors)
        flat = reduce(torch.cat([t.flatten() for t in tensors]), "mean")
        for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one core: the last digits of sums follow how many threads share them, and what is computed once for
    all runs must not follow the machine, or the first run that asked for it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def place(pipe: StableDiffusionPipeline, precision: str) -> None:
    """Bring a pipeline to this process's device, its U-Net and text encoder to a precision. The autoencoder is in fp32
    always: in bf16 its pictures would have steps of two grey levels."""
    pipe.to(state().device, torch.float32)
    for model in (pipe.unet, pipe.text_encoder):
        model.to(DTYPES[precision])
    pipe.unet.to(memory_format=torch.channels_last)  # a tenth faster


def raise_trained(networks: Mapping[str, nn.Module]) -> None:
    """Bring what is trained to fp32: steps of a small learning rate vanish in bf16, and so do Adam's moments.

    It is laid out as a checkpoint gives it back, so that a run that goes on makes the same products bit for bit.

    PEFT would bring each layer's input to fp32 then, only for `autocast` to bring it back: it is told not to.
    """
    for model in networks.values():
        for p in model.parameters():
            if p.requires_grad:
                p.data = row_by_row(p.data.float())
        if model.dtype != torch.float32:
            for module in model.modules():
                if isinstance(module, BaseTunerLayer):
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
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory_mb() -> float:
    """Peak memory since the reset: allocated on the GPU, else resident in main memory (not on Linux: ever)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    import resource  # Windows has none

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
