"""The solvers that images can be sampled with, by their names in profiles."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Solver:
    """A solver as it is called in print, diffusers' class for it, and that class's options."""

    title: str
    scheduler: str
    options: dict = field(default_factory=dict)


SOLVERS = {
    "sde-dpmsolver++": Solver(
        "SDE-DPM-Solver++",
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True},
    ),
    "dpmsolver++": Solver(
        "DPM-Solver++", "DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True}
    ),
    "pndm": Solver("PNDM", "PNDMScheduler", {"skip_prk_steps": True}),  # the paper's
}
