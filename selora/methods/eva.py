"""EVA (Paischer et al. 2024), PEFT's: LoRA that starts at the main directions of each layer's inputs.

An incremental SVD of what every layer sees in a few training batches gives the rows of A, each of length 1; a layer
gets more ranks where more of its inputs' variance is left to explain. EVA drops layers that get none; here they keep
one rank, drawn as LoRA's are, and the layers with most ranks give theirs up for them, so that the mean is the one asked
for. The scaling is 1 for every layer, whatever its rank.
"""

from collections.abc import Iterable, Mapping

import torch
from peft import EvaConfig, LoraConfig
from peft.tuners.lora.eva import get_eva_state_dict
from torch import nn

from selora.adapters import ADAPTER, add_lora, linear_layers, lora_layers, resize
from selora.diffusion.finite import dead_tensors, lost_look
from selora.diffusion.machine import autocast
from selora.methods.lora import LoRA


class EVA(LoRA):
    """Settings: rank (the mean), rho (a layer has at most rho times that)."""

    def inspect(self, networks: Mapping[str, nn.Module], batches: Iterable[dict[str, torch.Tensor]]) -> None:
        def forward(model: nn.Module, batch: dict[str, torch.Tensor]) -> None:
            batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
            with autocast(networks["unet"]):
                states = networks["text_encoder"](batch["tokens"]).last_hidden_state
                if model is networks["unet"]:
                    model(batch["latents"], batch["timesteps"], states)

        batches, self.directions = list(batches), {}
        for network, model in networks.items():
            config = LoraConfig(
                r=self.settings["rank"],
                target_modules=linear_layers(model),
                init_lora_weights="eva",
                eva_config=EvaConfig(rho=self.settings["rho"]),
            )
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.manual_seed(self.seed)
                directions = get_eva_state_dict(
                    model,
                    batches,
                    config,
                    forward_fn=forward,
                    prepare_model_inputs_fn=None,
                    prepare_layer_inputs_fn=every_token,
                    show_progress_bar=False,
                )
            self.directions[network] = within(directions, self.settings["rank"])

    def attach(self, networks: Mapping[str, nn.Module]) -> None:
        for network, model in networks.items():
            add_lora(model, 1, self.seed)
            for name, layer in lora_layers(model).items():
                rows = self.directions[network][name]  # (r, d_in)
                if len(rows):  # else EVA would drop the layer: it keeps the one rank it has
                    B = layer.lora_B[ADAPTER].weight.data
                    resize(model, name, rows.to(B), B.new_zeros(len(B), len(rows)))


def within(directions: Mapping[str, torch.Tensor], rank: int) -> dict[str, torch.Tensor]:
    """The directions (r, d_in) of each layer, less the last ones of the layers with most, so that, with a rank for each
    layer that has none, the mean is `rank`."""
    found = dict(directions)
    while sum(max(1, len(rows)) for rows in found.values()) > rank * len(found):
        most = max(found, key=lambda name: len(found[name]))
        found[most] = found[most][:-1]
    return found


def every_token(inputs: tuple[torch.Tensor], batch: dict[str, torch.Tensor], layer: str) -> torch.Tensor:
    """A layer's inputs as rows (N, d_in) in fp32, in which SVD works."""
    if dead_tensors({layer: inputs[0]}):
        raise lost_look(layer)
    return inputs[0].reshape(-1, inputs[0].shape[-1]).float()
