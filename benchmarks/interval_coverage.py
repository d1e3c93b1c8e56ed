"""How often the intervals over seeds and prompts hold the truth, in simulated studies where it is known.

    python benchmarks/interval_coverage.py --trials 4000

A difference of two methods is made of a number for each seed, each prompt and each picture; the columns say how large
their standard deviations are in a run's figure. The last column is the interval that takes the seeds for given.
"""

from common import arguments, show

from selora.analysis.coverage import coverage, prompts_alone

CASES = {  # seed, prompt, picture, heavy tails
    "seeds alone": (1.0, 0.0, 0.0, False),
    "as measured here: seeds move KID x 1000 by 10, prompts by 3": (10.0, 2.0, 2.0, False),
    "the same, seeds with heavy tails": (10.0, 2.0, 2.0, True),
    "seeds and prompts alike": (1.0, 1.0, 1.0, False),
    "prompts alone": (0.0, 1.0, 1.0, False),
    "pictures alone": (0.0, 0.0, 1.0, False),
}


def main() -> None:
    options = arguments(
        __doc__, trials=(4000, "simulated studies"), seeds=(8, "of each study"), prompts=(200, "of each run")
    )
    how = {"seeds": options.seeds, "prompts": options.prompts, "trials": options.trials}
    rows = [
        (name, *(f"{100 * coverage(*sizes, *way, heavy=heavy, **how):.1f}" for way in ((), (prompts_alone,))))
        for name, (*sizes, heavy) in CASES.items()
    ]
    title = f"Coverage of 95 % intervals, {options.seeds} seeds, {options.prompts} prompts, {options.trials} studies"
    show(title, rows, ("what differs", "over seeds and prompts, %", "over prompts alone, %"))


if __name__ == "__main__":
    main()
