"""What the command does with a trained adapter: export, merge, shrink."""

import argparse
import csv
import sys
from pathlib import Path


def parser_of(prog: str, description: str, epilog: str, to: str) -> argparse.ArgumentParser:
    """A parser of a run's folder and the folder to write to."""
    parser = argparse.ArgumentParser(prog=prog, description=description, epilog=epilog)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder, or any with a LoRA file of diffusers'")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help=to)
    return parser


def export_adapter(arguments: list[str], prog: str, epilog: str) -> None:
    """selora export RUN --format diffusers|peft|kohya --to FOLDER"""
    parser = parser_of(prog, "Write a run's adapter in another tool's format.", epilog, "where the files go")
    parser.add_argument("--format", required=True, choices=("diffusers", "peft", "kohya"))
    args = parser.parse_args(arguments)
    from selora.export import export  # torch and PEFT take seconds to load

    export(args.run, args.format, args.to)
    print(args.to)


def merge_adapter(arguments: list[str], prog: str, epilog: str) -> None:
    """selora merge RUN --to FOLDER"""
    parser = parser_of(prog, "Put a run's weights into its base model.", epilog, "where the pipeline goes")
    parser.add_argument("--base", default="", help="the base, a folder or hub id; without it, the one the run names")
    args = parser.parse_args(arguments)
    from selora.diffusion.merge import merge

    merge(args.run, args.to, args.base)
    print(args.to)


def shrink_adapter(arguments: list[str], prog: str, epilog: str) -> None:
    """selora shrink RUN --energy SHARE | --rank R --to FOLDER"""
    parser = parser_of(prog, "Cut an adapter to fewer ranks by SVD.", epilog, "where the smaller adapter goes")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--energy", type=float, help="share of each layer's squared singular values to keep, up to 1")
    how.add_argument("--rank", type=int, help="the highest rank that a layer keeps")
    args = parser.parse_args(arguments)
    from selora.export import shrink

    records = shrink(args.run, args.to, args.energy, args.rank)
    table = csv.DictWriter(sys.stdout, list(records[0]), lineterminator="\n")
    table.writeheader()
    table.writerows({**record, "error": f"{record['error']:.3g}"} for record in records)
    before, after = (sum(record[key] for record in records) for key in ("old_rank", "rank"))
    print(
        f"{before} ranks became {after}; largest error {max(r['error'] for r in records):.3g}; {args.to}",
        file=sys.stderr,
    )
