"""Where a run stands, seen from its folder and from what would be made now."""

from selora.study.fingerprints import check_settings, settings_of
from selora.study.results import Run


def state_of(run: Run) -> str:
    """'missing' (never begun), 'stale' (begun or finished with other settings, models or data than now, so that it is
    refused), 'unfinished' (goes on when it is made again) or 'done'.

    Raises:
        DataError: where the data of a run that was begun is no longer here, so that it cannot be told.
    """
    if not run.done and not (run.folder / "settings.json").exists():
        return "missing"
    settings = settings_of(run)
    try:
        check_settings(run.folder, settings)
    except ValueError:
        return "stale"
    return "done" if run.done else "unfinished"
