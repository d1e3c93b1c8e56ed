"""Sampling images a second: one by one, as the released code does, against batches, for each solver.

python benchmarks/sampling_speed.py --images 16 --steps 10
"""

import argparse
from functools import partial

import torch
from common import PROMPTS, SIZES, in_turns, load_pipeline, pick_shape, show

from selora.sampling import SOLVERS, sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SIZES)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10, help="solver steps")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each variant")
    options = parser.parse_args()
    shape = pick_shape(options.shape)
    pipe = load_pipeline(shape, "bf16" if torch.cuda.is_available() else "fp32")
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(options.images)]
    how = {"size": SIZES[shape], "steps": options.steps, "guidance_scale": 2.0, "seed": 0}
    variants = {
        (solver, batch): partial(sample, pipe, prompts, batch_size=batch, solver=solver, **how)
        for solver in SOLVERS
        for batch in (1, options.images)
    }
    seconds = in_turns(variants, options.rounds)
    first = seconds["pndm", 1]
    rows = [(*name, options.images / s, first / s) for name, s in seconds.items()]
    title = f"Sampling, {shape} shape, {SIZES[shape]} px, {options.steps} steps, with guidance"
    show(title, rows, ("solver", "batch", "images a second", "ratio to PNDM one by one"))


if __name__ == "__main__":
    main()
