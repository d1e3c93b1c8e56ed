"""The command that fetches real data or a real model: python -m selora.data.fetch NAME [--to FOLDER]"""

import argparse
import sys
from pathlib import Path

from selora.data.example import DataError
from selora.data.fetch.sets import fetch
from selora.data.fetch.sources import SOURCES
from selora.files import RAW


def main(
    arguments: list[str] | None = None, prog: str = "python -m selora.data.fetch", epilog: str | None = None
) -> None:
    """Fetch what the command's arguments name."""
    parser = argparse.ArgumentParser(prog=prog, description="Fetch real data or a real model.", epilog=epilog)
    parser.add_argument("name", help=", ".join(SOURCES))
    parser.add_argument("--to", type=Path, default=RAW, metavar="FOLDER", help=f"default: {RAW}")
    args = parser.parse_args(arguments)
    try:
        fetch(args.name, args.to)
    except (DataError, OSError) as error:  # OSError: a folder that cannot be written to, a disk that is full after all
        sys.exit(f"selora: {error}")


if __name__ == "__main__":
    main()
