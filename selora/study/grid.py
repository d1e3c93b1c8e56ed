"""Where the runs of a grid are made: here, one after the other, or on a Ray cluster, one GPU a run."""

from pathlib import Path

from selora.data.folders import named_root
from selora.study.profiles import check_choices
from selora.study.results import Run
from selora.study.run import make_run

RETRIES = 3  # of a run whose worker was lost; it goes on from its checkpoint


def make_runs(runs: list[Run], executor: str = "local") -> list[dict]:
    """Make the runs that are missing; the result.json of all, in their order.

    Raises:
        ValueError: for an unknown executor, with the choices.
        RuntimeError: where Ray is not installed, or a run failed on the cluster.
    """
    check_choices("executor", [executor], EXECUTORS)
    missing = [run for run in runs if not run.done]
    if missing:
        EXECUTORS[executor](missing)
    return [make_run(run) for run in runs]


def make_here(runs: list[Run]) -> None:
    """One run after the other, in this process."""
    for run in runs:
        make_run(run)


def make_on_ray(runs: list[Run]) -> None:
    """All runs at once on the Ray cluster at hand (RAY_ADDRESS; without it, this machine), each on a GPU of its own, or
    on a CPU where the cluster has no GPU. Each is `python -m selora.study`, with all its checks.

    Every machine needs this environment and repository, and the results on a disk that all share. A run that builds on
    another waits for it.
    """
    try:
        import ray
    except ImportError as error:
        raise RuntimeError("executor ray needs Ray: pip install -e '.[cluster]', or use executor local") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    resources = {"num_gpus": 1} if ray.cluster_resources().get("GPU") else {"num_cpus": 1}
    # a worker that has made its run ends, and with it what it held of the GPU
    task = ray.remote(max_calls=1, max_retries=RETRIES, **resources)(make_by_command)
    needed = [run.builds_on for run in runs if run.builds_on]
    made = {}  # by folder: each once, and in time
    for run in sorted([*runs, *needed], key=lambda run: run.builds_on is not None):
        if run.folder not in made:
            made[run.folder] = task.remote(arguments_of(run), made[run.builds_on.folder] if run.builds_on else None)
    try:
        ray.get(list(made.values()))
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", error)  # what the run itself raised, without the worker's traceback
        raise RuntimeError(f"a run failed on the cluster; finished ones stay, start again to go on. {cause}") from error


def arguments_of(run: Run) -> list[str]:
    """A run as arguments of `python -m selora.study`."""
    root = named_root(run.profile.data_root)  # workers have the cluster's environment, not this one
    profile = run.profile.file or run.profile.name
    return [
        *("--profile", profile, "--dataset", run.dataset, "--method", run.method, "--seed", str(run.seed)),
        *("--results", str(run.results.resolve())),
        *(("--data-root", str(Path(root).resolve())) if root else ()),
    ]


def make_by_command(arguments: list[str], first: None) -> None:
    """What a worker does. first: the outcome of the run that this one waited for."""
    from selora.study.__main__ import main

    try:
        main(arguments)
    except SystemExit as stop:  # in a worker it would pass for a lost one, and the run would be tried again
        raise RuntimeError(f"{stop}") from None


EXECUTORS = {"local": make_here, "ray": make_on_ray}
