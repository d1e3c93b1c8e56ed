"""Pretrain the mini base model: a Stable Diffusion of 9 million parameters, on pictures that are not radiographs.

    python scripts/pretrain_base.py all --vae-minutes 18 --unet-minutes 42     # about an hour and a quarter on 2 cores

Stages, each of which can be run alone and goes on from its own checkpoint in data/raw/pretrain:
    vae     pictures and captions are drawn once, the tokenizer is built, the autoencoder is trained
    unet    every picture is encoded once, then text encoder and U-Net are trained together on the latents
    export  the weights are written to data/mini-sd in the diffusers layout, the autoencoder's PSNR is measured
A stage's learning rate falls to zero at the end of its budget, so give the whole budget, not what is left of it.
One CUDA device is used where there is one (bfloat16 autocast); everything else is the same.
"""

import argparse
import csv
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from pretrain_pictures import (SIZE, clip_art_caption, clip_art_files, clip_art_variants, ct_pictures, drawn_scene,
                               held_out, report_words)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "data/raw/pretrain"            # pictures, latents, checkpoints: not tracked
OUT = ROOT / "data/mini-sd"                  # the model: tracked
LOG = OUT / "pretrain_log.csv"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SEED = 0

VOCABULARY = 6144                            # 512 bytes, 5,630 merges, 2 marks; report text takes 1.2 tokens a word
CONTEXT = 77                                 # Stable Diffusion's
DRAWN = 7000                                 # a third of all pictures; clip art gives two pictures a file
CT = 800                                     # for the autoencoder only
VAE_LR = 1e-3                                # twice as high still trains; half is slower
CROP, FULL_FROM = 64, 0.7                    # crops are 4 x cheaper; the last 30 % sees whole pictures, as in use
KL = 1e-4                                    # per latent: holds the scale of the latents, costs no sharpness
EDGES = 0.5                                  # L1 on differences of neighbours: sharper than L1 alone, no download
UNET_LR = 8e-4                               # high, as a short budget asks for; warm-up and cosine keep it stable
WARMUP = 200                                 # steps
DROP_CAPTION = 0.1                           # the empty prompt, for classifier-free guidance, as Stable Diffusion
EMA = 0.999                                  # averages about the last 1,000 steps
SAVE_SECONDS = 90                            # between validations, each with a checkpoint


# ---- parts ----------------------------------------------------------------------------------------------------------

def build_tokenizer(captions: list[str]) -> CLIPTokenizer:
    """CLIP's byte-level BPE with `</w>` at word ends, learned from the captions and the reports' word counts."""
    like_clip = CLIPTokenizer()._tokenizer                       # normalizer and word splitting are taken from it
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer, learner.pre_tokenizer = like_clip.normalizer, like_clip.pre_tokenizer
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=letters, end_of_word_suffix="</w>",
                                  show_progress=False)
    words = (" ".join([word] * n) for word, n in report_words().items())
    learner.train_from_iterator([*captions, *words], trainer)
    learned = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    base = letters + [letter + "</w>" for letter in letters]     # every byte, so that no text is unknown
    merges = learned[:VOCABULARY - len(base) - 2]
    names = list(dict.fromkeys(base + [a + b for a, b in merges])) + ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={name: i for i, name in enumerate(names)}, merges=merges, model_max_length=CONTEXT)


def build_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(16, 32, 64, 96),                     # f8: 128 px -> 16 x 16
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1, latent_channels=4, norm_num_groups=8, sample_size=SIZE,
        mid_block_add_attention=False)                           # convolutions only, so that it can train on crops


def build_denoiser(tokenizer: CLIPTokenizer) -> torch.nn.ModuleDict:
    """U-Net and text encoder, which train together."""
    unet = UNet2DConditionModel(
        sample_size=SIZE // 8, in_channels=4, out_channels=4,
        block_out_channels=(64, 128, 128), layers_per_block=1,   # 0.3 s a step at batch 8 on 2 cores
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=128, attention_head_dim=4)           # diffusers' name; it is the number of heads
    text_encoder = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
        max_position_embeddings=CONTEXT, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id))
    return torch.nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    return tokenizer(captions, padding="max_length", truncation=True, max_length=CONTEXT,
                     return_tensors="pt").input_ids


# ---- data -----------------------------------------------------------------------------------------------------------

