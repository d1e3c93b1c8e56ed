"""Sharpen the mini base's decoder: adversarial training with the encoder frozen, as Stable Diffusion's autoencoder had.

    PYTHONPATH=. python scripts/render_radiographs.py --set iu-drr --seed 1000 --limit 700 --out RENDERS
    python scripts/pretrain_decoder.py RENDERS/iu-drr/images --budget 30m

Latents stay as they are, so the denoiser that learned them stays valid. L1 alone blurs: the mean of all sharp pictures
that a latent may stand for is a blurred one. The pictures are renders of another seed (none is in the study), and, one
in five, the clip art and drawn scenes of the other stages. Neither the study's images nor its scoring encoder are used.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from pretrain_base import EDGES, SEED, WORK
from pretrain_loop import DEVICE, autocast, load, save, steps, to_tensor
from pretrain_parts import build_vae, psnr
from pretrain_pictures import picture_set, read_folder
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

SHARE_RENDERS = 0.8  # of a batch
OTHERS = 1000  # clip art and drawn scenes
UNSEEN = 50  # renders kept to measure the PSNR on
LR, LR_CRITIC = 3e-4, 5e-4  # a critic that is a little ahead
ADVERSARIAL = 0.6  # of the reconstruction's gradient at the last layer
EMA = 0.998  # averages about the last 500 steps: adversarial weights wobble
SAVE_STEPS = 200


def build_critic() -> nn.Sequential:
    """Real or rebuilt? One verdict for each patch of about 30 pixels, so it judges texture and not content."""
    layers = [nn.Conv2d(3, 32, 4, 2, 1), nn.LeakyReLU(0.2)]
    for a, b in ((32, 64), (64, 96)):
        layers += [nn.Conv2d(a, b, 4, 2, 1), nn.GroupNorm(8, b), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(96, 1, 3, 1, 1))


def reconstruction_loss(out: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    edges = F.l1_loss(out.diff(dim=2), batch.diff(dim=2)) + F.l1_loss(out.diff(dim=3), batch.diff(dim=3))
    return F.l1_loss(out, batch) + EDGES * edges


def balance(rebuilt: torch.Tensor, fooled: torch.Tensor, last: nn.Parameter) -> torch.Tensor:
    """The factor that makes the adversarial gradient at the last layer as large as the reconstruction's."""
    wanted, found = (torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (rebuilt, fooled))
    return (wanted / (found + 1e-6)).clamp(max=100).detach()


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
    vae, critic = build_vae().to(DEVICE, memory_format=torch.channels_last), build_critic().to(DEVICE)
    vae.load_state_dict(load(WORK / "vae.pt", {})["model"])
    vae.requires_grad_(False)
    decoder = nn.ModuleList([vae.post_quant_conv, vae.decoder]).requires_grad_(True)
    average = AveragedModel(decoder, multi_avg_fn=get_ema_multi_avg_fn(EMA))
    optimizers = [
        torch.optim.Adam(decoder.parameters(), lr=LR, betas=(0.5, 0.9)),
        torch.optim.Adam(critic.parameters(), lr=LR_CRITIC, betas=(0.5, 0.9)),
    ]
    state = load(WORK / "decoder.pt", {"step": 0, "seconds": 0.0})
    if state["step"]:
        for module, saved in zip((decoder, critic, average, *optimizers), state["modules"], strict=True):
            module.load_state_dict(saved)

    store, _, held_out = picture_set(WORK, SEED)
    some = np.sort(np.random.default_rng(SEED).choice(np.flatnonzero(~held_out), OTHERS, replace=False))
    renders = read_folder(args.renders)
    pictures = np.concatenate([renders[UNSEEN:], store[some]])
    latents = encode(vae, pictures)
    shares = np.repeat([SHARE_RENDERS / (len(renders) - UNSEEN), (1 - SHARE_RENDERS) / OTHERS], [len(renders) - UNSEEN, OTHERS])

    losses = []
    for step, _ in steps(state, args.budget):
        chosen = np.random.default_rng((SEED, step)).choice(len(pictures), args.batch, p=shares)
        real = to_tensor(pictures[chosen])
        with autocast():
            out = vae.decode(latents[chosen]).sample.float()
            rebuilt, fooled = reconstruction_loss(out, real), -critic(out).mean()
            factor = ADVERSARIAL * balance(rebuilt, fooled, vae.decoder.conv_out.weight)
        optimizers[0].zero_grad()
        (rebuilt + factor * fooled).backward()
        optimizers[0].step()
        average.update_parameters(decoder)
        with autocast():
            judged = F.relu(1 - critic(real)).mean() + F.relu(1 + critic(out.detach())).mean()
        optimizers[1].zero_grad()
        judged.backward()
        optimizers[1].step()
        losses.append([rebuilt.item(), judged.item()])
        if (step + 1) % SAVE_STEPS == 0:
            modules = [m.state_dict() for m in (decoder, critic, average, *optimizers)]
            save(WORK / "decoder.pt", state | {"step": step + 1, "modules": modules})
            own = {k: v.clone() for k, v in decoder.state_dict().items()}
            decoder.load_state_dict(average.module.state_dict())
            save(WORK / "vae_sharp.pt", {"model": vae.state_dict()})
            print(step + 1, *np.mean(losses, axis=0).round(4), f"{psnr(vae, to_tensor(renders[:UNSEEN])):.2f} dB", flush=True)
            decoder.load_state_dict(own)
            losses = []


if __name__ == "__main__":
    main()
