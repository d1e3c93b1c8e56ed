"""One run from the shell: python -m selora.study --profile quick --dataset iu-drr --method selora --seed 0
Learning rates, chosen for all methods of a profile alike: python -m selora.study tune --profile mini
Trainings at other thresholds and intervals of SeLoRA: python -m selora.study sensitivity --profile mini

Over several GPUs: accelerate launch --multi_gpu --num_processes 4 -m selora.study ...
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from selora.data import DATASETS
from selora.files import RESULTS
from selora.methods import named
from selora.study.lock import Busy
from selora.study.preflight import check_needs
from selora.study.profiles import check_choices, load_profile
from selora.study.results import Run
from selora.study.run import make_run


def main(arguments: list[str] | None = None, prog: str = "python -m selora.study", epilog: str | None = None) -> None:
    """Make the run that the command's arguments name, or read it if it is done, and print its main figures."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["tune"]:
        from selora.study import tuning

        return tuning.main(arguments[1:])
    if arguments[:1] == ["sensitivity"]:
        from selora.study import sensitivity

        return sensitivity.main(arguments[1:])
    parser = argparse.ArgumentParser(prog=prog, description="Train, sample and score one run.", epilog=epilog)
    parser.add_argument("--profile", default="quick", help="one of the study's, or a .yaml file of your own")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--method", required=True, help="selora@1.05 is selora with another threshold")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--data-root", default="", help="folder of the real sets; without it SELORA_DATA, else data/raw"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results; without it %(default)s")
    args = parser.parse_args(arguments)
    try:
        check_choices("data set", [args.dataset], DATASETS)
        methods = named(args.method)[0]
        found = load_profile(args.profile, datasets=args.dataset, methods=methods, data_root=args.data_root)
        profile = replace(found, seeds=[args.seed])  # which checks it
        check_needs(profile, args.results)
        run = Run(profile, args.dataset, args.method, args.seed, args.results)
        result = make_run(run)
    except OSError as error:  # those of the study's own say all themselves
        sys.exit(f"selora: {f'{error.filename}: {error.strerror}' if error.filename else error}")
    except (ValueError, FloatingPointError, Busy) as error:
        sys.exit(f"selora: {error}")
    print(
        f"FID {result['fid']:.1f}  KID {result['kid']:.4f}  over {result['n']} images ({result['settings']['encoder']})"
    )
    print(run.folder)


if __name__ == "__main__":
    main()
