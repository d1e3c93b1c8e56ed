"""QLoRA (Dettmers et al. 2023): the same LoRA over a base whose linear layers are kept in four bits.

Its percentages are of a base in which two weights count as one, since they share a byte.
"""

from collections.abc import Mapping

from torch import nn

from selora.adapters import linear_layers
from selora.methods import lacks
from selora.methods.lora import LoRA


class QLoRA(LoRA):
    def attach(self, networks: Mapping[str, nn.Module]) -> None:
        """Replace every linear layer by bitsandbytes' NF4 one, then attach LoRA.

        Raises:
            ValueError: without bitsandbytes.
        """
        if lacks("qlora"):
            raise ValueError(
                "method qlora needs the package bitsandbytes (pip install -e '.[qlora]'): leave it out of `methods`, "
                "or use lora, which trains the same adapter over the base in full"
            )
        from bitsandbytes.nn import Linear4bit

        for model in networks.values():
            for name in linear_layers(model):
                old = model.get_submodule(name)
                new = Linear4bit(
                    old.in_features, old.out_features, old.bias is not None, old.weight.dtype, quant_type="nf4"
                )
                new.load_state_dict(old.state_dict())
                parent, _, last = name.rpartition(".")
                setattr(model.get_submodule(parent), last, new.to(old.weight.device))  # quantises on the way
        super().attach(networks)
