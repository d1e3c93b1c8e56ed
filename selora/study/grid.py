"""Where the runs of a grid are made: here, one after the other, or on a Ray cluster, one GPU a run."""

from pathlib import Path

from selora.data.example import named_root
from selora.methods import NEEDS, named
from selora.study.profiles import Profile, check_choices
from selora.study.run import run, run_folder

RETRIES = 3  # of a run whose worker was lost; it goes on from its checkpoint

Run = tuple[str, str, int]  # data set, method, seed


def make_runs(profile: Profile, runs: list[Run], results: Path, executor: str = "local") -> list[dict]:
    """Make the runs that are missing; the result.json of all, in their order.

    Raises:
        ValueError: for an unknown executor, with the choices.
        RuntimeError: where Ray is not installed, or a run failed on the cluster.
    """
    check_choices("executor", [executor], EXECUTORS)
    missing = [r for r in runs if not (run_folder(profile, *r, results) / "result.json").exists()]
    if missing:
        EXECUTORS[executor](profile, missing, results)
    return [run(profile, *names, results) for names in runs]


def make_here(profile: Profile, runs: list[Run], results: Path) -> None:
    """One run after the other, in this process."""
    for names in runs:
        run(profile, *names, results)


def make_on_ray(profile: Profile, runs: list[Run], results: Path) -> None:
    """All runs at once on the Ray cluster at hand (RAY_ADDRESS; without it, this machine), each on a GPU of its own, or
    on a CPU where the cluster has no GPU. Each is `python -m selora.study`, with all its checks.

    Every machine needs this environment and repository, and `results` on a disk that all share. A run that builds on
    another (NEEDS) waits for it.
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
    root = named_root(profile.data_root)  # workers have the cluster's environment, not this one
    made = {}
    needed = {(d, NEEDS[named(m)[0]], s) for d, m, s in runs if named(m)[0] in NEEDS}  # in time, and once
    for dataset, method, seed in sorted(dict.fromkeys([*runs, *needed]), key=lambda names: named(names[1])[0] in NEEDS):
        first = made.get((dataset, NEEDS.get(named(method)[0]), seed))
        arguments = ["--profile", profile.name, "--dataset", dataset, "--method", method, "--seed", str(seed)]
        arguments += ["--results", str(results.resolve())]
        arguments += ["--data-root", str(Path(root).resolve())] if root else []
        made[dataset, method, seed] = task.remote(arguments, first)
    try:
        ray.get(list(made.values()))
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", error)  # what the run itself raised, without the worker's traceback
        raise RuntimeError(f"a run failed on the cluster; finished ones stay, start again to go on. {cause}") from error


def make_by_command(arguments: list[str], first: None) -> None:
    """What a worker does. first: the outcome of the run that this one waited for."""
    from selora.study.__main__ import main

    try:
        main(arguments)
    except SystemExit as stop:  # in a worker it would pass for a lost one, and the run would be tried again
        raise RuntimeError(f"{stop}") from None


EXECUTORS = {"local": make_here, "ray": make_on_ray}
