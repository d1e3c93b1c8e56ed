"""The stages of a run that is to be made: prepare, train, sample, score, record."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cache, partial

import numpy as np
import pandas as pd
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import nn

from selora.data import DataError, Example, load_splits
from selora.data.checks import describe, text_figures
from selora.data.pictures import load_images
from selora.data.subset import few_of
from selora.diffusion import machine
from selora.diffusion.base import load_base, noise_schedule
from selora.diffusion.draws import look_batches
from selora.diffusion.latents import cached_latents, tokenize
from selora.diffusion.loop import train
from selora.diffusion.method import Earlier, Method
from selora.diffusion.sampling import sample
from selora.files import CACHE, write_json
from selora.methods import make_method, named
from selora.scoring.score import DIVERSITY, Judges, make_judges, score, score_reference
from selora.study.fingerprints import scoring_cache
from selora.study.lock import alone
from selora.study.profiles import FEWEST, Profile
from selora.study.records import record, write_ranks, write_table
from selora.study.rehearsal import try_end
from selora.study.results import Run

UNTRAINED = {"history": [], "expansions": [], "best_step": None, "best_loss": None, "train_seconds": 0.0, "own": {}}


@dataclass(frozen=True)
class Prepared:
    """What a run needs: its examples by split, the pipeline and the method; and to be scored, the examples it is scored
    with, and the judges."""

    examples: dict[str, list[Example]]
    pipe: StableDiffusionPipeline
    method: Method
    scored: list[Example] = field(default_factory=list)
    reference: np.ndarray | None = None  # the scored examples' own images, (N, H, W, 3) uint8
    others: np.ndarray | None = None  # as many of the training set's, for real vs real
    judges: Judges | None = None  # of the main process alone

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"unet": self.pipe.unet, "text_encoder": self.pipe.text_encoder}


def execute(run: Run, settings: dict) -> None:
    """Make a run with the settings that determine it, and leave all its files in its folder.

    Raises:
        Busy: where another process is making it.
    """
    this = machine.state()
    prepared = prepare(run, settings)
    with alone(run.folder) if this.is_main_process else nullcontext():
        if this.is_main_process:
            for left in run.folder.glob("*.partial"):  # by a killed process
                left.unlink()
        make(run, settings, prepared)
        this.wait_for_everyone()


def make(run: Run, settings: dict, prepared: Prepared) -> None:
    """What `execute` does in a folder of its own."""
    this = machine.state()
    if this.is_main_process:
        write_json(run.folder / "settings.json", settings)
    machine.reset_peak_memory()
    graphs = machine.compiled_graphs()
    trained = train_method(run, settings, prepared)
    images, groups, sample_seconds = sample_images(run, prepared)
    if this.is_main_process:
        sizes = write_ranks(prepared.networks, run.folder)
        found, replicates = score_images(run, prepared, images, groups)
        costs = {
            "train_seconds": trained["train_seconds"],
            "sample_seconds": sample_seconds,
            "peak_memory_mb": machine.peak_memory_mb(),
            "compiled_graphs": machine.compiled_graphs() - graphs,
        }
        record(run, settings, trained, found | sizes, replicates, costs)


def prepare(run: Run, settings: dict) -> Prepared:
    """Load all that may be missing, before hours of training."""
    profile, ready = run.profile, prepare_training(run, settings, read_earlier(run.builds_on))
    scored, others = reference_and_others(ready.examples["test"], ready.examples["train"], profile.images)
    reference, other = (load_images(part, profile.resolution) for part in (scored, others))
    try_end(run, ready.pipe, scored)
    judges = None
    if machine.state().is_main_process:
        judges = make_judges(profile.encoder, profile.clip, profile.classifier, ready.pipe.device)
    return replace(ready, scored=scored, reference=reference, others=other, judges=judges)


def prepare_training(run: Run, settings: dict, earlier: Mapping[str, Earlier]) -> Prepared:
    """Load what a training needs, and say what there is to say of its data."""
    profile = run.profile
    examples, said = load_splits(run.dataset, profile.data_root)
    examples["val"] = examples["val"][: profile.validation_images]
    if profile.train_images:
        examples["train"] = few_of(examples["train"], profile.train_images)
    pipe = load_base(profile.base_model, profile.precision)
    if machine.state().is_main_process:
        say("\n".join((*said, describe(text_figures(examples, pipe.tokenizer)))))
    if profile.gradient_checkpointing:
        pipe.unet.enable_gradient_checkpointing()
    own, _ = named(run.method)
    return Prepared(examples, pipe, make_method(own, settings["method"], run.seed, settings["steps"], earlier))


@cache
def say(what: str) -> None:
    """Print what there is to say of a data set: once, however many runs of it a process makes."""
    print(what, flush=True)


def read_earlier(runs: Sequence[Run]) -> dict[str, Earlier]:
    """What a method reads of the finished runs that it builds on, by their method."""
    return {run.method: Earlier(run.result(), run.rows("expansions"), run.rows("ranks")) for run in runs}


def train_method(run: Run, settings: dict, prepared: Prepared, stop: int | None = None) -> dict:
    """Attach the method and train it, save its weights, and write history.csv and expansions.csv.

    stop: end at this step, on the method's schedule for the whole run; a later call goes on from there.

    Returns:
        What `loop.train` does; `UNTRAINED` for a method that does not train.
    """
    profile, pipe, method, networks = run.profile, prepared.pipe, prepared.method, prepared.networks
    if not method.trains:
        method.attach(networks)
        return UNTRAINED
    examples = {split: prepared.examples[split] for split in ("train", "val") if prepared.examples[split]}
    data = {
        split: (
            cached_latents(pipe.vae, found, profile.resolution, CACHE, profile.sampling_batch),
            tokenize(pipe.tokenizer, [e.prompt for e in found]),
        )
        for split, found in examples.items()
    }
    schedule = noise_schedule(pipe)
    method.inspect(networks, look_batches(*data["train"], schedule, run.seed))
    method.attach(networks)
    if profile.compile:
        machine.compile_blocks(pipe.unet)
    trained = train(
        networks,
        method,
        schedule,
        data,
        ids=[e.id for e in examples["train"]],
        empty_tokens=tokenize(pipe.tokenizer, [""]),
        checkpoint=run.checkpoint,
        steps=stop or settings["steps"],
        batch_size=profile.batch_size,
        learning_rate=settings["method"].get("learning_rate", profile.learning_rate),
        prompt_dropout=profile.prompt_dropout,
        checkpoint_interval=profile.checkpoint_interval,
        seed=run.seed,
        accumulation=profile.accumulation,
    )
    if machine.state().is_main_process:
        method.save(networks, run.folder)
        for name in ("history", "expansions"):
            if trained[name]:
                write_table(pd.DataFrame(trained[name]), run.folder / f"{name}.csv")
    return trained


def sample_images(run: Run, prepared: Prepared) -> tuple[np.ndarray, np.ndarray, float]:
    """Images (N, H, W, 3) uint8 of the scored prompts, several of each of the first prompts (P, M, H, W, 3), and the
    seconds that the former took."""
    sampled = sampler(run.profile, prepared.pipe, run.seed)
    started = time.perf_counter()
    images = sampled([e.prompt for e in prepared.scored])
    seconds = time.perf_counter() - started
    prompts, times = DIVERSITY
    groups = sampled([e.prompt for e in prepared.scored[:prompts] for _ in range(times)])
    return images, groups.reshape(-1, times, *groups.shape[1:]), seconds


def sampler(profile: Profile, pipe: StableDiffusionPipeline, seed: int) -> Callable[[Sequence[str]], np.ndarray]:
    """`sampling.sample` as a profile asks for it: from prompts to images."""
    return partial(
        sample,
        pipe,
        size=profile.resolution,
        steps=profile.sampling_steps,
        guidance_scale=profile.guidance_scale,
        batch_size=profile.sampling_batch,
        seed=seed,
        solver=profile.solver,
    )


def score_images(run: Run, prepared: Prepared, images: np.ndarray, groups: np.ndarray) -> tuple[dict, dict]:
    """Write samples and scores.csv; all scores of the images with what bounds them, and their replicates."""
    folder, batch_size, scored, judges = run.folder, run.profile.sampling_batch, prepared.scored, prepared.judges
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    for image, path in zip(images, run.samples([e.id for e in scored]), strict=True):
        Image.fromarray(image).save(path)
    cache = scoring_cache(run.profile, CACHE)
    real, bounds = score_reference(
        prepared.pipe.vae, prepared.reference, scored, prepared.others, judges, batch_size, cache
    )
    found, replicates, table = score(images, scored, groups, real, judges)
    write_table(table, folder / "scores.csv")
    return found | bounds, replicates


def reference_and_others(test: list[Example], train: list[Example], count: int) -> tuple[list[Example], list[Example]]:
    """The examples whose prompts and images runs are scored with, and as many of the training set, for real vs real.

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
