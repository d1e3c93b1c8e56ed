"""One run from the shell: python -m selora.train --profile quick --dataset iu-drr --method selora --seed 0"""

import argparse
import sys

from selora.data import DATASETS
from selora.data.common import DataError
from selora.methods import named
from selora.profiles import check_choices, load_profile
from selora.study import run, run_folder


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m selora.train", description="Train, sample and score one run.")
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--method", required=True, help="selora@1.05 is selora with another threshold")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-root", default="", help="folder of the real data sets; without it SELORA_DATA")
    args = parser.parse_args()
    try:
        check_choices("data set", [args.dataset], DATASETS)
        methods = named(args.method)[0]
        profile = load_profile(args.profile, datasets=args.dataset, methods=methods, data_root=args.data_root)
        result = run(profile, args.dataset, args.method, args.seed)
    except (DataError, FileNotFoundError, ValueError) as error:
        sys.exit(f"selora: {error}")
    print(
        f"FID {result['fid']:.1f}  KID {result['kid']:.4f}  over {result['n']} images ({result['settings']['encoder']})"
    )
    print(run_folder(profile, args.dataset, args.method, args.seed))


if __name__ == "__main__":
    main()
