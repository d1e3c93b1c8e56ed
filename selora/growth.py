"""Growing a plain PEFT LoRA layer by one rank (Eq. 2 of the paper), with the optimizer's state of it."""

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import nn

from selora.adapters import lora_pair, set_weights


def append_rank(layer: LoraLinear, row: torch.Tensor) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Append `row` (1, d_in) to lora_A and a zero column to lora_B (Eq. 2).

    Returns:
        The (old, new) pairs of parameters.
    """
    A, B = (side.weight for side in lora_pair(layer))
    set_weights(layer, torch.cat([A.data, row]), torch.cat([B.data, torch.zeros_like(B.data[:, :1])], dim=1))
    return list(zip((A, B), (side.weight for side in lora_pair(layer)), strict=True))


def carry_state(optimizer: torch.optim.Optimizer, old: nn.Parameter, new: nn.Parameter) -> None:
    """Put `new` in the place of `old` in an optimizer; the state of the old entries is kept, that of new ones is zero.

    Raises:
        TypeError: for an optimizer whose state is not one value per entry (factored or quantised moments).
    """
    for group in optimizer.param_groups:
        group["params"] = [new if p is old else p for p in group["params"]]
    if old not in optimizer.state:
        return
    state = optimizer.state.pop(old)
    padding = [n for axis in reversed(range(old.ndim)) for n in (0, new.shape[axis] - old.shape[axis])]
    for name, value in state.items():
        if torch.is_tensor(value) and value.shape == old.shape:
            state[name] = nn.functional.pad(value, padding)
        elif torch.is_tensor(value) and value.ndim > 0:  # at rank 1 a factor may look like the weight
            raise TypeError(
                f"{type(optimizer).__name__} keeps '{name}' in another shape than its parameter: use Adam or AdamW"
            )
    optimizer.state[new] = state
