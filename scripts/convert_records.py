"""Bring records of finished runs to hashes of contents: python scripts/convert_records.py [results/published]

Records of before held hashes of weights alone. One is converted where those are still the weights that are here, and
where git finds the other files (configurations, pictures, tables) as they were at the commit that made the run; else
it is named and left as it is, and its run counts as made with other settings. No figure is touched.
"""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from selora.files import DATA, PUBLISHED, REPOSITORY, read_json, write_json
from selora.study.fingerprints import READ, hash_examples, hash_models
from selora.study.profiles import load_profile

MODELS = {"base_weights": "mini-sd", "clip_weights": "mini-clip", "classifier_weights": "mini-findings"}


def hash_weights(folder: Path) -> str:
    """The hash that records of before hold of a folder's weights."""
    whole = b"".join(path.read_bytes() for path in sorted(folder.rglob("*.safetensors")))
    return hashlib.sha256(whole).hexdigest()[:12]


def changed_since(commit: str) -> list[str]:
    """Files of models and data that are not as they were at a commit, documentation aside."""
    command = ["git", "diff", "--name-only", commit, "--", "data"]
    names = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split()
    return [name for name in names if Path(name).suffix in READ | {".webp", ".csv"} and not name.endswith("_log.csv")]


def main() -> None:
    """Convert all records below a folder."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else PUBLISHED
    weights = {key: hash_weights(DATA / name) for key, name in MODELS.items()}
    converted = 0
    for path in sorted(folder.glob("**/runs/*/*/*/result.json")):
        result, name, dataset = read_json(path), path.parents[4].name, path.parents[2].name
        old = result["settings"]
        if "base_contents" in old:
            continue
        changed = [key for key in MODELS if old[key] != weights[key]] + changed_since(result["commit"].rstrip("+"))
        if changed or not dataset.endswith("-drr"):
            print(f"{path.parent} is left as it is: {', '.join(changed) or 'its data is not the repository’s'}")
            continue
        profile = replace(load_profile(name), **{key: old[key] for key in ("base_model", "clip", "encoder")})
        contents = hash_models(profile) | {"data_contents": hash_examples(dataset, None)}
        new = {key: value for key, value in old.items() if key not in MODELS} | contents
        for file, record in ((path, result | {"settings": new}), (path.with_name("settings.json"), new)):
            write_json(file, record)
        converted += 1
    print(f"{converted} converted")


if __name__ == "__main__":
    main()
