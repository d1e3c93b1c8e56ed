"""What the command does with a whole study: make it, and list its runs."""

import argparse
import sys
from collections import Counter
from pathlib import Path

from selora.files import NOTEBOOKS, RESULTS, check_clone


def parser_of(prog: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """A parser of what chooses a study."""
    parser = argparse.ArgumentParser(prog=prog, description=description, epilog=epilog)
    parser.add_argument("--profile", default="quick", help="one of the study's, or a .yaml file of your own")
    parser.add_argument("--datasets", default="", help="comma-separated; without it the profile's")
    parser.add_argument("--methods", default="", help="comma-separated; without it the profile's")
    parser.add_argument("--data-root", default="", help="of the real sets; without it SELORA_DATA, else data/raw")
    parser.add_argument("--results", default="", help=f"folder of the results; without it {RESULTS}")
    return parser


def study(arguments: list[str], prog: str, epilog: str) -> None:
    """Execute run_all.ipynb, with its output as it comes."""
    parser = parser_of(prog, "Make the whole study: the data, every run, tables, figures, index.html.", epilog)
    parser.add_argument(
        "--executor",
        default="cores",
        help="cores: a run on each core, on a GPU one after the other (the default); local; ray: on a cluster's GPUs",
    )
    args = parser.parse_args(arguments)
    check_clone(__name__)
    from papermill.cli import papermill as command
    from papermill.exceptions import PapermillExecutionError

    copy = Path(args.results or RESULTS) / Path(args.profile).stem / "notebooks" / "run_all.ipynb"
    copy.parent.mkdir(parents=True, exist_ok=True)
    parameters = [word for name, value in vars(args).items() for word in ("-p", name, value)]
    options = ["--log-output", "--no-progress-bar", *parameters]
    try:
        command.main([str(NOTEBOOKS / "run_all.ipynb"), str(copy), *options], standalone_mode=False)
    except PapermillExecutionError as error:
        sys.exit(f"selora: {error.ename}: {error.evalue} (see {copy})")


def list_runs(arguments: list[str], prog: str, epilog: str) -> None:
    """Print one line a run of a profile: its state, data set, method, seed and folder."""
    args = parser_of(prog, "Say which runs of a profile are done.", epilog).parse_args(arguments)
    from selora.study.laboratory import Study
    from selora.study.listing import state_of
    from selora.study.profiles import load_profile

    profile = load_profile(args.profile, args.datasets, args.methods, args.data_root)
    counts: Counter[str] = Counter()
    for run in Study(profile, Path(args.results or RESULTS) / profile.name).everything():
        state = state_of(run)
        counts[state] += 1
        print(f"{state:<11}{run.dataset:<16}{run.method:<16}{run.seed:>3}  {run.folder}")
    print(", ".join(f"{counts[state]} {state}" for state in ("done", "unfinished", "missing", "stale")))
