"""GoRA (He et al. 2025): LoRA whose ranks and start come from the frozen weights' gradients before training.

From the mean gradient G of each weight W over some batches: a layer's importance is the mean |W * G|, and its share of
a budget of rank x sqrt(d_in + d_out) over all layers gives its rank, within a half and four times the reference rank.
A is drawn as PEFT draws it; B is the least-squares fit of B A to -G, scaled by gamma sqrt(d_in / r), so that the first
update is about as long as a step of gradient descent of rate gamma. The ranks are the paper's sum of square roots, not
of parameters, so the adapter is a little larger or smaller than LoRA's. The authors take 64 batches, here there are 4
of 32 samples; their gamma is 5e-2 for language models, whose gradients have another size.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.nn.functional import mse_loss

from selora.adapters import add_lora, draw_rows, linear_layers, lora_layers, lora_pair, resize
from selora.diffusion.draws import generator
from selora.diffusion.finite import dead_tensors, lost_look
from selora.diffusion.machine import autocast
from selora.methods.lora import LoRA

STREAM = 12  # of draws, see `diffusion.draws`


class GoRA(LoRA):
    """Settings: rank (the reference), gamma."""

    def inspect(self, networks: Mapping[str, nn.Module], batches: Iterable[dict[str, torch.Tensor]]) -> None:
        weights = {
            (network, name): model.get_submodule(name).weight
            for network, model in networks.items()
            for name in linear_layers(model)
        }
        before = {p: p.requires_grad for model in networks.values() for p in model.parameters()}
        for p in before:
            p.requires_grad_(False)
        for weight in weights.values():
            weight.requires_grad_(True)
        batches, device = list(batches), networks["unet"].device
        for batch in batches:
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            with autocast(networks["unet"]):
                states = networks["text_encoder"](batch["tokens"]).last_hidden_state
                prediction = networks["unet"](batch["latents"], batch["timesteps"], states).sample
            (mse_loss(prediction.float(), batch["target"]) / len(batches)).backward()
        self.gradients = {key: weight.grad.float() for key, weight in weights.items()}
        if dead := dead_tensors(self.gradients):
            raise lost_look(".".join(dead[0]))
        sizes = {key: sum(weight.shape) for key, weight in weights.items()}
        importance = {
            key: (weight.detach() * self.gradients[key]).abs().mean().item() for key, weight in weights.items()
        }
        self.ranks = allocate(importance, sizes, self.settings["rank"])
        for p, required in before.items():
            p.requires_grad_(required)
            p.grad = None

    def attach(self, networks: Mapping[str, nn.Module]) -> None:
        draw = generator(self.seed, STREAM)
        for network, model in networks.items():
            add_lora(model, 1, self.seed)
            for name, layer in lora_layers(model).items():
                first, second = (side.weight for side in lora_pair(layer))
                gradient, rank = self.gradients[network, name].to(second), self.ranks[network, name]
                A = draw_rows(first, draw, rank, "peft")
                B = -self.settings["gamma"] * (A.shape[1] / rank) ** 0.5 * gradient @ torch.linalg.pinv(A)
                resize(model, name, A, B)
        del self.gradients


def allocate(importance: Mapping, sizes: Mapping, rank: int) -> dict:
    """The rank of each layer from its importance and its size, d_in + d_out."""
    budget = sum(rank * size**0.5 for size in sizes.values())
    total = sum(importance.values())
    shares = {key: budget * value / total / sizes[key] ** 0.5 for key, value in importance.items()}
    return {key: min(max(round(share), max(1, rank // 2)), 4 * rank) for key, share in shares.items()}
