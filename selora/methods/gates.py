"""LoRA with a trainable gate for each rank, B diag(g) A, on plain PEFT layers: what SoRA and IncreLoRA share."""

from collections.abc import Mapping

import torch
from torch import nn

from selora.adapters import ADAPTER, all_lora_layers, resize


def add_gates(networks: Mapping[str, nn.Module], gate: torch.Tensor) -> list[torch.utils.hooks.RemovableHandle]:
    """Give every LoRA layer a parameter `lora_A.default.gate` (r,) that multiplies what `lora_A` returns."""
    handles = []
    for layer in all_lora_layers(networks).values():
        lora_A = layer.lora_A[ADAPTER]
        lora_A.register_parameter("gate", nn.Parameter(gate.to(lora_A.weight, copy=True)))
        handles.append(lora_A.register_forward_hook(lambda module, inputs, hidden: hidden * module.gate))
    return handles


def fold_gates(networks: Mapping[str, nn.Module], handles: list, reserve: int = 0) -> None:
    """Multiply the gates into B and drop ranks whose gate is zero (a rank of 1 stays), and the last `reserve` ones."""
    for handle in handles:
        handle.remove()
    for (network, name), layer in all_lora_layers(networks).items():
        A, B, gate = layer.lora_A[ADAPTER].weight.data, layer.lora_B[ADAPTER].weight.data, layer.lora_A[ADAPTER].gate
        kept = gate.ne(0)
        kept[len(gate) - reserve :] = False
        if not kept.any():
            kept[0] = True
        del layer.lora_A[ADAPTER].gate
        resize(networks[network], name, A[kept], B[:, kept] * gate.data[kept])
