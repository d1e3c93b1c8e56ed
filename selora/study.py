"""One run of the study: data set x method x seed, named by them, skipped when done."""

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import random
import subprocess
import time
from pathlib import Path

import pandas as pd

from selora.data import NOT_SHIPPED, SPLITS, DataError, Example, checks, load_examples, load_splits
from selora.data.common import named_root
from selora.files import write_json
from selora.methods import NEEDS
from selora.profiles import REPOSITORY, Profile

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it warns of image processors that nothing here uses

RESULTS = REPOSITORY / "results"
CACHE = REPOSITORY / "data" / "raw" / "cache"
LIBRARIES = ("torch", "diffusers", "transformers", "peft", "torchmetrics")
FEWEST = 6  # images, for precision and recall: they look at the five nearest neighbours
DIGITS = "%.6g"  # of numbers in CSV files: more are noise, and are tracked with the published results


def run_folder(profile: Profile, dataset: str, method: str, seed: int, results: Path = RESULTS) -> Path:
    """Where a run's files are."""
    return results / profile.name / "runs" / dataset / method / f"seed{seed}"


def run(profile: Profile, dataset: str, method: str, seed: int, results: Path = RESULTS) -> dict:
    """Train, sample and score one run, or read it if it is done; an interrupted one goes on from its checkpoint.

    Returns:
        What stands in its result.json.

    Raises:
        DataError: for data that is missing or broken, before any training.
        ValueError: where the folder holds a run with other settings.
    """
    folder = run_folder(profile, dataset, method, seed, results)
    settings = profile.run_settings(dataset, method) | {
        "base_weights": fingerprint(REPOSITORY / profile.base_model),
        "clip_weights": fingerprint(REPOSITORY / profile.clip),
        "classifier_weights": fingerprint(REPOSITORY / "data" / profile.classifier),
    }
    if dataset in NOT_SHIPPED:  # everyone has his own
        settings["data"] = hash_examples(dataset, named_root(profile.data_root))
    if (folder / "settings.json").exists():
        check_settings(folder, json.loads((folder / "settings.json").read_text()), settings)
    if not (folder / "result.json").exists():
        earlier = None
        if needed := NEEDS.get(method):
            run(profile, dataset, needed, seed, results)
            earlier = run_folder(profile, dataset, needed, seed, results)
        execute(profile, dataset, method, seed, folder, settings, earlier)
    return json.loads((folder / "result.json").read_text())


def fingerprint(folder: Path) -> str | None:
    """A short hash of all weights below a folder, so that runs with a replaced model are not taken for finished; None
    for a model that is no folder."""
    files = sorted(folder.rglob("*.safetensors"))
    return hash_files(tuple((file, file.stat().st_mtime_ns) for file in files)) if files else None


@functools.cache
def hash_examples(dataset: str, root: str | None) -> str:
    """A short hash of all ids and prompts of a data set by split, so that a run on another folder's is not taken for
    finished. Read once in a process: reading a large set takes seconds, and a study has dozens of runs."""
    listed = [(split, e.id, e.prompt) for split in SPLITS for e in load_examples(dataset, split, root)]
    return hashlib.sha256(repr(listed).encode()).hexdigest()[:12]


@functools.cache
def hash_files(files: tuple[tuple[Path, int], ...]) -> str:
    """A short hash of the contents of files, read anew only where a file's time of change is another."""
    digest = hashlib.sha256()
    for path, _ in files:
        with path.open("rb") as file:
            while chunk := file.read(2**24):
                digest.update(chunk)
    return digest.hexdigest()[:12]


def check_settings(folder: Path, found: dict, wanted: dict) -> None:
    """Raise ValueError where a folder's settings differ from the profile's, with what differs."""
    differing = [f"{k}: {found.get(k)} -> {wanted.get(k)}" for k in found | wanted if found.get(k) != wanted.get(k)]
    if differing:
        raise ValueError(
            f"{folder} was made with other settings ({'; '.join(differing)}): "
            "move the folder away to run anew, or undo the change of the profile, the model or the data"
        )


