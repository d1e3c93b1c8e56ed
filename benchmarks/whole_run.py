"""Whole runs at equal final ranks: time and peak memory of LoRA, AdaLoRA and SeLoRA, everything else alike.

    python benchmarks/whole_run.py --rank 4

SeLoRA starts at rank 1 and, with a threshold of 1, grows every layer at every test. The run ends just before the test
that would take it beyond LoRA's rank. AdaLoRA starts at one and a half times the rank and ends at it on average.
"""

import multiprocessing

from common import FAST, SIZES, arguments, load_pipeline, pick_shape, show
from training_speed import study

from selora.adapters import ranks
from selora.analysis.timing import seconds_of
from selora.diffusion.machine import peak_memory_mb, reset_peak_memory
from selora.diffusion.method import Method
from selora.methods import make_method

INTERVAL = 40  # steps, the paper's


def method_of(name: str, rank: int, steps: int) -> Method:
    """LoRA, AdaLoRA or SeLoRA that ends at a rank."""
    settings = {
        "lora": {"rank": rank},
        "adalora": {"init_rank": rank * 3 // 2, "rank": rank},
        "selora": {"rank": 1, "threshold": 1.0, "interval": INTERVAL},
    }
    return make_method(name, settings[name], 0, steps)


def measure(name: str, shape: str, batch: int, steps: int, rank: int) -> tuple[float, float, float]:
    """Seconds, peak memory in MB and the mean rank at the end of a run."""
    pipe = load_pipeline(shape, FAST)
    run = study(pipe, method_of(name, rank, steps), SIZES[shape], batch, steps)
    reset_peak_memory()
    seconds = seconds_of(run)
    found = [r for model in (pipe.unet, pipe.text_encoder) for r in ranks(model).values()]
    return seconds, peak_memory_mb(), sum(found) / len(found)


def main() -> None:
    options = arguments(__doc__, batch=(8, "samples"), rank=(4, "at the end"))
    shape, steps = pick_shape(options.shape), INTERVAL * options.rank - 1
    found, rows = {}, []
    # a process each, so that none starts with the memory that another left behind
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name in ("lora", "adalora", "selora"):
            found[name] = pool.apply(measure, (name, shape, options.batch, steps, options.rank))
    for name, (seconds, memory, rank) in found.items():
        rows.append((name, rank, seconds, seconds / found["lora"][0], f"{memory:.0f}", memory / found["lora"][1]))
    title = f"Runs of {steps} steps, {shape} shape, {SIZES[shape]} px, batch {options.batch}"
    show(title, rows, ("method", "mean rank at the end", "seconds", "to LoRA's", "peak memory, MB", "to LoRA's"))


if __name__ == "__main__":
    main()
