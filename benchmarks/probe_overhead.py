"""What a test of all layers costs: step times of plain LoRA, of SeLoRA without and with a probe, and of two passes.

    python benchmarks/probe_overhead.py --steps 30

All four run in one process on the same networks at the same ranks, in turn and in changing order, so that a drift of
the machine cancels. Figures are medians of whole training steps, as ratios to plain LoRA; nothing ever grows.

The released code of the paper tests a layer by a second pass: it enlarges every layer by its candidate, runs a second
forward and backward of the batch, and compares the squared gradients of that pass with those of the first. 'two passes'
does this (and takes the enlargement back), 'probe' reads the same gradients off the first pass.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from diffusers import StableDiffusionPipeline, UNet2DConditionModel  # noqa: E402
from torch import nn  # noqa: E402
from transformers import CLIPTextConfig, CLIPTextModel  # noqa: E402

from selora import SeLoRA  # noqa: E402
from selora.adapters import ADAPTER, add_lora, draw_row, lora_layers, set_weights, trainable_parameters  # noqa: E402
from selora.expansion import append_rank  # noqa: E402
from selora.fisher import fi_ratio  # noqa: E402

NEVER = 10**9  # an interval, and a threshold, that no step and no ratio reaches


def load_networks(rank: int) -> dict[str, nn.Module]:
    """The mini base model, or networks of like shape with random weights where it is absent; with LoRA."""
    torch.manual_seed(0)
    folder = ROOT / "data" / "mini-sd"
    if (folder / "model_index.json").exists():
        pipe = StableDiffusionPipeline.from_pretrained(folder)
        networks = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    else:
        unet = UNet2DConditionModel(
            sample_size=16,
            layers_per_block=1,
            block_out_channels=(64, 128, 192),
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=192,
            attention_head_dim=4,
        )
        sizes = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4}
        networks = {"unet": unet, "text_encoder": CLIPTextModel(CLIPTextConfig(vocab_size=6000, **sizes))}
        print("no mini base model in data/mini-sd: random weights")
    for seed, model in enumerate(networks.values()):
        add_lora(model, rank, seed)
        model.train()
    return networks


class TwoPasses:
    """The test by a second forward and backward of enlarged layers."""

    def __init__(self, networks: dict[str, nn.Module]):
        self.layers = [layer for model in networks.values() for layer in lora_layers(model).values()]

    def test(self, backward: Callable[[], None], originals: list[torch.Tensor]) -> list[float]:
        """`originals`: each layer's squared gradients in the first pass."""
        generator, kept = torch.Generator().manual_seed(0), []
        for layer in self.layers:
            kept.append((layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight))
            append_rank(layer, draw_row(kept[-1][0], generator))
        backward()
        expanded = torch.stack(self.squares()).tolist()
        for layer, (A, B) in zip(self.layers, kept, strict=True):
            set_weights(layer, A.data, B.data)
            layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight = A, B  # those that the optimizer holds
        original = torch.stack(originals).tolist()
        return [fi_ratio(o, e - o) for o, e in zip(original, expanded, strict=True)]

    def squares(self) -> list[torch.Tensor]:
        sides = [(layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight) for layer in self.layers]
        return [A.grad.square().sum() + B.grad.square().sum() for A, B in sides]


def step_times(networks: dict[str, nn.Module], steps: int, batch: int) -> dict[str, list[float]]:
    """Seconds of each step, by variant."""
    parameters = [p for model in networks.values() for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=1e-4)
    unet, text_encoder = networks["unet"], networks["text_encoder"]
    device, size = unet.device, unet.config.sample_size
    latents, noise = torch.randn(2, batch, unet.config.in_channels, size, size, device=device)
    timesteps = torch.randint(0, 1000, (batch,), device=device)
    length = text_encoder.config.max_position_embeddings
    tokens = torch.randint(0, text_encoder.config.vocab_size, (batch, length), device=device)

    def backward() -> None:
        states = text_encoder(tokens).last_hidden_state
        nn.functional.mse_loss(unet(latents, timesteps, states).sample, noise).backward()

    idle = SeLoRA(networks, optimizer, threshold=NEVER, interval=NEVER)
    active = SeLoRA(networks, optimizer, threshold=NEVER, interval=1)
    two_passes = TwoPasses(networks)

    def plain(step: int) -> None:
        backward()
        optimizer.step()
        optimizer.zero_grad()

    def selora(step: int, controller: SeLoRA) -> None:
        with controller.probe(step):
            backward()
        optimizer.step()
        optimizer.zero_grad()
        controller.expand(step)

    def second_pass(step: int) -> None:
        backward()
        originals = two_passes.squares()
        optimizer.step()
        optimizer.zero_grad()
        two_passes.test(backward, originals)

    variants = {
        "plain LoRA": plain,
        "SeLoRA, no probe": lambda step: selora(step, idle),
        "SeLoRA, probe": lambda step: selora(step, active),
        "two passes": second_pass,
    }
    times = {name: [] for name in variants}
    for step in range(1, steps + 4):
        names = list(variants)
        for name in names[step % 4 :] + names[: step % 4]:
            if device.type == "cuda":
                torch.cuda.synchronize()
            started = time.perf_counter()
            variants[name](step)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if step > 3:  # the first ones warm up
                times[name].append(time.perf_counter() - started)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20, help="steps of each variant")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rank", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    networks = {name: model.to(options.device) for name, model in load_networks(options.rank).items()}
    for name, model in networks.items():
        total = sum(p.numel() for p in model.parameters())
        print(
            f"{name}: {total:,} parameters, {trainable_parameters(model):,} of LoRA in {len(lora_layers(model))} layers"
        )
    times = {name: statistics.median(t) for name, t in step_times(networks, options.steps, options.batch).items()}
    for name, seconds in times.items():
        print(f"{name:18} {1000 * seconds:8.1f} ms   {seconds / times['plain LoRA']:.2f}")


if __name__ == "__main__":
    main()