def pictures() -> tuple[np.ndarray, list[str], np.ndarray]:
    """All pictures (uint8, on disk), their captions, and which are held out. Made on the first call."""
    if not (WORK / "captions.json").exists():
        rng = np.random.default_rng(SEED)
        files = clip_art_files()
        store = np.lib.format.open_memmap(WORK / "pictures.npy", "w+", np.uint8, (2 * len(files) + DRAWN, SIZE, SIZE, 3))
        captions, kept = [], []
        for file in tqdm(files, "clip art"):
            for picture, caption in clip_art_variants(file, clip_art_caption(file), rng):
                store[len(captions)] = picture
                captions.append(caption)
                kept.append(held_out(file.stem))
        for i in tqdm(range(DRAWN), "drawn scenes"):
            store[len(captions)], caption = drawn_scene(rng)
            captions.append(caption)
            kept.append(held_out(str(i)))
        store.flush()
        (WORK / "captions.json").write_text(json.dumps({"captions": captions, "held_out": kept}))
    table = json.loads((WORK / "captions.json").read_text())
    return np.load(WORK / "pictures.npy", mmap_mode="r"), table["captions"], np.array(table["held_out"])


def to_tensor(picture: np.ndarray) -> torch.Tensor:
    """uint8 (n, h, w, 3) -> float (n, 3, h, w) in -1..1, on the device."""
    return torch.from_numpy(np.ascontiguousarray(picture)).to(DEVICE).permute(0, 3, 1, 2).float() / 127.5 - 1


