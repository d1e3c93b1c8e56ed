"""The grid of runs: here or on a cluster, what is finished is read, and a lost worker costs no run."""

import json
import threading
import time

import pandas as pd
import pytest

from selora.study import grid
from selora.study.grid import make_runs
from selora.study.profiles import load_profile
from selora.study.run import run_folder

SEEDS = (0, 1)


def test_runs_that_are_finished_are_only_read(tmp_path, monkeypatch):
    """The executor is handed what is missing; the results come in the order asked for."""
    profile, runs, handed = load_profile("smoke"), [("iu-drr", "lora", seed) for seed in (2, 0, 1)], []

    def finish(profile, names, results=tmp_path):
        folder = run_folder(profile, *names, results)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps({"seed": names[2]}))

    def executor(profile, missing, results):
        handed.extend(missing)
        for names in missing:
            finish(profile, names)

    def read(profile, *names_and_results):
        return json.loads((run_folder(profile, *names_and_results) / "result.json").read_text())

    monkeypatch.setitem(grid.EXECUTORS, "recorded", executor)
    monkeypatch.setattr(grid, "run", read)
    finish(profile, runs[1])
    assert [r["seed"] for r in make_runs(profile, runs, tmp_path, "recorded")] == [2, 0, 1]
    assert handed == [runs[0], runs[2]]
    with pytest.raises(ValueError, match="unknown executor 'slurm': choose from local, ray"):
        make_runs(profile, runs, tmp_path, "slurm")


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
    profile, runs = load_profile("smoke"), [("montgomery-drr", "lora", seed) for seed in SEEDS]
    folders = [run_folder(profile, *names, tmp_path) for names in runs]
    seen = []

    def kill():
        """Ends a worker as soon as both have a checkpoint: one of the runs loses its machine in the middle."""
        while not all((folder / "checkpoint.safetensors").exists() for folder in folders):
            time.sleep(0.02)
        cluster.remove_node(workers[0], allow_graceful=False)
        seen.append([(folder / "result.json").exists() for folder in folders])

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    results = make_runs(profile, runs, tmp_path, "ray")
    killer.join(timeout=5)
    assert seen == [[False, False]], "the worker must go while both runs are under way"
    assert [result["seed"] for result in results] == list(SEEDS)
    for folder in folders:
        steps = pd.read_csv(folder / "history.csv")["step"]
        assert list(steps) == list(range(1, profile.steps["montgomery-drr"] + 1))
        assert len(list((folder / "samples").iterdir())) == profile.images


def test_a_run_that_fails_on_the_cluster_ends_with_its_error(cluster, tmp_path, monkeypatch):
    """It looks for the data where this process was told to, though the cluster was started without SELORA_DATA."""
    monkeypatch.setenv("SELORA_DATA", str(tmp_path))
    profile = load_profile("smoke", datasets="montgomery")
    with pytest.raises(RuntimeError, match=rf"(?s)a run failed on the cluster.*go on. selora: .*{tmp_path.name}"):
        make_runs(profile, [("montgomery", "lora", 0)], tmp_path, "ray")
