"""In it: the command `selora`, one name for all that the study's modules do from a shell.
May enter: a row of COMMANDS, and its arguments where no module has them; nothing that takes long to import.
"""

import argparse
import sys
from importlib import import_module

from selora import __version__

COMMANDS = {  # whose function does it, what it does, an example's arguments
    "run": (
        "selora.study.__main__:main",
        "make one run: train, sample and score a method on a data set; a finished one is read",
        "--profile quick --dataset iu-drr --method selora --seed 0",
    ),
    "study": (
        "selora.command.study:study",
        "make the whole study, as `make run_all` does: all notebooks of a profile",
        "--profile smoke --datasets iu-drr --methods base,selora",
    ),
    "list": (
        "selora.command.study:list_runs",
        "say which runs of a profile are done, unfinished, missing or stale",
        "--profile quick --methods lora,selora",
    ),
    "export": (
        "selora.command.adapters:export_adapter",
        "write a run's adapter for diffusers, PEFT, or the kohya tools, with its model card",
        "results/quick/runs/iu-drr/selora/seed0 --format kohya --to models/loras",
    ),
    "merge": (
        "selora.command.adapters:merge_adapter",
        "put a run's adapter into its base model: a plain pipeline folder",
        "results/quick/runs/iu-drr/selora/seed0 --to merged",
    ),
    "shrink": (
        "selora.command.adapters:shrink_adapter",
        "cut a run's adapter to fewer ranks, and say each layer's error",
        "results/quick/runs/iu-drr/selora/seed0 --energy 0.95 --to small",
    ),
    "publish": (
        "selora.study.report.publish:main",
        "copy a profile's tables, figures and records to results/published",
        "quick",
    ),
    "download": (
        "selora.data.fetch.__main__:main",
        "fetch real data, or a real model",
        "montgomery --to data/raw",
    ),
}


def main(arguments: list[str] | None = None) -> None:
    """Do what the command line says; errors end it with one line."""
    listed = [f"  {name:<10}{what}\n{'':12}selora {name} {example}" for name, (_, what, example) in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="selora",
        description="Self-expanding LoRA, and its study. `selora COMMAND --help` says what a command takes.",
        epilog="commands, with an example each:\n" + "\n".join(listed),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"selora {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="its arguments")
    args = parser.parse_args(arguments)
    where, _, example = COMMANDS[args.command]
    module, _, function = where.partition(":")
    prog = f"selora {args.command}"
    try:
        getattr(import_module(module), function)(args.arguments, prog, f"example: {prog} {example}")
    except OSError as error:
        sys.exit(f"selora: {f'{error.filename}: {error.strerror}' if error.filename else error}")
    except ModuleNotFoundError as error:
        sys.exit(f"selora: {error}: in a clone of the study, make env installs it, or pip install -e '.[study]'")
    except (ValueError, ImportError) as error:  # ImportError: no clone is here
        sys.exit(f"selora: {error}")
