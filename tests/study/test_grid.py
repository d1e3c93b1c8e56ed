"""The grid of runs: here, on cores or on a cluster, what is finished is read, and a lost worker costs no run."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import psutil
import pytest

from selora.data.example import DataError
from selora.files import write_json
from selora.study import grid
from selora.study.grid import in_order, make_runs, workers_of_one_thread
from selora.study.profiles import load_profile
from selora.study.results import Run
from selora.study.stages import say

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
    with pytest.raises(ValueError, match="unknown executor 'slurm': choose from local, cores, ray"):
        make_runs(runs, "slurm")


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(grid, "available_cores", lambda: 2)


def test_runs_on_cores_are_those_that_one_process_makes(two_cores, tmp_path, capsys):
    """Tensor by tensor, and each is said as it ends, their data set once; the environment is left as it was."""
    say.cache_clear()
    short = replace(load_profile("smoke"), steps={"montgomery-drr": 4, "other": 4}, images=6)
    before = dict(os.environ)
    folders = {}
    for executor in ("local", "cores"):
        runs = [Run(short, "montgomery-drr", "lora", seed, tmp_path / executor) for seed in SEEDS]
        assert [result["seed"] for result in make_runs(runs, executor)] == list(SEEDS)
        folders[executor] = [run.folder for run in runs]
    for here, there in zip(folders["local"], folders["cores"], strict=True):
        for name in ("pytorch_lora_weights.safetensors", "history.csv"):
            ours, theirs = (here / name).read_bytes(), (there / name).read_bytes()
            assert ours[-1000:] == theirs[-1000:], name  # the order of safetensors' metadata is left to chance
    said = capsys.readouterr().out
    assert "2 runs, 2 at a time, one thread each" in said and "(2 of 2, about 0 min left)" in said
    assert said.count("test prompts stand word for word in the training set") == 1  # in this process
    assert dict(os.environ) == before


def test_an_error_of_a_run_on_a_core_comes_as_it_is(two_cores, tmp_path):
    profile = load_profile("smoke", datasets="montgomery", data_root=str(tmp_path))
    with pytest.raises(DataError, match=tmp_path.name):
        make_runs([Run(profile, "montgomery", "lora", seed, tmp_path) for seed in SEEDS], "cores")


def test_a_lost_process_is_said():
    with pytest.raises(RuntimeError, match="lost.*start again to go on"), workers_of_one_thread(1) as pool:
        pool.submit(os._exit, 1).result()


def test_workers_end_with_the_process_that_was_killed():
    """Else they would hold the folders of their runs, and the next start would find them busy."""
    script = (
        "import os, time\nfrom selora.study.grid import workers_of_one_thread\n"
        "if __name__ == '__main__':\n"
        "    with workers_of_one_thread(1) as pool:\n"
        "        print(pool.submit(os.getpid).result(), flush=True)\n"
        "        pool.submit(time.sleep, 600).result()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        worker = psutil.Process(int(process.stdout.readline()))
        process.kill()
    assert not psutil.wait_procs([worker], timeout=10)[1]


def test_long_runs_go_first_and_those_that_others_build_on_before_them():
    profile = replace(load_profile("smoke"), steps={"iu-drr": 20, "montgomery-drr": 10})
    names = [("montgomery-drr", "lora"), ("iu-drr", "lora-matched"), ("iu-drr", "ranks-gora"), ("iu-drr", "lora")]
    first, later = in_order([Run(profile, dataset, method, 0) for dataset, method in names])
    assert [(r.dataset, r.method) for r in first] == [
        ("iu-drr", "lora"),
        ("iu-drr", "selora"),
        ("iu-drr", "gora"),
        ("montgomery-drr", "lora"),
    ]
    assert [r.method for r in later] == ["lora-matched", "ranks-gora"]


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster on this machine: a head that takes no work, and two workers for one run each."""
    ray = pytest.importorskip("ray", reason="the extra [cluster] is not installed")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # at Ray's 15 a busy machine would starve them
        noticed = {"health_check_period_ms": 500, "health_check_failure_threshold": 2}  # a lost node, sooner
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": noticed}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        workers = [cluster.add_node(num_cpus=1) for _ in range(2)]
        ray.init(address=cluster.address, log_to_driver=False)
        yield cluster, workers
        ray.shutdown()
        cluster.shutdown()


def test_a_run_that_fails_on_the_cluster_ends_with_its_error(cluster, tmp_path, monkeypatch):
    """It looks for the data where this process was told to, though the cluster was started without SELORA_DATA."""
    monkeypatch.setenv("SELORA_DATA", str(tmp_path))
    profile = load_profile("smoke", datasets="montgomery")
    with pytest.raises(RuntimeError, match=rf"(?s)a run failed on the cluster.*go on. selora: .*{tmp_path.name}"):
        make_runs([Run(profile, "montgomery", "lora", 0, tmp_path)], "ray")


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
