"""The control for size: LoRA of one rank in each network, with parameters nearest to what SeLoRA ended with."""

from collections.abc import Mapping

from torch import nn

from selora.adapters import add_lora, linear_layers
from selora.methods.lora import LoRA


class MatchedLoRA(LoRA):
    def attach(self, networks: Mapping[str, nn.Module]) -> None:
        for network, model in networks.items():
            layers = (model.get_submodule(name) for name in linear_layers(model))
            per_rank = sum(layer.in_features + layer.out_features for layer in layers)
            add_lora(model, max(1, round(self.earlier.result[f"{network}_params"] / per_rank)), self.seed)
