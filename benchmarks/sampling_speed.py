"""Sampling images a second: one by one, as the released code does, against batches, for each solver.

python benchmarks/sampling_speed.py --images 16 --steps 10
"""

from functools import partial

from common import FAST, PROMPTS, SIZES, arguments, load_pipeline, pick_shape, show

from selora.analysis.timing import in_turns
from selora.diffusion.sampling import sample
from selora.diffusion.solvers import SOLVERS


def main() -> None:
    options = arguments(
        __doc__, images=(8, "in a batch"), steps=(10, "of the solver"), rounds=(3, "turns of each variant")
    )
    shape = pick_shape(options.shape)
    pipe = load_pipeline(shape, FAST)
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(options.images)]
    how = {"size": SIZES[shape], "steps": options.steps, "guidance_scale": 2.0, "seed": 0}
    variants = {
        (solver, batch): partial(sample, pipe, prompts, batch_size=batch, solver=solver, **how)
        for solver in SOLVERS
        for batch in (1, options.images)
    }
    seconds = in_turns(variants, options.rounds).median()
    first = seconds["pndm", 1]
    rows = [(*name, options.images / s, first / s) for name, s in seconds.items()]
    title = f"Sampling, {shape} shape, {SIZES[shape]} px, {options.steps} steps, with guidance"
    show(title, rows, ("solver", "batch", "images a second", "ratio to PNDM one by one"))


if __name__ == "__main__":
    main()
