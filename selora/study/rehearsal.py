"""What the end of a run needs, tried before its training."""

import numpy as np
from diffusers import StableDiffusionPipeline

from selora.data.example import DataError, Example
from selora.diffusion import machine
from selora.diffusion.base import try_base
from selora.scoring.metrics import ms_ssim_within
from selora.study.results import Run


def try_end(run: Run, pipe: StableDiffusionPipeline, scored: list[Example]) -> None:
    """Try the base, the least size of MS-SSIM, and in the main process the names of the samples.

    Raises:
        ValueError: for a base or a resolution that will not do.
        DataError: for a sample that could not be saved.
    """
    size = run.profile.resolution
    try_base(pipe, run.profile.base_model, size)
    try:
        ms_ssim_within(np.zeros((1, 2, size, size, 3), dtype=np.uint8))
    except ValueError as error:
        raise ValueError(
            f"profile {run.profile.name}: resolution {size} is too small for MS-SSIM, which needs 112 pixels: raise it"
        ) from error
    for path in run.samples([e.id for e in scored]) if machine.state().is_main_process else []:
        trial = path.with_suffix(".try")  # as long a name; another process may be at work on the samples themselves
        try:
            trial.parent.mkdir(parents=True, exist_ok=True)
            trial.touch()
        except (OSError, ValueError) as error:  # too long; a sign that no name may hold
            raise DataError(
                f"Sample {path.name} could not be saved ({error}). Give its picture a shorter name."
            ) from error
        trial.unlink(missing_ok=True)
