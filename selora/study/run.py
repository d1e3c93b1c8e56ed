"""One run of the study: data set x method x seed, named by them, skipped when done."""

import os

from selora.study.fingerprints import check_settings, settings_of
from selora.study.results import Run

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it warns of image processors that nothing here uses


def make_run(run: Run) -> dict:
    """Train, sample and score a run, or read it if it is done; an interrupted one goes on from its checkpoint.

    Returns:
        What stands in its result.json.

    Raises:
        DataError: for data that is missing or broken, before any training.
        ValueError: where the folder holds a run with other settings.
        FloatingPointError: for a number that is not finite.
        Busy: where another process is making it.
    """
    settings = settings_of(run)
    check_settings(run.folder, settings)
    if not run.done:
        for needed in run.builds_on:
            make_run(needed)
        from selora.study.stages import execute  # torch and its kin: reading a finished run needs none of them

        execute(run, settings)
    run.checkpoint.unlink(missing_ok=True)  # of a run that was killed between its record and its end
    return run.result()
