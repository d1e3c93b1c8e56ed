"""How scores go on with training: one run, sampled and scored after each of several numbers of steps.

    python benchmarks/steps_curve.py --method lora --steps 300 600 1200 2500 5000

A length goes on from the checkpoint of the one before, on the method's schedule for the longest. Of methods without a
schedule (lora, full) each is what a run of that many steps would be, bit for bit on a CPU. Rows that are there are
skipped. Writes results/<profile>/steps/<data set>_<method>_seed<k>.csv.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd

from selora.files import RESULTS
from selora.scoring.labels import mean_auroc
from selora.study.fingerprints import settings_of
from selora.study.profiles import load_profile
from selora.study.results import Run
from selora.study.stages import prepare, sample_images, score_images, train_method


def measure(run: Run, steps: int) -> dict:
    """Train a run to a number of steps, sample and score: a row of the curve."""
    settings = settings_of(run)
    prepared = prepare(run, settings)
    trained = train_method(run, settings, prepared, steps)
    found, _ = score_images(run, prepared, *sample_images(run, prepared)[:2])
    shown = {r["finding"]: r["auroc"] for r in found["findings"]}
    scores = {"kid": found["kid"], "clip": found["clip"], "clip_contrast": found["clip_contrast"]}
    ends = {"best_step": trained["best_step"], "val_loss": trained["best_loss"]}
    return {"steps": steps, **ends, **scores, "mean_auroc": mean_auroc(found), **shown}


def curve(profile: str, dataset: str, method: str, seed: int, lengths: list[int], results: Path) -> pd.DataFrame:
    """Rows of all lengths, shortest first."""
    base = load_profile(profile, datasets=dataset, methods=method)
    longest = replace(base, name=f"{base.name}/steps", steps={dataset: max(lengths)})
    run = Run(longest, dataset, method, seed, results)
    table = results / longest.name / f"{dataset}_{method}_seed{seed}.csv"
    rows = pd.read_csv(table).to_dict("records") if table.exists() else []
    run.folder.mkdir(parents=True, exist_ok=True)
    for steps in sorted({*lengths} - {row["steps"] for row in rows}):
        rows.append(measure(run, steps))
        pd.DataFrame(rows).to_csv(table, index=False, float_format="%.5g")
    return pd.DataFrame(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="mini")
    parser.add_argument("--dataset", default="iu-drr")
    parser.add_argument("--method", default="lora")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, nargs="+", default=[300, 600, 1200, 2500, 5000])
    args = parser.parse_args()
    print(curve(args.profile, args.dataset, args.method, args.seed, args.steps, RESULTS).to_string())
