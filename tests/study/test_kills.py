"""A run killed at any moment, again and again, ends as one that was let alone: the same bytes in every file."""

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import scored_base
from PIL import Image

from selora.files import REPOSITORY, read_json, write_json
from selora.study import stages
from selora.study.lock import Busy, alone
from selora.study.profiles import Profile, load_profile
from selora.study.report.publish import publish
from selora.study.results import Run
from selora.study.run import make_run

KILLS = int(os.environ.get("SELORA_TEST_KILLS", 20))
# of result.json: what a clock or the machine says
MEASURED = ("train_seconds", "sample_seconds", "peak_memory_mb", "commit")
WRITES = ("open", "os.rename", "os.remove", "os.mkdir")  # events of Python's between two of which a file may be half


@pytest.fixture(scope="module")
def profile(tmp_path_factory) -> Profile:
    """A short run of SeLoRA with two probes, four checkpoints and two validations, on twenty pictures of noise."""
    folder = tmp_path_factory.mktemp("kills")
    scored_base().save_pretrained(folder / "base")
    rng, rows = np.random.default_rng(0), ["file_name,text,split"]
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (112, 112), dtype=np.uint8)).save(folder / f"{i}.png")
        rows.append(f"{i}.png,heart {i} clear,{'train' if i < 8 else 'val' if i < 14 else 'test'}")
    (folder / "metadata.csv").write_text("\n".join(rows), encoding="utf-8")
    return replace(
        load_profile("smoke", datasets="imagefolder", methods="selora", data_root=str(folder)),
        base_model=str(folder / "base"),
        resolution=112,
        steps={"other": 6},
        images=6,
        sampling_steps=1,
        checkpoint_interval=2,
        method_settings={"selora": {"threshold": 1.0, "interval": 3}},
    )


def work(run: Run, cache: Path, kill_at: int, count) -> None:
    """Make a run in a process of its own; at the `kill_at`-th event of writing it kills itself (0: never)."""
    stages.CACHE, stages.DIVERSITY = cache, (1, 2)
    seen, inside = 0, []

    def watch(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event in WRITES and not (event == "open" and arguments[1] in ("r", "rb", None)):
            seen += 1
            if seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if event == "open" and "__pycache__" not in (name := str(arguments[0])):
                inside.extend([name] if name.startswith(f"{REPOSITORY}/") else [])

    sys.addaudithook(watch)
    make_run(run)
    assert not inside, "with results and a cache elsewhere, a checkout may be read-only"
    count.value = seen


def started(run: Run, cache: Path, kill_at: int = 0):
    """A process at work on a run, forked from one that has imported all there is; and its count of events."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["selora.study.stages", "selora.methods.selora", __name__])
    count = context.Value("i", 0)
    process = context.Process(target=work, args=(run, cache, kill_at, count))
    process.start()
    return process, count


def contents(path: Path) -> bytes:
    """A file's bytes; of safetensors with the header in order, which safetensors leaves to chance."""
    whole = path.read_bytes()
    if path.suffix != ".safetensors":
        return whole
    start = 8 + int.from_bytes(whole[:8], "little")
    return json.dumps(json.loads(whole[8:start]), sort_keys=True).encode() + whole[start:]


def files_of(folder: Path) -> dict[str, bytes]:
    """All files of a run by name, result.json without what was measured."""
    found = {path.relative_to(folder).as_posix(): contents(path) for path in folder.rglob("*") if path.is_file()}
    result = {key: value for key, value in json.loads(found["result.json"]).items() if key not in MEASURED}
    return found | {"result.json": json.dumps(result).encode()}


def test_a_run_killed_at_random_moments_ends_with_the_same_bytes(profile, tmp_path):
    """In turns by the clock (SIGTERM and SIGKILL), and at the moment that it opens, renames or removes a file."""
    whole = Run(profile, "imagefolder", "selora", 0, tmp_path / "whole")
    started(whole, tmp_path / "cache", kill_at=1)[0].join()  # with the first begins the server, which imports all
    began = time.monotonic()
    process, count = started(whole, tmp_path / "cache")
    process.join()
    seconds = time.monotonic() - began
    assert process.exitcode == 0 and count.value > 20
    expected, rng, killed, finished = files_of(whole.folder), random.Random(0), 0, 0
    while killed < KILLS:
        run = replace(whole, results=tmp_path / f"killed-{finished}")
        by_clock = killed % 2
        process, _ = started(run, tmp_path / f"cache-{finished}", 0 if by_clock else rng.randint(1, count.value))
        process.join(rng.uniform(0, seconds) if by_clock else None)
        if process.exitcode is None:
            os.kill(process.pid, rng.choice([signal.SIGTERM, signal.SIGKILL]))
            process.join()
        if process.exitcode == 0:
            assert files_of(run.folder) == expected
            finished += 1
        else:
            assert process.exitcode in (-signal.SIGTERM, -signal.SIGKILL)
            killed += 1
    process, _ = started(run, tmp_path / f"cache-{finished}")
    process.join()
    assert process.exitcode == 0 and files_of(run.folder) == expected


def publish_killed(folder: Path, target: Path, kill_at: int) -> None:
    seen = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event in WRITES or event.startswith("shutil."):
            seen += 1
            if seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    publish(folder, target)


@pytest.mark.parametrize("kill_at", [1, 3, 5, 8, 11])
def test_a_publishing_that_was_killed_leaves_the_old_or_the_new(tmp_path, kill_at):
    folder, target = tmp_path / "quick", tmp_path / "published" / "quick"
    for seed in (0, 1):
        write_json(folder / f"runs/iu-drr/lora/seed{seed}/result.json", {"kid": 0.1})
    (folder / "index.html").write_text("", encoding="utf-8")
    publish(folder, target)
    write_json(folder / "runs/iu-drr/lora/seed1/result.json", {"kid": 0.2})
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=publish_killed, args=(folder, target, kill_at))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    kids = [read_json(path)["kid"] for path in sorted(target.glob("runs/*/*/*/result.json"))]
    assert kids in ([0.1, 0.1], [0.1, 0.2])
    publish(folder, target)
    assert read_json(target / "runs/iu-drr/lora/seed1/result.json") == {"kid": 0.2}
    assert [path.name for path in target.parent.iterdir()] == ["quick"]


def hold(folder: Path, held) -> None:
    with alone(folder):
        held.set()
        time.sleep(60)


def test_a_second_process_is_told_and_a_killed_ones_hold_ends_with_it(tmp_path):
    context = multiprocessing.get_context("forkserver")
    held = context.Event()
    process = context.Process(target=hold, args=(tmp_path, held))
    process.start()
    held.wait()
    with pytest.raises(Busy, match=f"another process is at work in {tmp_path}"), alone(tmp_path, patience=0.1):
        pass
    os.kill(process.pid, signal.SIGKILL)
    with alone(tmp_path):
        pass
    process.join()