def read_folder(folder: Path) -> np.ndarray:
    """Every picture of a folder, centre-cropped to SIZE; every tenth stays unseen (see `export`)."""
    read = []
    for file in sorted(folder.glob("*.png")):
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
        side = min(picture.size)
        box = ((picture.width - side) // 2, (picture.height - side) // 2)
        picture = picture.crop((*box, box[0] + side, box[1] + side)).resize((SIZE, SIZE), Image.LANCZOS)
        read.append(np.asarray(picture))
    if not read:
        raise FileNotFoundError(f"no PNG files in {folder}")
    return np.stack(read)


# ---- training -------------------------------------------------------------------------------------------------------

def save(path: Path, state: dict) -> None:
    """Atomic: a kill leaves the old checkpoint or the new one, never half of one."""
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def load(path: Path, default: dict) -> dict:
    return torch.load(path, map_location=DEVICE, weights_only=True) if path.exists() else default


def log(stage: str, step: int, seconds: float, loss: float, validation: float) -> None:
    new = not LOG.exists()
    with LOG.open("a", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        if new:
            rows.writerow(["stage", "step", "seconds", "loss", "val_loss"])
        rows.writerow([stage, step, round(seconds), f"{loss:.5f}", f"{validation:.5f}"])
    print(f"{stage} step {step} {seconds:.0f} s loss {loss:.4f} val {validation:.4f}", flush=True)


def steps(state: dict, minutes: float) -> Iterator[tuple[int, float]]:
    """Yields (step, share of the budget spent) until the minutes are spent; keeps `state` up to date."""
    while state["seconds"] < 60 * minutes:
        began = time.time()
        torch.manual_seed(state["step"])     # a resumed run draws what an unbroken one would have drawn
        yield state["step"], state["seconds"] / (60 * minutes)
        state["step"] += 1
        state["seconds"] += time.time() - began


def cosine(base: float, step: int, progress: float) -> float:
    return base * min(1, (step + 1) / WARMUP) * 0.5 * (1 + np.cos(np.pi * progress))


def autocast() -> torch.autocast:
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=DEVICE.type == "cuda")


def vae_loss(vae: AutoencoderKL, batch: torch.Tensor) -> torch.Tensor:
    with autocast():
        posterior = vae.encode(batch).latent_dist
        out = vae.decode(posterior.sample()).sample.float()
    edges = F.l1_loss(out.diff(dim=2), batch.diff(dim=2)) + F.l1_loss(out.diff(dim=3), batch.diff(dim=3))
    kl = 0.5 * (posterior.mean ** 2 + posterior.var - 1 - posterior.logvar).mean()
    return F.l1_loss(out, batch) + EDGES * edges + KL * kl


def train_vae(minutes: float, batch: int, extra: Path | None) -> None:
    store, captions, kept = pictures()
    build_tokenizer(captions).save_pretrained(WORK / "tokenizer")
    train, validation = np.flatnonzero(~kept), to_tensor(store[np.flatnonzero(kept)[:192]])
    others = [ct_pictures(CT, np.random.default_rng(SEED))]      # 20 % of a batch, from the first step
    if extra:
        seen = read_folder(extra)
        others.append(seen[np.arange(len(seen)) % 10 != 0])      # 30 % more
    torch.manual_seed(SEED)
    vae = build_vae().to(DEVICE, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(vae.parameters(), lr=VAE_LR)
    state = load(WORK / "vae.pt", {"step": 0, "seconds": 0.0})
    if "model" in state:
        vae.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    losses, saved = [], time.time()
    for step, progress in steps(state, minutes):
        rng = np.random.default_rng((SEED, step))
        whole = progress > FULL_FROM
        n = batch * CROP ** 2 // SIZE ** 2 if whole else batch   # the same number of pixels
        source = rng.random(n)
        chosen = [others[-1][rng.integers(len(others[-1]))] if s < 0.3 * (len(others) - 1)
                  else others[0][rng.integers(CT)] if s < 0.2 + 0.3 * (len(others) - 1)
                  else store[rng.choice(train)] for s in source]
        top, left = (0, 0) if whole else rng.integers(0, SIZE - CROP + 1, 2)
        side = SIZE if whole else CROP
        loss = vae_loss(vae, to_tensor(np.stack(chosen)[:, top:top + side, left:left + side]))
        optimizer.param_groups[0]["lr"] = cosine(VAE_LR, step, progress)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if time.time() - saved > SAVE_SECONDS:
            with torch.no_grad():
                checked = np.mean([vae_loss(vae, part).item() for part in validation.split(32)])
            log("vae", step + 1, state["seconds"], np.mean(losses), checked)
            save(WORK / "vae.pt", state | {"model": vae.state_dict(), "optimizer": optimizer.state_dict()})
            losses, saved = [], time.time()
    save(WORK / "vae.pt", state | {"model": vae.state_dict(), "optimizer": optimizer.state_dict()})


def encode() -> dict:
    """The latents of all pictures (posterior means, fp16) and what scales them to unit variance. Made once."""
    if not (WORK / "latents.pt").exists():
        store, captions, _ = pictures()
        vae = build_vae().to(DEVICE, memory_format=torch.channels_last)
        vae.load_state_dict(load(WORK / "vae.pt", {})["model"])
        latents = []
        with torch.no_grad(), autocast():
            for start in tqdm(range(0, len(store), 32), "latents"):
                latents.append(vae.encode(to_tensor(store[start:start + 32])).latent_dist.mean.half().cpu())
        latents = torch.cat(latents)
        save(WORK / "latents.pt", {"latents": latents, "scaling_factor": 1 / latents.float().std().item()})
    return torch.load(WORK / "latents.pt", weights_only=True)


def denoising_loss(models: torch.nn.ModuleDict, noiser: DDPMScheduler, latents: torch.Tensor, ids: torch.Tensor,
                   noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    with autocast():
        context = models["text_encoder"](ids).last_hidden_state
        predicted = models["unet"](noiser.add_noise(latents, noise, t), t, context).sample
    return F.mse_loss(predicted.float(), noise)


def train_unet(minutes: float, batch: int) -> None:
    _, captions, kept = pictures()
    tokenizer = CLIPTokenizer.from_pretrained(WORK / "tokenizer")
    cached = encode()
    latents, scale = cached["latents"].to(DEVICE), cached["scaling_factor"]
    ids, empty = tokenize(tokenizer, captions).to(DEVICE), tokenize(tokenizer, [""]).to(DEVICE)
    train, validation = np.flatnonzero(~kept), np.flatnonzero(kept)
    noiser = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")  # Stable Diffusion's
    torch.manual_seed(SEED)
    models = build_denoiser(tokenizer).to(DEVICE, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(models.parameters(), lr=UNET_LR, betas=(0.9, 0.99), weight_decay=0.01)
    average = torch.optim.swa_utils.AveragedModel(                  # early on a shorter average, or it starts at noise
        models, avg_fn=lambda mean, new, n: torch.lerp(mean, new, max(1 - EMA, 1 / (n + 1) ** 0.75)))
    state = load(WORK / "unet.pt", {"step": 0, "seconds": 0.0})
    if "model" in state:
        models.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.load_state_dict(state["average"])
    fixed = torch.Generator().manual_seed(SEED)                     # the same noise and times at every validation
    fixed_noise = torch.randn(len(validation), *latents.shape[1:], generator=fixed).to(DEVICE)
    fixed_t = torch.randint(0, 1000, (len(validation),), generator=fixed).to(DEVICE)
    losses, saved = [], time.time()

    def checkpoint() -> None:
        with torch.no_grad():
            checked = [denoising_loss(average.module, noiser, latents[v].float() * scale, ids[v], fixed_noise[p],
                                      fixed_t[p]).item() * len(p)
                       for p in np.array_split(np.arange(len(validation)), 8) for v in [validation[p]]]
        log("unet", state["step"], state["seconds"], np.mean(losses), sum(checked) / len(validation))
        save(WORK / "unet.pt", state | {"model": models.state_dict(), "optimizer": optimizer.state_dict(),
                                        "average": average.state_dict()})

    for step, progress in steps(state, minutes):
        rng = np.random.default_rng((SEED, step))
        chosen = rng.choice(train, batch)
        dropped = torch.from_numpy(rng.random(batch) < DROP_CAPTION).to(DEVICE)
        loss = denoising_loss(models, noiser, latents[chosen].float() * scale,
                              torch.where(dropped[:, None], empty, ids[chosen]),
                              torch.randn(batch, *latents.shape[1:]).to(DEVICE),
                              torch.randint(0, 1000, (batch,)).to(DEVICE))
        optimizer.param_groups[0]["lr"] = cosine(UNET_LR, step, progress)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(models.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(models)
        losses.append(loss.item())
        if time.time() - saved > SAVE_SECONDS:
            checkpoint()
            losses, saved = [], time.time()
    if losses:
        checkpoint()


# ---- export ---------------------------------------------------------------------------------------------------------

@torch.no_grad()
def psnr(vae: AutoencoderKL, store: np.ndarray) -> float:
    """Mean over pictures of the peak signal-to-noise ratio of encode, decode, in decibels."""
    values = []
    for part in to_tensor(store).split(16):
        out = vae.decode(vae.encode(part).latent_dist.mean).sample.clamp(-1, 1)
        values += (-10 * ((out - part) / 2).square().mean((1, 2, 3)).clamp(min=1e-10).log10()).tolist()
    return float(np.mean(values))


def export(radiographs: Path | None) -> None:
    """Write data/mini-sd: weights in fp16, marked so that a plain `from_pretrained` gives fp32 everywhere."""
    tokenizer = CLIPTokenizer.from_pretrained(WORK / "tokenizer")
    vae, models = build_vae(), build_denoiser(tokenizer)
    if (WORK / "vae.pt").exists():
        vae.load_state_dict(load(WORK / "vae.pt", {})["model"])
    if (WORK / "unet.pt").exists():
        vae.register_to_config(scaling_factor=round(encode()["scaling_factor"], 5))
        averaged = load(WORK / "unet.pt", {})["average"]
        models.load_state_dict({k.removeprefix("module."): v for k, v in averaged.items() if k != "n_averaged"})
    scheduler = PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True,
                              steps_offset=1, set_alpha_to_one=False)  # Stable Diffusion v1.5's
    pipeline = StableDiffusionPipeline(vae.half(), models["text_encoder"].half(), tokenizer, models["unet"].half(),
                                       scheduler, None, None, requires_safety_checker=False)
    fresh = WORK / "export"
    pipeline.save_pretrained(fresh)
    config = fresh / "text_encoder/config.json"                     # transformers loads in the dtype written here
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")
    for file in sorted(f for f in fresh.rglob("*") if f.is_file()):
        target = OUT / file.relative_to(fresh)
        target.parent.mkdir(exist_ok=True)
        os.replace(file, target)                                    # no reader ever sees half a file
    loaded = AutoencoderKL.from_pretrained(OUT, subfolder="vae").to(DEVICE)
    store, captions, kept = pictures()
    clip_art = [i for i in np.flatnonzero(kept) if "clip art" in captions[i]]
    print(f"PSNR on {len(clip_art)} held-out pictures of clip art: {psnr(loaded, store[clip_art]):.2f} dB")
    if radiographs:
        unseen = read_folder(radiographs)[::10]                     # those that --extra-pictures leaves out
        print(f"PSNR on {len(unseen)} radiographs of {radiographs}: {psnr(loaded, unseen):.2f} dB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["vae", "unet", "export", "all"])
    parser.add_argument("--vae-minutes", type=float, default=18)
    parser.add_argument("--vae-batch", type=int, default=16, help="crops in a batch (a quarter as many whole pictures)")
    parser.add_argument("--unet-minutes", type=float, default=42)
    parser.add_argument("--unet-batch", type=int, default=32)
    parser.add_argument("--extra-pictures", type=Path, help="folder of PNG files that the autoencoder sees as well")
    parser.add_argument("--radiographs", type=Path, help="folder of PNG files on which `export` measures the PSNR")
    args = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    OUT.mkdir(parents=True, exist_ok=True)
    if args.stage in ("vae", "all"):
        train_vae(args.vae_minutes, args.vae_batch, args.extra_pictures)
    if args.stage in ("unet", "all"):
        train_unet(args.unet_minutes, args.unet_batch)
    if args.stage in ("export", "all"):
        export(args.radiographs)
