"""The optimizer's moments of layers that grow: old ranks keep theirs, new ones start at zero and count their own steps.

With moments of zero alone a new rank would take Adam's correction for moments that it has not got: see `count_rows`.
"""

from collections.abc import Sequence
from weakref import WeakSet

import torch
from torch import nn

COUNTED = WeakSet()  # optimizers that `count_rows` was called for


def carry_state(
    optimizer: torch.optim.Optimizer,
    old: nn.Parameter,
    new: nn.Parameter,
    kept: Sequence[int] | None = None,
    axis: int = 0,
) -> None:
    """Put `new` in the place of `old` in an optimizer; the state of the old entries is kept, that of new ones is zero.

    Where ranks went away, `kept` has the places of those that stay, along an axis (of an optimizer without counts).
    Where rows are counted (`count_rows`), `row_steps` in the state holds the steps of each row (r, 1) or column (1, r).

    Raises:
        TypeError: for an optimizer whose state is not one value per entry (factored or quantised moments).
    """
    for group in optimizer.param_groups:
        group["params"] = [new if p is old else p for p in group["params"]]
    if old not in optimizer.state:
        return
    state = optimizer.state.pop(old)
    for name, value in state.items():
        if torch.is_tensor(value) and value.shape == old.shape:
            state[name] = resized(value, new.shape, kept, axis)
        elif torch.is_tensor(value) and value.ndim > 0:  # at rank 1 a factor may look like the weight
            raise TypeError(
                f"{type(optimizer).__name__} keeps '{name}' in another shape than its parameter: use Adam or AdamW"
            )
    if unwrapped(optimizer) in COUNTED:
        axis = int(old.shape[0] == new.shape[0])
        before = [count for part in state.get("row_steps", [[int(state["step"])] * old.shape[axis]]) for count in part]
        counts = before + [0] * (new.shape[axis] - old.shape[axis])
        state["row_steps"] = [counts] if axis else [[count] for count in counts]
    optimizer.state[new] = state


def resized(value: torch.Tensor, shape: torch.Size, kept: Sequence[int] | None = None, axis: int = 0) -> torch.Tensor:
    """A tensor with the kept places along an axis (without them, all), padded with zeros to a shape."""
    if kept is not None:
        value = value.index_select(axis, torch.tensor(kept, device=value.device))
    return nn.functional.pad(value, [n for i in reversed(range(value.ndim)) for n in (0, shape[i] - value.shape[i])])


def unwrapped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer itself, where accelerate wraps it."""
    return getattr(optimizer, "optimizer", optimizer)


def count_rows(optimizer: torch.optim.Optimizer) -> None:
    """Let torch's Adam and AdamW correct a grown rank's moments for the steps since its own birth.

    They divide by 1 - beta^t, t being the steps of the whole parameter. The moments of a new rank have seen n < t
    gradients only, and so it would move several times as far as an old one did when it was new. After each of the
    optimizer's steps the update of a grown rank is scaled from that of t to that of n:

        u(s) = lr k(s) m / (sqrt(v) + eps),   k(s) = sqrt(1 - beta2^s) / (1 - beta1^s)

    (Adam's eps is multiplied by sqrt(1 - beta2^t), which is kept for both.) Old ranks, and optimizers of other kinds,
    are left alone.
    """
    optimizer = unwrapped(optimizer)
    if isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW) and optimizer not in COUNTED:
        optimizer.register_step_post_hook(correct_rows)
        COUNTED.add(optimizer)


@torch.no_grad()
def correct_rows(optimizer: torch.optim.Optimizer, *_) -> None:
    """What `count_rows` does after a step."""
    skipped = getattr(optimizer, "found_inf", None)  # of a GradScaler, which leaves it to fused kernels to skip a step
    if skipped is not None and skipped.item():
        return
    for group in optimizer.param_groups:
        lr, (beta1, beta2) = float(group["lr"]), map(float, group["betas"])
        factors = {}  # lr (k(t) - k(n)) of the younger ranks, by counts: many layers have the same
        for p in group["params"]:
            state = optimizer.state.get(p, {})
            if "row_steps" not in state or p.grad is None:
                continue
            counts = [count + 1 for part in state["row_steps"] for count in part]
            axis = int(len(state["row_steps"]) == 1)
            state["row_steps"] = [counts] if axis else [[count] for count in counts]
            t, first = counts[0], counts.count(counts[0])
            if (key := tuple(counts)) not in factors:
                k = [(1 - beta2**s) ** 0.5 / (1 - beta1**s) for s in counts]
                factors[key] = torch.tensor([lr * (k[0] - own) for own in k[first:]], device=p.device)
            scale = factors[key] if axis or p.ndim == 1 else factors[key][:, None]
            square = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
            part, mean, square = (x.narrow(axis, first, len(counts) - first) for x in (p, state["exp_avg"], square))
            part.addcdiv_(mean * scale.to(mean), square.sqrt().add_(group["eps"] * (1 - beta2**t) ** 0.5))
