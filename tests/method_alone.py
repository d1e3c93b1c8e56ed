"""The practitioner's whole way with plain PEFT models: probe, growth, save, reload. `test_install.py` runs it.

As a command, python method_alone.py FOLDER MODULE..., it does so in an environment without the named modules.
"""

import json
import re
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.modules.update(dict.fromkeys(sys.argv[2:]))  # None: importing them raises ModuleNotFoundError

import torch
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from safetensors import safe_open
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from selora import SeLoRA, linear_layers, save_lora


class CrossAttention(nn.Module):
    """As much of a U-Net as a LoRA file knows: layers of attention, and others."""

    def __init__(self):
        super().__init__()
        self.proj_in = nn.Linear(4, 12)
        self.to_q, self.to_k, self.to_v = nn.Linear(12, 8), nn.Linear(16, 8), nn.Linear(16, 8)
        self.to_out = nn.ModuleList([nn.Linear(8, 4)])

    def forward(self, x: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        mixed = nn.functional.scaled_dot_product_attention(
            self.to_q(self.proj_in(x)), self.to_k(states), self.to_v(states)
        )
        return self.to_out[0](mixed)


def untrained() -> tuple[nn.Module, nn.Module]:
    """A U-Net and a text encoder, the same ones each time."""
    torch.manual_seed(0)
    sizes = dict(vocab_size=30, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
    return CrossAttention(), CLIPTextModel(CLIPTextConfig(**sizes, bos_token_id=28, eos_token_id=29, pad_token_id=29))


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs, what is to come of them, and tokens of four samples."""
    generator = torch.Generator().manual_seed(step)
    x, wanted = torch.randn(2, 4, 10, 4, generator=generator)
    return x, wanted, torch.randint(0, 28, (4, 7), generator=generator)


def output(unet: nn.Module, text_encoder: nn.Module, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return unet(x, text_encoder(tokens).last_hidden_state)


def trained() -> tuple[nn.Module, nn.Module]:
    """Both after six steps in which some of their layers grew and others did not."""
    models = untrained()
    for model in models:
        model.requires_grad_(False)
        inject_adapter_in_model(LoraConfig(r=1, lora_alpha=1, target_modules=linear_layers(model)), model)
    optimizer = torch.optim.Adam([p for model in models for p in model.parameters() if p.requires_grad], lr=2e-2)
    selora = SeLoRA(models, optimizer, threshold=1.5, interval=2)
    for step in range(1, 7):
        x, wanted, tokens = batch(step)
        with selora.probe(step):
            nn.functional.mse_loss(output(*models, x, tokens), wanted).backward()
        optimizer.step()
        optimizer.zero_grad()
        records = selora.expand(step)
    assert len({record["rank"] for record in records}) > 1, "the ranks should be mixed"
    return models


def reloaded(file: Path) -> tuple[nn.Module, nn.Module]:
    """Both with the adapters of a file, by PEFT alone."""
    models = untrained()
    with safe_open(file, framework="pt") as stored:
        words = json.loads(stored.metadata()["lora_adapter_metadata"])
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}
    for network, model in zip(("unet.", "text_encoder."), models, strict=True):
        config = {name.removeprefix(network): value for name, value in words.items() if name.startswith(network)}
        inject_adapter_in_model(LoraConfig(**config), model)
        own = {name.removeprefix(network): value for name, value in tensors.items() if name.startswith(network)}
        outcome = set_peft_model_state_dict(model, {named_as_in_peft(name): value for name, value in own.items()})
        assert not outcome.unexpected_keys
    return models


def named_as_in_peft(name: str) -> str:
    """The name in the file, which is diffusers', as PEFT and transformers 5 have it."""
    name = re.sub(r"\.lora(_linear_layer)?\.(down|up)", lambda m: f".lora_{'A' if m[2] == 'down' else 'B'}", name)
    return name.removeprefix("text_model.")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    models = trained()
    save_lora(*models, folder)
    x, _, tokens = batch(0)
    with torch.no_grad():
        after, again, before = (
            output(*pair, x, tokens)
            for pair in (models, reloaded(folder / "pytorch_lora_weights.safetensors"), untrained())
        )
    torch.testing.assert_close(again, after)
    assert not torch.allclose(after, before, atol=1e-3)
