"""Pretrain the mini base model: a Stable Diffusion of 9 million parameters, on pictures that are not radiographs.

    python scripts/base_model/pretrain_base.py all --vae-budget 14m --unet-budget 36m     # about an hour on 2 cores

Stages, each of which can be run alone and goes on from its own checkpoint in data/raw/pretrain:
    vae     pictures and captions are drawn once, the tokenizer is built, the autoencoder is trained; once the
            latents are made, a longer budget trains the decoder alone
    unet    every picture is encoded once, then text encoder and U-Net are trained together on the latents
    export  the weights are written to data/mini-sd in the diffusers layout, the autoencoder's PSNR is measured
A stage without a checkpoint starts from the published weights in data/mini-sd where there are any; to start from
nothing, move that folder away. A budget is minutes (14m) or steps (3000). The learning rate falls to zero at its end:
give the whole budget of a stage, not what is left of it. One CUDA device is used where there is one (bfloat16
autocast); all else is the same. Beside other jobs, OMP_NUM_THREADS=1 is several times faster than two threads.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from pretrain_loop import DEVICE, autocast, descend, load, row, save, steps, to_tensor, write_log
from pretrain_parts import (
    build_denoiser,
    build_tokenizer,
    build_vae,
    load_published,
    psnr,
    write_pipeline,
)
from pretrain_pictures import SIZE, ct_pictures, picture_set, read_folder
from tqdm import tqdm
from transformers import CLIPTokenizer

from selora.files import DATA, RAW

WORK = RAW / "pretrain"  # pictures, latents, checkpoints: not tracked
OUT = DATA / "mini-sd"  # the model and its log: tracked
SEED = 0

CT = 800  # CT pictures, for the autoencoder only
SHARE_CT, SHARE_EXTRA = 0.2, 0.3  # of an autoencoder batch; the rest is clip art and drawn scenes
UNSEEN = 10  # one extra picture in ten stays unseen, to measure the PSNR on
VAE_LR = 1e-3  # for a model of this size; 1e-4, Stable Diffusion's, is for 84 M
CROP, FULL_FROM = 64, 0.7  # crops are 4 x cheaper; the last 30 % sees whole pictures, as in use
KL = 1e-4  # per latent: holds the scale of the latents, costs no sharpness
EDGES = 0.5  # L1 on differences of neighbours: sharper than L1 alone, no download
SAVE_SECONDS = 180  # between validations, each with a checkpoint


# ---- autoencoder ----------------------------------------------------------------------------------------------------


def edge_loss(out: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """L1 between differences of neighbouring pixels."""
    return F.l1_loss(out.diff(dim=2), real.diff(dim=2)) + F.l1_loss(out.diff(dim=3), real.diff(dim=3))


def vae_loss(vae: AutoencoderKL, batch: torch.Tensor) -> torch.Tensor:
    with autocast():
        posterior = vae.encode(batch).latent_dist
        out = vae.decode(posterior.sample()).sample.float()
    kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
    return F.l1_loss(out, batch) + EDGES * edge_loss(out, batch) + KL * kl


def freeze_encoder_in_use(vae: AutoencoderKL) -> None:
    """Freeze the encoder once latents are made: the U-Net has learned them."""
    if (WORK / "latents.pt").exists():
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)


def train_vae(budget: str, batch: int, extra: Path | None) -> None:
    store, captions, held_out = picture_set(WORK, SEED)
    if not (OUT / "tokenizer").exists():  # its numbers are the text encoder's words
        build_tokenizer(captions).save_pretrained(OUT / "tokenizer")
    train, validation = np.flatnonzero(~held_out), to_tensor(store[np.flatnonzero(held_out)[::5]])
    ct = ct_pictures(CT, np.random.default_rng(SEED))
    folder = read_folder(extra) if extra else None
    shown = np.flatnonzero(np.arange(len(folder)) % UNSEEN) if extra else None
    torch.manual_seed(SEED)
    vae = build_vae().to(DEVICE, memory_format=torch.channels_last)  # a tenth faster
    load_published(OUT, torch.nn.ModuleDict({"vae": vae}))
    freeze_encoder_in_use(vae)
    optimizer = torch.optim.Adam(vae.parameters(), lr=VAE_LR)
    state = load(WORK / "vae.pt", {"step": 0, "seconds": 0.0, "log": []})
    if state["step"]:
        vae.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    losses, saved = [], time.time()

    def checkpoint() -> None:
        with torch.no_grad():
            checked = np.mean([vae_loss(vae, part).item() for part in validation.split(32)])
        state["log"].append(row("vae", state, losses, checked))
        write_log(OUT, "vae", state["log"])
        save(WORK / "vae.pt", state | {"model": vae.state_dict(), "optimizer": optimizer.state_dict()})

    for step, spent in steps(state, budget):
        rng = np.random.default_rng((SEED, step))
        whole = spent > FULL_FROM
        n, side = (batch * CROP**2 // SIZE**2, SIZE) if whole else (batch, CROP)  # the same number of pixels
        chosen = []
        for draw in rng.random(n):
            if draw < SHARE_CT:
                chosen.append(ct[rng.integers(CT)])
            elif extra and draw < SHARE_CT + SHARE_EXTRA:
                chosen.append(folder[rng.choice(shown)])
            else:
                chosen.append(store[rng.choice(train)])
        top, left = rng.integers(0, SIZE - side + 1, 2)
        loss = vae_loss(vae, to_tensor(np.stack(chosen)[:, top : top + side, left : left + side]))
        descend(optimizer, loss, VAE_LR, step, spent)
        losses.append(loss.item())
        if time.time() - saved > SAVE_SECONDS:
            checkpoint()
            losses, saved = [], time.time()
    if losses:
        checkpoint()


# ---- U-Net and text encoder -----------------------------------------------------------------------------------------


def load_vae() -> AutoencoderKL:
    """The autoencoder of the checkpoint, or the published one."""
    if not (WORK / "vae.pt").exists():
        return AutoencoderKL.from_pretrained(OUT, subfolder="vae").to(DEVICE, memory_format=torch.channels_last)
    vae = build_vae().to(DEVICE, memory_format=torch.channels_last)
    vae.load_state_dict(torch.load(WORK / "vae.pt", map_location=DEVICE, weights_only=True)["model"])
    return vae.eval()


@torch.no_grad()
def encode_pictures(vae: AutoencoderKL, pictures: np.ndarray) -> torch.Tensor:
    """Latents (n, 4, 16, 16), posterior means in fp16, of uint8 pictures (n, 128, 128)."""
    parts = []
    for start in tqdm(range(0, len(pictures), 32), "latents", mininterval=10):
        parts.append(vae.encode(to_tensor(pictures[start : start + 32])).latent_dist.mean.half().cpu())
    return torch.cat(parts)


def encode() -> dict:
    """The latents of all pictures (posterior means, fp16) and what scales them to unit variance. Made once."""
    if not (WORK / "latents.pt").exists():
        store, _, _ = picture_set(WORK, SEED)
        latents = encode_pictures(load_vae(), store)
        save(WORK / "latents.pt", {"latents": latents, "scaling_factor": 1 / latents.float().std().item()})
    return torch.load(WORK / "latents.pt", weights_only=True)


# ---- export ---------------------------------------------------------------------------------------------------------


def export(out: Path, radiographs: Path | None) -> None:
    """Write a pipeline from the checkpoints there are, then measure the autoencoder as it was written."""
    tokenizer, vae = CLIPTokenizer.from_pretrained(OUT / "tokenizer"), load_vae()
    denoiser = build_denoiser(tokenizer)
    if (WORK / "vae.pt").exists():
        vae.register_to_config(scaling_factor=round(encode()["scaling_factor"], 5))
    if (WORK / "unet.pt").exists():
        averaged = torch.load(WORK / "unet.pt", map_location="cpu", weights_only=True)["average"]
        averaged.pop("n_averaged")
        denoiser.load_state_dict({name.removeprefix("module."): value for name, value in averaged.items()})
    write_pipeline(out, WORK / "export", tokenizer, vae, denoiser)
    written = AutoencoderKL.from_pretrained(out, subfolder="vae").to(DEVICE)
    store, captions, held_out = picture_set(WORK, SEED)
    clip_art = [i for i in np.flatnonzero(held_out) if "clip art" in captions[i]]
    print(f"PSNR on {len(clip_art)} held-out pictures of clip art: {psnr(written, to_tensor(store[clip_art])):.2f} dB")
    if radiographs:
        unseen = to_tensor(read_folder(radiographs)[::UNSEEN])
        print(f"PSNR on {len(unseen)} unseen radiographs: {psnr(written, unseen):.2f} dB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["vae", "export"])
    parser.add_argument("--vae-budget", default="14m", help="minutes (14m) or steps (3000)")
    parser.add_argument("--vae-batch", type=int, default=16, help="64-pixel crops; a quarter as many whole pictures")
    parser.add_argument("--extra-pictures", type=Path, help="folder of pictures the autoencoder sees as well")
    parser.add_argument("--out", type=Path, default=OUT, help="where export writes the pipeline")
    parser.add_argument("--radiographs", type=Path, help="folder of pictures to measure the PSNR on")
    args = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    OUT.mkdir(parents=True, exist_ok=True)
    if args.stage == "vae":
        train_vae(args.vae_budget, args.vae_batch, args.extra_pictures)
    if args.stage == "export":
        export(args.out, args.radiographs)
