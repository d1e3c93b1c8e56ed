"""What the benchmarks share: options, a pipeline of one of three shapes, a table of ratios."""

import argparse
import os
import platform
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel  # noqa: E402
from transformers import CLIPTextConfig, CLIPTextModel  # noqa: E402

from selora.analysis.paper_numbers import TEXT_ENCODER, UNET  # noqa: E402
from selora.diffusion.base import load_base  # noqa: E402
from selora.diffusion.latents import tokenize  # noqa: E402
from selora.diffusion.machine import device_name, place  # noqa: E402

SIZES = {"mini": 128, "reduced": 224, "sd15": 224}  # pixels
FAST = "bf16" if torch.cuda.is_available() else "fp32"  # bf16 is slower than fp32 on most CPUs
NEVER = 10**9  # an interval, and a threshold, that no step and no ratio reaches
PROMPTS = ("The heart is normal in size. The lungs are clear.", "Low lung volumes. No pneumothorax.")


def arguments(doc: str, **counts: tuple[int, str]) -> argparse.Namespace:
    """The command's options: --shape, and a number by each name, with its default and what it means."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--shape", choices=SIZES)
    for name, (default, meaning) in counts.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=meaning)
    return parser.parse_args()


def pick_shape(given: str | None, on_cpu: str = "mini") -> str:
    """The shape asked for; without one Stable Diffusion v1.5's on a GPU, a smaller one on a CPU."""
    return given or ("sd15" if torch.cuda.is_available() else on_cpu)


def load_pipeline(shape: str, precision: str = "fp32") -> StableDiffusionPipeline:
    """data/mini-sd, or networks of Stable Diffusion v1.5's shape with random weights, on the device there is; 'reduced'
    has a fifth of the U-Net's channels and a quarter of the others', which keeps the proportions of costs roughly."""
    pipe = load_base("data/mini-sd", precision)
    if shape == "mini":
        return pipe
    unet, text_encoder, vae = dict(UNET), dict(TEXT_ENCODER), {"block_out_channels": (128, 256, 512, 512)}
    if shape == "reduced":
        unet |= {"block_out_channels": (64, 128, 256, 256), "cross_attention_dim": 192}
        text_encoder |= {"hidden_size": 192, "intermediate_size": 768, "projection_dim": 192}
        vae = {"block_out_channels": (32, 64, 128, 128)}
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL(layers_per_block=2, **vae, **blocks),
        unet=UNet2DConditionModel(**unet),
        text_encoder=CLIPTextModel(CLIPTextConfig(**text_encoder)),
        tokenizer=pipe.tokenizer,
        scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1, **betas),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    place(pipe, precision)
    return pipe


def make_data(pipe: StableDiffusionPipeline, size: int, count: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Random latents (count, 4, size / 8, size / 8) and tokens (count, 77) as a training set."""
    shape = (count, pipe.unet.config.in_channels, size // pipe.vae_scale_factor, size // pipe.vae_scale_factor)
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(count)]
    return {"train": (torch.randn(shape), tokenize(pipe.tokenizer, prompts))}


def show(title: str, rows: list[tuple], header: tuple) -> None:
    """Print a Markdown table, with the machine in its title."""
    print(f"\n{title}; {machine()}\n")
    for row in (header, ("---",) * len(header), *rows):
        print("| " + " | ".join(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row) + " |")


def machine() -> str:
    """The device, and the version of torch."""
    processor = "" if torch.cuda.is_available() else f" of {platform.machine()}"
    return f"{device_name()}{processor}, torch {torch.__version__}"
