"""Where the runs of a grid are made: here, one after the other or one on each core, or on a Ray cluster."""

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import psutil

from selora.data.folders import named_root
from selora.study.profiles import check_choices, load_profile
from selora.study.results import Run
from selora.study.run import make_run

RETRIES = 3  # of a run whose worker was lost; it goes on from its checkpoint
MEMORY = 3 * 2**30  # bytes a run may need on a CPU: 2.2 at mini scale, and some room
ALONE = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}  # in the workers' environment; bars of many runs would mingle


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


def make_on_cores(runs: list[Run]) -> None:
    """As many runs at a time as there are cores and memory for, one thread each; one after the other on a GPU.

    On two cores that is 1.3 to 1.5 times as fast as runs of two threads, and what one thread computes is the same
    however many cores there are. Long ones are made first; one that builds on another waits for all that do not.

    Raises:
        RuntimeError: where a run's process was lost. What a run itself raises comes as it is, and ends the others.
    """
    workers = at_once(len(runs))
    if workers < 2:
        return make_here(runs)
    first, later = in_order(runs)
    print(f"{len(runs)} runs, {workers} at a time, one thread each", flush=True)
    started, made, total = time.perf_counter(), 0, len(first) + len(later)
    with workers_of_one_thread(workers) as pool:
        for wave in (first, later):
            under_way = {pool.submit(make_run, run): run for run in wave}
            for future in as_completed(under_way):
                future.result()
                run, made = under_way[future], made + 1
                left = (time.perf_counter() - started) / made * (total - made) / 60
                what = f"{run.method} on {run.dataset}, seed {run.seed}"
                print(f"{what}  ({made} of {total}, about {left:.0f} min left)", flush=True)


def at_once(jobs: int) -> int:
    """How many of some runs or notebooks there are cores and memory for, with one thread each; 1 on a GPU."""
    import torch  # late: where all is finished, nothing needs it

    return 1 if torch.cuda.is_available() else min(available_cores(), psutil.virtual_memory().total // MEMORY, jobs)


def available_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(runs: list[Run]) -> tuple[list[Run], list[Run]]:
    """Runs that can be made at once, long ones first, with those that others need; and those that build on them."""
    later = [run for run in runs if run.builds_on]
    first = [run for run in runs if not run.builds_on] + [needed for run in later for needed in run.builds_on]
    once = {run.folder: run for run in first}.values()
    return sorted(once, key=lambda run: run.profile.steps_of(run.dataset), reverse=True), later


@contextmanager
def workers_of_one_thread(count: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of new processes with one thread each, which end as soon as the block does, or the process itself."""
    before = {name: os.environ.get(name) for name in ALONE}
    os.environ.update(ALONE)  # numpy and torch read it once, when they are first imported there
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=end_with_parent)
    try:
        yield pool
    except BrokenProcessPool:
        raise RuntimeError(
            "the process of a run or notebook was lost, most likely for want of memory; finished runs stay, start "
            "again to go on, with executor local for one at a time"
        ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def end_with_parent() -> None:
    """Let a worker end when the process that started it does, even killed: it would hold its run's folder."""

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def make_on_ray(runs: list[Run]) -> None:
    """All runs at once on the Ray cluster at hand (RAY_ADDRESS; without it, this machine), each on a GPU of its own, or
    on a CPU where the cluster has no GPU. Each is `python -m selora.study`, with all its checks.

    Every machine needs this environment and repository, and the results on a disk that all share. A run that builds on
    others waits for them. One whose settings its profile does not have, as of fewer steps, is made here.
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
    here = [run for run in runs if not is_named(run)]
    runs = [run for run in runs if run not in here]
    needed = [needed for run in runs for needed in run.builds_on]
    made = {}  # by folder: each once, and in time
    for run in sorted([*runs, *needed], key=lambda run: len(run.builds_on)):
        if run.folder not in made:
            made[run.folder] = task.remote(arguments_of(run), *(made[other.folder] for other in run.builds_on))
    make_here(here)
    try:
        ray.get(list(made.values()))
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", error)  # what the run itself raised, without the worker's traceback
        raise RuntimeError(f"a run failed on the cluster; finished ones stay, start again to go on. {cause}") from error


def is_named(run: Run) -> bool:
    """Whether a run is what its profile, data set, method and seed name, so that a command can make it."""
    named = load_profile(run.profile.file or run.profile.name)
    return named.run_settings(run.dataset, run.method) == run.profile.run_settings(run.dataset, run.method)


def arguments_of(run: Run) -> list[str]:
    """A run as arguments of `python -m selora.study`."""
    root = named_root(run.profile.data_root)  # workers have the cluster's environment, not this one
    profile = run.profile.file or run.profile.name
    return [
        *("--profile", profile, "--dataset", run.dataset, "--method", run.method, "--seed", str(run.seed)),
        *("--results", str(run.results.resolve())),
        *(("--data-root", str(Path(root).resolve())) if root else ()),
    ]


def make_by_command(arguments: list[str], *first: None) -> None:
    """What a worker does. first: the outcomes of the runs that this one waited for."""
    from selora.study.__main__ import main

    try:
        main(arguments)
    except SystemExit as stop:  # in a worker it would pass for a lost one, and the run would be tried again
        raise RuntimeError(f"{stop}") from None


EXECUTORS = {"local": make_here, "cores": make_on_cores, "ray": make_on_ray}
