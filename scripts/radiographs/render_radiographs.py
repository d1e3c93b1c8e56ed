"""Renders the radiographs of iu-drr and montgomery-drr and writes their tables; and of iu-outside, the reports that the
study does not use, for the autoencoder, the small CLIP and the classifier of findings to learn from.

    pip install -e '.[render]'
    python scripts/radiographs/render_radiographs.py --set iu-drr

The same seed gives the same file for a case, whatever else is rendered. A case whose image is there is skipped.
"""

from __future__ import annotations

import argparse
import csv
import os
import zlib
from pathlib import Path

import iu_cases
import montgomery_cases
import numpy as np
import torch
from chest import Chest, Finding
from chest_render import draw_anatomy, render
from PIL import Image
from tqdm import tqdm

from selora.files import DATA

QUALITY = 92  # of WebP: 3.3 kB an image at 43 dB; lossless takes 8.7 kB, most of it noise


def generators(dataset: str, case_id: str, seed: int) -> tuple[np.random.Generator, ...]:
    """Three independent generators of one case: parameters, deformation and noise, findings."""
    key = zlib.crc32(f"{dataset}/{case_id}".encode())
    return tuple(np.random.default_rng([seed, key, stream]) for stream in range(3))


def places(findings: list[Finding]) -> str:
    """Where each finding is, in the order of `names`: 'left base + right upper;right'."""
    return ";".join(
        " + ".join(" ".join(p for p in (f.kind, f.side, f.zone) if p) for f in findings if f.name == name)
        for name in names(findings)
    )


def names(findings: list[Finding]) -> list[str]:
    return list(dict.fromkeys(f.name for f in findings))


def plan(dataset: str, seed: int) -> list[tuple[dict[str, object], list[Finding]]]:
    """The table's rows with the findings to draw."""
    if dataset.startswith("iu"):
        select = iu_cases.select if dataset == "iu-drr" else iu_cases.outside
        cases = [({"report_id": i, "split": split}, found) for i, split, found in select(seed)]
    else:
        cases = [
            ({"case_id": c.id, "split": c.split, "sex": c.sex, "age": c.age, "reading": c.reading}, c.findings)
            for c in montgomery_cases.select(seed)
        ]
    for row, findings in cases:
        row["findings"] = ";".join(names(findings)) or "normal"
        row["places"] = places(findings)
        row["severity"] = ";".join(str(max(f.severity for f in findings if f.name == n)) for n in names(findings))
        params = draw_anatomy(generators(dataset, next(iter(row.values())), seed)[0])
        if "sex" in row:  # the one part of the anatomy that the prompt of this set names
            params["breast"] = params["breast"] / 2 + 0.4 if row["sex"] == "F" else 0.0
        row.update({name: round(value, 3) for name, value in params.items()}, seed=seed)
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=["iu-drr", "montgomery-drr", "iu-outside"], required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="render only the first LIMIT cases of the table")
    parser.add_argument("--out", type=Path, default=DATA, help="the folder that the set's folder goes to")
    args = parser.parse_args()

    torch.set_num_threads(1)  # two processes of the script then share two cores well
    folder = args.out / args.set
    (folder / "images").mkdir(parents=True, exist_ok=True)
    cases = plan(args.set, args.seed)
    with (folder / "cases.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, cases[0][0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row, _ in cases)

    anatomy_names = draw_anatomy(np.random.default_rng()).keys()
    chest = Chest()
    for row, findings in tqdm(cases[: args.limit], desc=args.set, unit="image"):
        case_id = next(iter(row.values()))
        path = folder / "images" / f"{case_id}.webp"
        if path.exists():
            continue
        _, anatomy, lesion = generators(args.set, case_id, args.seed)
        image = render(chest, findings, {name: row[name] for name in anatomy_names}, anatomy, lesion)
        partial = path.with_suffix(f".{os.getpid()}")
        Image.fromarray(image).save(partial, format="webp", quality=QUALITY, method=6)
        partial.replace(path)


if __name__ == "__main__":
    main()
