"""How long calls take beside one another, on the device that works."""

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
    """Seconds of each variant, a row for each round and a column for each variant. They take turns in changing order,
    so that a drift of the machine cancels; the first `warm_up` rounds do not count."""
    rows, names = [], list(variants)
    for i in range(rounds + warm_up):
        turn = names[i % len(names) :] + names[: i % len(names)]
        rows.append({name: seconds_of(variants[name]) for name in turn})
    return pd.DataFrame(rows[warm_up:], columns=names)
