"""Kills the smoke grid at random moments, and compares what it ends with to a grid that was let alone, byte by byte.

    python benchmarks/kill_grid.py --kills 200 --folder data/raw/kills
    python benchmarks/kill_grid.py --kills 3 --datasets montgomery-drr --methods base,lora    # does it work?

Each kill is SIGTERM or SIGKILL, of all processes of `run_all` or of its first alone, whose kernels then end by
themselves. After twenty kills at most a grid is left to finish and compared, and the next begun: most of what is at
risk is in its first runs. Counts stand in `kills.json` in the folder, so the script itself may be stopped and started
again, and two of them with folders of their own kill at once.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil

from selora.files import NOTEBOOKS, REPOSITORY, read_json, write_json

CLOCK = ["train_seconds", "sample_seconds", "peak_memory_mb", "commit"]  # what may differ in result.json and table1.csv
SETTLING = 30  # seconds that orphaned kernels have to end
KILLS_OF_A_GRID = 20  # then it is left to finish


def start(results: Path, narrowed: dict[str, str]) -> subprocess.Popen:
    """`make run_all PROFILE=smoke` into a folder of its own."""
    results.mkdir(parents=True, exist_ok=True)
    parameters = {"profile": "smoke", "results": str(results)} | narrowed
    given = [word for name, value in parameters.items() for word in ("-p", name, value)]
    command = [sys.executable, "-m", "papermill", NOTEBOOKS / "run_all.ipynb", results / "run_all.ipynb", *given]
    with (results / "log.txt").open("ab") as log:
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log)


def kill(process: subprocess.Popen, number: int, whole: bool) -> None:
    """Send a signal to a process, and to all that came of it where `whole`; wait until none of them is left."""
    family = psutil.Process(process.pid).children(recursive=True)
    for member in family if whole else []:
        try:
            member.send_signal(number)
        except psutil.NoSuchProcess:
            pass
    process.send_signal(number)
    process.wait()
    for member in psutil.wait_procs(family, timeout=SETTLING)[1]:
        member.kill()


def contents(path: Path) -> bytes:
    """A file's bytes; of safetensors the tensors with their names: the order of its metadata is left to chance."""
    whole = path.read_bytes()
    if path.suffix != ".safetensors":
        return whole
    start = 8 + int.from_bytes(whole[:8], "little")
    header = {name: entry for name, entry in json.loads(whole[8:start]).items() if name != "__metadata__"}
    return json.dumps(header, sort_keys=True).encode() + whole[start:]


def outcome(results: Path) -> dict[str, bytes]:
    """Weights, images and tables of a grid by name, without what a clock says."""
    folder, found = results / "smoke", {}
    for path in sorted(folder.glob("runs/**/*")):
        if path.is_file() and path.name != ".lock":
            name = path.relative_to(folder).as_posix()
            found[name] = contents(path)
            if path.name == "result.json":
                record = {key: value for key, value in read_json(path).items() if key not in CLOCK}
                found[name] = json.dumps(record).encode()
    table = pd.read_csv(folder / "table1.csv", encoding="utf-8").drop(columns=CLOCK, errors="ignore")
    return found | {"table1.csv": table.to_csv().encode()}


def main() -> None:
    """Kill until enough is killed and the last grid is finished."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "data" / "raw" / "kills")
    parser.add_argument("--datasets", default="", help="of the grid; without it, all of smoke's")
    parser.add_argument("--methods", default="", help="of the grid; without it, all of smoke's")
    args = parser.parse_args()
    narrowed = {"datasets": args.datasets, "methods": args.methods}
    record = args.folder / "kills.json"
    done = {"kills": 0, "grids": 0, "differing": [], "seconds": None, "of this grid": 0}
    done |= read_json(record) if record.exists() else {}
    if done["seconds"] is None:
        began = time.monotonic()
        if start(args.folder / "whole", narrowed).wait():
            sys.exit(f"the grid that is let alone failed: see {args.folder / 'whole' / 'log.txt'}")
        done["seconds"] = time.monotonic() - began
        write_json(record, done)
    expected = outcome(args.folder / "whole")
    while done["kills"] < args.kills or done["of this grid"]:
        rng = random.Random(f"{args.folder.name} {done['kills']}")
        results = args.folder / f"grid-{done['grids']}"
        process = start(results, narrowed)
        # a third of a grid at most, so that one is killed several times before it ends
        last = done["kills"] >= args.kills or done["of this grid"] >= KILLS_OF_A_GRID
        wait = None if last else rng.uniform(0, done["seconds"] / 3)
        try:
            failed = process.wait(wait)
        except subprocess.TimeoutExpired:
            kill(process, rng.choice([signal.SIGTERM, signal.SIGKILL]), rng.random() < 0.5)
            done["kills"] += 1
            done["of this grid"] += 1
        else:
            if failed:
                sys.exit(f"a grid that was killed does not go on: see {results / 'log.txt'}")
            found = outcome(results)
            names = found.keys() | expected.keys()
            done["differing"] += [
                f"{results.name}/{name}" for name in sorted(names) if found.get(name) != expected.get(name)
            ]
            done["grids"] += 1
            done["of this grid"] = 0
        write_json(record, done)
        print(
            f"{done['kills']} kills, {done['grids']} grids finished, {len(done['differing'])} files differ", flush=True
        )


if __name__ == "__main__":
    main()
