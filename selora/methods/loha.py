"""LoHa (Yeh et al. 2024; Hyeon-Woo et al. 2022), PEFT's: its update is the elementwise product of two of low rank.

It starts as in LyCORIS, where LoHa comes from: normal, of deviation 0.1 and 1 for the factors of the first product, 0
and 1 for those of the second. PEFT draws Kaiming uniform in their place, a hundredth as large together, and with it the
adapter hardly moves at the learning rates of others.
"""

from collections.abc import Mapping

import torch
from peft.tuners.loha import LoHaLayer
from torch import nn

from selora.adapters import ADAPTER
from selora.diffusion.draws import generator
from selora.methods.peft_adapter import PeftAdapter

STREAM = 15  # of draws, see `diffusion.draws`
DEVIATIONS = {"hada_w1_a": 0.1, "hada_w1_b": 1.0, "hada_w2_a": 0.0, "hada_w2_b": 1.0}


class LoHa(PeftAdapter):
    def attach(self, networks: Mapping[str, nn.Module]) -> None:
        super().attach(networks)
        draw = generator(self.seed, STREAM)
        for model in networks.values():
            for layer in (module for module in model.modules() if isinstance(module, LoHaLayer)):
                for name, deviation in DEVIATIONS.items():
                    weight = getattr(layer, name)[ADAPTER]
                    weight.data = deviation * torch.randn(weight.shape, generator=draw).to(weight)
