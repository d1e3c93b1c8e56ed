"""The parts of the mini base (tokenizer, autoencoder, U-Net, text encoder) and how they are written to disk."""

import json
import os
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from pretrain_pictures import SIZE, report_words
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

VOCABULARY = 6144  # 512 bytes, 5,630 merges, 2 marks: most words of a report are one token
CONTEXT = 77  # Stable Diffusion's
NOISE = {
    "beta_start": 0.00085,  # Stable Diffusion's
    "beta_end": 0.016,  # its 0.012 leaves enough of a picture at the last step to tell its brightness
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",  # Stable Diffusion 2's: where noise prevails, the error is that of the picture
}


def build_tokenizer(captions: list[str]) -> CLIPTokenizer:
    """CLIP's byte-level BPE with `</w>` at word ends, learned from the captions and the reports' word counts."""
    like_clip = CLIPTokenizer().backend_tokenizer  # normalizer and word splitting are taken from it
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer, learner.pre_tokenizer = like_clip.normalizer, like_clip.pre_tokenizer
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    words = (" ".join([word] * n) for word, n in report_words().items())
    learner.train_from_iterator([*captions, *words], trainer)
    learned = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    base = letters + [letter + "</w>" for letter in letters]  # every byte, so that no text is unknown
    merges = learned[: VOCABULARY - len(base) - 2]
    names = list(dict.fromkeys(base + [a + b for a, b in merges])) + ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={name: i for i, name in enumerate(names)}, merges=merges, model_max_length=CONTEXT)


def build_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(16, 32, 64, 96),  # f8: 128 px -> 16 x 16
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIZE,
        mid_block_add_attention=False,
    )  # convolutions only, so that it can train on crops


def build_denoiser(tokenizer: CLIPTokenizer) -> torch.nn.ModuleDict:
    """U-Net and text encoder, which train together."""
    unet = UNet2DConditionModel(
        sample_size=SIZE // 8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128, 128),
        layers_per_block=1,  # 0.2 s a step at batch 8 on 2 cores
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=128,
        attention_head_dim=4,
    )  # diffusers' name; it is the number of heads
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    return torch.nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    return tokenizer(captions, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt").input_ids


def write_pipeline(
    folder: Path, draft: Path, tokenizer: CLIPTokenizer, vae: AutoencoderKL, denoiser: torch.nn.ModuleDict
) -> None:
    """Write a stock pipeline: weights in fp16, marked so that a plain `from_pretrained` gives fp32 everywhere."""
    # As Stable Diffusion v1.5, but sampling starts at the last step, where there is only noise.
    scheduler = PNDMScheduler(**NOISE, skip_prk_steps=True, steps_offset=1, timestep_spacing="trailing")
    pipeline = StableDiffusionPipeline(
        vae.half(),
        denoiser["text_encoder"].half(),
        tokenizer,
        denoiser["unet"].half(),
        scheduler,
        None,
        None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(draft)
    for config in draft.glob("*/config.json"):
        told = json.loads(config.read_text())
        told.pop("_name_or_path", None)  # of this machine
        if config.parent.name == "text_encoder":
            told["dtype"] = "float32"  # transformers loads in the dtype written here
        config.write_text(json.dumps(told, indent=2) + "\n")
    for file in sorted(f for f in draft.rglob("*") if f.is_file()):
        target = folder / file.relative_to(draft)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.chmod(0o644)  # safetensors makes files only their owner can read
        os.replace(file, target)  # no reader ever sees half a file


def load_published(folder: Path, parts: torch.nn.ModuleDict) -> None:
    """Start the parts from the weights of an earlier export, where there is one."""
    for name, part in parts.items():
        found = list((folder / name).glob("*.safetensors"))
        if found:
            part.load_state_dict({k: v.float() for k, v in load_file(found[0]).items()})


@torch.no_grad()
def psnr(vae: AutoencoderKL, pictures: torch.Tensor) -> float:
    """Mean over pictures (-1..1) of the peak signal-to-noise ratio of encode, decode, in decibels."""
    values = []
    for part in pictures.split(16):
        out = vae.decode(vae.encode(part).latent_dist.mean).sample.clamp(-1, 1)
        mse = ((out - part) / 2).square().mean((1, 2, 3)).clamp(min=1e-10)  # a blank picture may come back exact
        values += (-10 * mse.log10()).tolist()
    return sum(values) / len(values)
