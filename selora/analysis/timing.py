"""How long calls take beside one another, on the device that works."""

import random
import time
from collections.abc import Callable, Mapping

import pandas as pd
import torch


def seconds_of(run: Callable[[], object]) -> float:
    """How long a call takes, work on the GPU included."""
    synchronize()
    started = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - started


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def in_turns(variants: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1) -> pd.DataFrame:
    """Seconds of each variant, a row for each round and a column for each variant; the first `warm_up` rounds do not
    count. They take turns, so that a drift of the machine cancels, in an order drawn for each round: one that always
    came after the same other would pay for what that leaves behind, in caches and in the allocator."""
    rows, names, draw = [], list(variants), random.Random(0)
    for _ in range(rounds + warm_up):
        turn = draw.sample(names, len(names))
        rows.append({name: seconds_of(variants[name]) for name in turn})
    return pd.DataFrame(rows[warm_up:], columns=names)