def execute(
    profile: Profile, dataset: str, name: str, seed: int, folder: Path, settings: dict, earlier: Path | None
) -> None:
    """The work of `run`. Torch and its kin are imported only here: reading a finished run needs none of them."""
    from selora import latents, models, processes
    from selora.methods import make_method, named
    from selora.sampling import sample
    from selora.scores import DIVERSITY, figures, make_judges, reference_figures
    from selora.training import look_batches, train

    examples, said = load_splits(dataset, profile.data_root)
    examples["val"] = examples["val"][: profile.validation_images]
    scored, others = reference_and_others(examples["test"], examples["train"], profile.images)
    reference, other = (latents.load_images(part, profile.resolution) for part in (scored, others))

    this = processes.state()
    pipe = models.load_base(profile.base_model, profile.precision)
    if this.is_main_process:
        print(*said, checks.describe(checks.text_figures(examples, pipe.tokenizer)), sep="\n", flush=True)
        # before hours of training, since one may be missing
        judges = make_judges(profile.encoder, profile.clip, profile.classifier, pipe.device)
    if profile.gradient_checkpointing:
        pipe.unet.enable_gradient_checkpointing()
    networks = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    method = make_method(named(name)[0], settings["method"], seed, settings["steps"], earlier)

    if this.is_main_process:
        write_json(folder / "settings.json", settings)
    models.reset_peak_memory()
    graphs = models.compiled_graphs()
    trained = {"history": [], "expansions": [], "best_step": None, "best_loss": None, "train_seconds": 0.0, "own": {}}
    if method.trains:
        encoded = {
            split: latents.cached_latents(pipe.vae, examples[split], profile.resolution, CACHE, profile.sampling_batch)
            for split in ("train", "val")
            if examples[split]
        }
        tokens = {split: latents.tokenize(pipe.tokenizer, [e.prompt for e in examples[split]]) for split in encoded}
        schedule = models.noise_schedule(pipe)
        method.inspect(networks, look_batches(encoded["train"], tokens["train"], schedule, seed))
        method.attach(networks)
        if profile.compile:
            models.compile_blocks(pipe.unet)
        trained = train(
            networks,
            method,
            schedule,
            {split: (encoded[split], tokens[split]) for split in encoded},
            empty_tokens=latents.tokenize(pipe.tokenizer, [""]),
            checkpoint=folder / "checkpoint.safetensors",
            steps=settings["steps"],
            batch_size=profile.batch_size,
            learning_rate=settings["method"].get("learning_rate", profile.learning_rate),
            prompt_dropout=profile.prompt_dropout,
            checkpoint_interval=profile.checkpoint_interval,
            seed=seed,
            accumulation=profile.accumulation,
        )
        if this.is_main_process:
            method.save(networks, folder)
            pd.DataFrame(trained["history"]).to_csv(folder / "history.csv", index=False, float_format=DIGITS)
    else:
        method.attach(networks)

    started = time.perf_counter()
    sampled = functools.partial(
        sample,
        pipe,
        size=profile.resolution,
        steps=profile.sampling_steps,
        guidance_scale=profile.guidance_scale,
        batch_size=profile.sampling_batch,
        seed=seed,
        solver=profile.solver,
    )
    images = sampled([e.prompt for e in scored])
    sample_seconds = time.perf_counter() - started
    prompts, times = DIVERSITY
    groups = sampled([e.prompt for e in scored[:prompts] for _ in range(times)])
    groups = groups.reshape(-1, times, *groups.shape[1:])
    if not this.is_main_process:
        this.wait_for_everyone()
        return
    sizes = write_ranks(networks, folder)
    if trained["expansions"]:
        pd.DataFrame(trained["expansions"]).to_csv(folder / "expansions.csv", index=False, float_format=DIGITS)
    save_images(images, [e.id for e in scored], folder / "samples")
    real, bounds = reference_figures(pipe.vae, reference, scored, other, judges, profile.sampling_batch, CACHE)
    found, replicates, table = figures(images, scored, groups, real, judges)
    table.to_csv(folder / "scores.csv", index=False, float_format=DIGITS)
    result = {
        "dataset": dataset,
        "method": name,
        "seed": seed,
        **found,
        **bounds,
        **sizes,
        **trained["own"],
        "best_step": trained["best_step"],
        "best_val_loss": trained["best_loss"],
        "train_seconds": trained["train_seconds"],
        "sample_seconds": sample_seconds,
        "peak_memory_mb": models.peak_memory_mb(),
        "settings": settings,
        "device": models.device_name(),
        "processes": this.num_processes,
        "compiled_graphs": models.compiled_graphs() - graphs,
        "commit": commit(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in LIBRARIES},
        "bootstrap": replicates,
    }
    write_json(folder / "result.json", result)
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    this.wait_for_everyone()


def reference_and_others(test: list[Example], train: list[Example], count: int) -> tuple[list[Example], list[Example]]:
    """The examples whose prompts and images runs are scored with, and as many of the training set, for the floor.

    Raises:
        DataError: where there are too few to score anything with.
    """
    scored = test[:count]
    others = random.Random(0).sample(train, min(len(scored), len(train)))
    if len(others) < FEWEST:
        raise DataError(
            f"{len(scored)} test images and {len(train)} to train on are too few: scores need {FEWEST} of each. Add "
            "images to the data set, or raise 'images' in the profile."
        )
    return scored, others


def write_ranks(networks, folder: Path) -> dict:
    """Write ranks.csv, if there are ranks, and return the figures on size: of the weights that are scored."""
    from selora.adapters import kind, ranks, trainable_parameters

    rows = [
        {"network": network, "layer": layer, "kind": kind(layer), "rank": rank}
        for network, model in networks.items()
        for layer, rank in ranks(model).items()
    ]
    figures = {}
    for network, model in networks.items():
        adapter = trainable_parameters(model)
        figures[f"{network}_params"] = adapter
        figures[f"{network}_pct"] = 100 * adapter / sum(p.numel() for p in model.parameters())
        own = [row["rank"] for row in rows if row["network"] == network]
        figures[f"{network}_mean_rank"] = sum(own) / len(own) if own else None
    if rows:
        pd.DataFrame(rows).to_csv(folder / "ranks.csv", index=False)
    return figures


def save_images(images, names: list[str], folder: Path) -> None:
    """Write images (N, H, W, 3) uint8 as PNG, named by their examples."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for image, name in zip(images, names, strict=True):
        Image.fromarray(image).save(folder / f"{name}.png")


def commit() -> str:
    """The repository's commit, with '+' where files differ from it; 'unknown' outside a clone."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            cwd=REPOSITORY, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()
