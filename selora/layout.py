"""Which rows of a LoRA layer's input belong to which sample: read from shapes, from what the network was given, and
from the batch size where `probe` was told it. What cannot be told apart is refused, not guessed."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

REMEDY = (
    "say how many samples a forward pass holds: probe(step, batch_size=N) reads rows that are tokens, sequences first, "
    "and copies of the batch (guidance)"
)
OWN_ROWS = (
    "A sample's gradient can only be told from its own rows: on probing steps give every sample its own prompt and "
    "input (no list of unique prompts, no input of batch 1 that is broadcast)"
)


@dataclass(eq=False)
class Forward:
    """One call of a network (of whichever of its modules was called from outside), as far as layouts depend on it."""

    name: str  # for messages
    module: nn.Module
    inputs: list[torch.Tensor]  # all that it was given, in order
    batch_size: int | None
    sequence_first: bool  # the network holds modules that expect (T, N, d)
    born: int  # the backward pass that recomputes it (gradient checkpointing), or -1

    @property
    def main(self) -> torch.Tensor | None:
        """The tensor that shows the layout: the first with more than one axis, else the first."""
        batched = [t for t in self.inputs if t.ndim]
        return next((t for t in batched if t.ndim > 1), batched[0] if batched else None)

    def repeats(self, other: "Forward") -> bool:
        """Whether this is a second call of the same module on the same samples, as guidance makes it."""
        mine, its = self.main, other.main
        return mine is not None and its is not None and mine.shape == its.shape and bool((mine == its).all())

    def confirms(self, rows: int) -> bool:
        """Whether an input shows that `rows` counts samples: pictures, words by number, or one number a sample."""
        return any(
            t.shape[:1] == (rows,) and (t.ndim == 1 or t.ndim >= 4 or not t.is_floating_point()) for t in self.inputs
        )

    def copied(self) -> int | None:
        """The size of the batch that the network was given two or three copies of, as guidance makes them, if it was.
        Words do not tell: prompts may repeat."""
        main = self.main
        if main is None or not main.is_floating_point():
            return None
        for copies in (n for n in (2, 3) if len(main) % n == 0):
            size = len(main) // copies
            rows = main.reshape(len(main), -1)
            one_after_another, side_by_side = rows.unflatten(0, (copies, size)), rows.unflatten(0, (size, copies))
            if bool((one_after_another == rows[:size]).all()) or bool((side_by_side == side_by_side[:, :1]).all()):
                return size
        return None

    def order(self) -> str | None:
        """How the rows of several copies of the batch lie, from an input that is the same in each: 'copies' (as
        `torch.cat([x, x])`), 'repeats' (as `x.repeat_interleave(2, dim=0)`), or None if no input shows it."""
        N, main = self.batch_size, self.main
        if N is None or main is None or len(main) == N or len(main) % N:
            return None
        found = set()
        for tensor in self.inputs:
            if tensor.shape[:1] == main.shape[:1]:
                rows = tensor.reshape(len(tensor), -1)
                copies = bool((rows.unflatten(0, (-1, N)) == rows[:N]).all())
                repeats = bool((rows.unflatten(0, (N, -1)) == rows.unflatten(0, (N, -1))[:, :1]).all())
                found |= {"copies" if copies else "repeats"} if copies != repeats else set()
        return found.pop() if len(found) == 1 else None


def turned(x: torch.Tensor) -> bool:
    """Whether the first two axes of an input were exchanged, as far as its memory shows."""
    return x.ndim > 2 and 0 < x.stride(0) < x.stride(1)


def check_rows(layer: str, x: torch.Tensor, forward: Forward) -> int:
    """The number of samples in a layer's input x (N, ..., d), where each row of the first axis is one.

    Raises:
        ValueError: if what the network was given shows that it is not so, or may not be.
    """
    shape = x.shape[:-1]
    if not shape:
        raise ValueError(f"the input of {layer} has no axis of samples: give it one, (1, d)")
    if forward.main is not None and shape[0] != len(forward.main):
        raise ValueError(
            f"{layer} saw {shape[0]} rows where {forward.name} was given {len(forward.main)}. "
            f"If they hold all samples, {REMEDY}. Else: {OWN_ROWS}"
        )
    if turned(x) and shape[0] == shape[1] > 1:
        raise ValueError(
            f"{layer} saw as many tokens as samples, {shape[0]}, and may have its sequences first: take another "
            "batch size on probing steps"
        )
    if forward.sequence_first:
        raise ValueError(
            f"{forward.name} holds modules that expect sequences first (batch_first=False), so the first axis of "
            f"{layer}'s input may not be samples: {REMEDY}"
        )
    return shape[0]


def leading(layer: str, x: torch.Tensor, forward: Forward, orders: set[str], say: Callable[[str], None]) -> int:
    """How many axes' worth of rows lie before the samples: an input reshapes to (leading, N, -1, d).

    Args:
        layer: its name, for messages.
        x: its input, (N, T, d), (N * T, d), (T, N, d), (2 * N, T, d), ...
        forward: the call it was part of, with its batch size N.
        orders: what `Forward.order` found in any network of this step.
        say: takes a warning.

    Raises:
        ValueError: if no reading, or more than one, fits.
    """
    N = forward.batch_size
    if N == 1:
        return 1  # all rows are the one sample's
    shape = x.shape[:-1]
    copies, steps = _given(forward, orders, say)
    rows, readings = copies * N, set()
    if shape and shape[0] == rows:
        readings.add(1)
    elif shape and shape[0] % rows == 0 and steps in (None, shape[0] // rows):
        readings.add(steps or 1)  # flattened: sample by sample, or step by step where the sequence came first
    if len(shape) > 1 and shape[1] == rows:
        readings.add(shape[0])
    if len(readings) == 2 and steps:
        readings = {shape[0]}
    elif len(readings) == 2 and shape[0] == rows and not (forward.sequence_first or turned(x)):
        readings = {1}  # as many tokens as samples
    if len(readings) != 1:
        what = "fit several readings: choose another batch size on probing steps" if readings else OWN_ROWS
        raise ValueError(f"{layer} saw an input of axes {tuple(shape)} where batch_size is {N}: {what}")
    return readings.pop() * (1 if orders == {"repeats"} else copies)


def _given(forward: Forward, orders: set[str], say: Callable[[str], None]) -> tuple[int, int | None]:
    """From what the network was given: how many copies of the batch its rows are, and, where the sequence comes first,
    how many steps that has."""
    N, main, name = forward.batch_size, forward.main, forward.name
    if main is None or len(main) == N:
        return 1, None
    words = not main.is_floating_point()
    copies = len(main) // N if len(main) % N == 0 else None
    steps = len(main) if main.ndim > 2 - words and main.shape[1] == N else None
    if copies and steps and not orders:
        if not forward.sequence_first:
            raise ValueError(
                f"{name} was given {tuple(main.shape)} where batch_size is {N}: {copies} copies of the batch, or the "
                "sequence first? On probing steps, choose a batch size that does not divide the sequence's length, or "
                "call the network once per copy"
            )
        copies = None
    if copies:
        if not orders and main.ndim <= 2 - words:
            raise ValueError(
                f"{name} was given {len(main)} rows where batch_size is {N}: tokens, or {copies} copies of the batch? "
                "Keep tokens on an axis of their own, (N, T, d), up to the network; call it once per copy"
            )
        if len(orders) != 1:
            say(
                f"{name} was given {len(main)} rows where batch_size is {N}: taken as {copies} copies of the batch one "
                "after another, as torch.cat makes them. If they lie otherwise, call the network once per copy"
            )
        return copies, None
    if steps:
        return 1, steps
    raise ValueError(f"{name} was given {len(main)} rows where batch_size is {N}. {OWN_ROWS}")
