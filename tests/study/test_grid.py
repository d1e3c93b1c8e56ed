"""The grid of runs: here or on a cluster, what is finished is read, and a lost worker costs no run."""

import threading
import time

import pytest

from selora.files import write_json
from selora.study import grid
from selora.study.grid import make_runs
from selora.study.profiles import load_profile
from selora.study.results import Run

SEEDS = (0, 1)


def test_runs_that_are_finished_are_only_read(tmp_path, monkeypatch):
    """The executor is handed what is missing; the results come in the order asked for."""
    profile, handed = load_profile("smoke"), []
    runs = [Run(profile, "iu-drr", "lora", seed, tmp_path) for seed in (2, 0, 1)]

    def finish(run):
        write_json(run.record, {"seed": run.seed})

    def executor(missing):
        handed.extend(missing)
        for run in missing:
            finish(run)

    monkeypatch.setitem(grid.EXECUTORS, "recorded", executor)
    monkeypatch.setattr(grid, "make_run", Run.result)
    finish(runs[1])
    assert [r["seed"] for r in make_runs(runs, "recorded")] == [2, 0, 1]
    assert handed == [runs[0], runs[2]]
    with pytest.raises(ValueError, match="unknown executor 'slurm': choose from local, ray"):
        make_runs(runs, "slurm")


@pytest.fixture
def cluster(monkeypatch):
    """A Ray cluster on this machine: a head that takes no work, and two workers for one run each."""
    ray = pytest.importorskip("ray", reason="the extra [cluster] is not installed")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # at Ray's 15 a busy machine would starve them
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    workers = [cluster.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster, workers
    ray.shutdown()
    cluster.shutdown()


def test_a_run_whose_worker_is_lost_goes_on_at_another(cluster, tmp_path):
    cluster, workers = cluster
    profile = load_profile("smoke")
    runs = [Run(profile, "montgomery-drr", "lora", seed, tmp_path) for seed in SEEDS]
    seen = []

    def kill():
        """Ends a worker as soon as both have a checkpoint: one of the runs loses its machine in the middle."""
        while not all((run.folder / "checkpoint.safetensors").exists() for run in runs):
            time.sleep(0.02)
        cluster.remove_node(workers[0], allow_graceful=False)
        seen.append([run.done for run in runs])

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    results = make_runs(runs, "ray")
    killer.join(timeout=5)
    assert seen == [[False, False]], "the worker must go while both runs are under way"
    assert [result["seed"] for result in results] == list(SEEDS)
    for run in runs:
        assert list(run.table("history").step) == list(range(1, profile.steps["montgomery-drr"] + 1))
        assert len(list((run.folder / "samples").iterdir())) == profile.images


def test_a_run_that_fails_on_the_cluster_ends_with_its_error(cluster, tmp_path, monkeypatch):
    """It looks for the data where this process was told to, though the cluster was started without SELORA_DATA."""
    monkeypatch.setenv("SELORA_DATA", str(tmp_path))
    profile = load_profile("smoke", datasets="montgomery")
    with pytest.raises(RuntimeError, match=rf"(?s)a run failed on the cluster.*go on. selora: .*{tmp_path.name}"):
        make_runs([Run(profile, "montgomery", "lora", 0, tmp_path)], "ray")
