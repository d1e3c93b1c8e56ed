"""LoRA with a trainable factor for each rank, B diag(g) A: what SoRA, IncreLoRA and AdaLoRA share."""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from selora.adapters import ADAPTER, all_lora_layers, fold_scaling, resize


def add_gates(networks: Mapping[str, nn.Module], gate: torch.Tensor) -> list[torch.utils.hooks.RemovableHandle]:
    """Give every LoRA layer a parameter `lora_A.default.gate` (r,) that multiplies what `lora_A` returns."""
    handles = []
    for layer in all_lora_layers(networks).values():
        lora_A = layer.lora_A[ADAPTER]
        lora_A.register_parameter("gate", nn.Parameter(gate.to(lora_A.weight, copy=True)))
        handles.append(lora_A.register_forward_hook(lambda module, inputs, hidden: hidden * module.gate))
    return handles


def fold_gates(networks: Mapping[str, nn.Module], handles: list, reserve: int = 0) -> None:
    """Multiply the gates, and the scaling, into B and drop ranks whose gate is zero (a rank of 1 stays), and the last
    `reserve` ones."""
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
    for model in networks.values():
        fold_scaling(model)


def orthogonality(adapters: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """How far adapters A (r, d_in), B (d_out, r) are from orthogonal: the mean Frobenius norm of A A^T - I and of
    B^T B - I (AdaLoRA's Eq. 4, as PEFT averages it)."""
    grams = [gram for A, B in adapters for gram in (A @ A.T, B.T @ B)]
    away = [torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device)) for gram in grams]
    return torch.stack(away).mean()
