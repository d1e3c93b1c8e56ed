"""What a method's training costs beside LoRA's: the time of a step and of a probe, FLOPs, memory, bytes.

Each method is attached to the base as in its own runs, and its real training step (`loop.train_step`) is timed in turns
with that of plain LoRA, so that a drift of the machine cancels and two networks at most are in memory. What can be
counted is counted, and needs no repetition.
"""

import contextlib
import gc
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from selora.adapters import ADAPTER, restore_tensors, trained_tensors
from selora.analysis.timing import in_turns
from selora.data.pictures import load_images
from selora.diffusion import machine
from selora.diffusion.base import noise_schedule
from selora.diffusion.draws import BATCH, draw_batch, generator, look_batches
from selora.diffusion.latents import encode, tokenize
from selora.diffusion.loop import make_optimizer, moments_of, train_step, trainable
from selora.diffusion.method import Method
from selora.methods import lacks
from selora.study.laboratory import Study
from selora.study.results import Run
from selora.study.stages import prepare_training, read_earlier

WARM_UP = 2  # rounds that do not count: in its first step Adam makes its moments


@dataclass
class Training:
    """A method attached to the base, to be asked for steps from the middle of its run."""

    networks: dict[str, nn.Module]
    method: Method
    optimizer: torch.optim.Optimizer
    make_step: Callable[[Method, int], object]  # `train_step` on one batch: of a method, at a step of the run
    plain: int  # the number of a step in which nothing is tested or cut
    probe: int | None  # of one in which the layers are; None of a method that does no such thing by then
    interval: int | None  # steps from one of these to the next
    at: str  # which ranks it has: 'final' or 'first'

    def plain_step(self) -> None:
        self.make_step(self.method, self.plain)

    def probe_step(self) -> None:
        self.make_step(self.method, self.probe)

    def bare_step(self) -> None:
        """A step of the same layers at the same ranks without the method's own doings: one of plain LoRA."""
        self.make_step(Method({}, 0, 0), self.plain)


def open_training(run: Run) -> Training:
    """Attach a run's method as the run does, its layers at the ranks that the run ended with where they grow and it is
    finished. Where growth has a threshold, none is reached: the steps to come are all alike. Nothing is compiled.

    Raises:
        FileNotFoundError: where a run that the method builds on is not finished.
    """
    profile, settings = run.profile, run.profile.run_settings(run.dataset, run.method)
    if "threshold" in settings["method"]:
        settings["method"] = settings["method"] | {"threshold": math.inf}
    with contextlib.redirect_stdout(io.StringIO()):  # what there is to say of the data is said in notebook 01
        prepared = prepare_training(run, settings, read_earlier(run.builds_on))
    pipe, method, networks = prepared.pipe, prepared.method, prepared.networks
    schedule, examples = noise_schedule(pipe), prepared.examples["train"][: profile.batch_size]
    latents = encode(pipe.vae, load_images(examples, profile.resolution), profile.sampling_batch)
    tokens = tokenize(pipe.tokenizer, [example.prompt for example in examples])
    method.inspect(networks, look_batches(latents, tokens, schedule, run.seed))
    method.attach(networks)
    machine.raise_trained(networks)
    grown = {(row["network"], row["layer"]): row["rank"] for row in run.rows("ranks")} if run.rows("expansions") else {}
    give_ranks(networks, grown, getattr(method, "reserve", 0))  # IncreLoRA holds ranks that do not count yet
    optimizer = make_optimizer(networks, settings["method"].get("learning_rate", profile.learning_rate))
    method.start(networks, optimizer)
    draw, whole = generator(run.seed, BATCH, 1), torch.arange(len(latents))
    batch = draw_batch(latents, tokens, whole, draw, order=("noise", "timesteps"))
    pieces = machine.pieces(len(latents), profile.accumulation)

    def make_step(method: Method, step: int) -> None:
        train_step(networks, method, optimizer, schedule, batch, pieces, step)

    # a control that goes by a finished run has its interval from there
    interval = method.controller.interval if hasattr(method, "controller") else method.settings.get("interval")
    middle = settings["steps"] // 2
    tested = middle - middle % (interval or 1)
    probe = tested if interval and tested else None
    return Training(networks, method, optimizer, make_step, tested + 1, probe, interval, "final" if grown else "first")


def give_ranks(networks: Mapping[str, nn.Module], ranks: Mapping[tuple[str, str], int], reserve: int = 0) -> None:
    """Bring LoRA layers, named (network, layer), to some ranks, and what they hold in reserve, before training begins.

    Old entries are repeated: what they are does not matter to what a step costs.
    """
    if not ranks:
        return
    tensors = trained_tensors(networks)
    for (network, layer), rank in ranks.items():
        for part, axis in (("A.{}.weight", 0), ("B.{}.weight", 1), ("A.{}.gate", 0)):
            name = f"{network}.{layer}.lora_{part.format(ADAPTER)}"
            if name in tensors:
                chosen = torch.arange(rank + reserve) % tensors[name].shape[axis]
                tensors[name] = tensors[name].index_select(axis, chosen)
    restore_tensors(networks, tensors)


def measure(run: Run, yardstick: Training, rounds: int) -> dict:
    """What a step of a run's method costs, with LoRA's in turns.

    Returns:
        method; ranks ('final' or 'first'); parameters; step_ms and p95_ms, the median and 95th percentile of `rounds`
        plain steps; step, a plain step over LoRA's of the same turn (median); p95 over LoRA's; gflop of a plain step;
        memory_mb; optimizer_mb; file_mb of what the finished run saved; interval; probe, a step that tests or cuts
        layers over a plain one; own, a plain one over one of the same layers without the method's doings (medians of
        turns). What there is not is None.
    """
    other = open_training(run)
    times = in_turns({"lora": yardstick.plain_step, "own": other.plain_step}, rounds, WARM_UP)
    end = times.quantile(0.95)
    found = {
        **{"method": run.method, "ranks": other.at, "parameters": sum(p.numel() for p in trainable(other.networks))},
        **{"step_ms": 1000 * times.own.median(), "p95_ms": 1000 * end.own},
        **{"step": (times.own / times.lora).median(), "p95": end.own / end.lora},
        **{"gflop": flops(other.plain_step) / 1e9, "memory_mb": memory(other) / 2**20},
        **{"optimizer_mb": moment_bytes(other) / 2**20, "file_mb": file_bytes(run) / 2**20 or None},
        **{"interval": None, "probe": None, "own": None},
    }
    if other.probe:  # last, since a method without a threshold grows in it
        kinds = {"bare": other.bare_step, "plain": other.plain_step, "probe": other.probe_step}
        turns = in_turns(kinds, rounds)
        found |= {"interval": other.interval, "probe": (turns.probe / turns.plain).median()}
        found |= {"own": (turns.plain / turns.bare).median()}
    return found


def runs_of(study: Study) -> list[Run]:
    """LoRA, and the profile's other methods that train and whose packages are here, on the first data set and seed."""
    methods = [method for method in dict.fromkeys(["lora", *study.profile.methods]) if method != "base"]
    return [study.named(study.profile.datasets[0], method) for method in methods if not lacks(method)]


def measure_all(runs: list[Run], rounds: int) -> pd.DataFrame:
    """`measure` of some runs, LoRA's the first of them, one row each.

    LoRA's own is timed against a second LoRA: how far two equal steps lie apart here. A method that builds on runs that
    are not finished is left out, which is said.
    """
    yardstick, rows = open_training(runs[0]), []
    for run in runs:
        if missing := [needed.method for needed in run.builds_on if not needed.done]:
            print(f"{run.method} is left out: it builds on a finished run of {', '.join(missing)}")
            continue
        rows.append(measure(run, yardstick, rounds))
        gc.collect()  # the networks, which their hooks hold in a circle
    return pd.DataFrame(rows).assign(rounds=rounds, device=machine.device_name())


def flops(step: Callable[[], object]) -> int:
    """The FLOPs of a step's products and convolutions, forward and backward, by torch's counter. Attention is spelled
    out in products, since the counter does not know every device's own."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def memory(training: Training) -> int:
    """The bytes that a plain step needs at its peak, as far as they are known by name: all weights, the gradients,
    Adam's moments, and what the forward passes keep for the backward ones.

    A process's own peak would also hold the other networks that are measured in it, libraries, and what an allocator
    keeps; on a CPU it cannot be split. Scratch space of single operations is not counted here. Where a batch goes
    through in parts, what is kept of all of them is counted, as if they went through at once.
    """
    tensors = [t for model in training.networks.values() for t in (*model.parameters(), *model.buffers())]
    weights, kept = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}, {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        training.plain_step()
    passing = sum(size for pointer, size in kept.items() if pointer not in weights)
    gradients = sum(p.nbytes for p in trainable(training.networks))
    return sum(weights.values()) + gradients + moment_bytes(training) + passing


def moment_bytes(training: Training) -> int:
    """The bytes of the optimizer's state, after a step."""
    return sum(t.nbytes for t in moments_of(training.networks, training.optimizer).values())


def file_bytes(run: Run) -> int:
    """The bytes of the weights that a finished run saved; 0 where there are none."""
    paths = run.folder.rglob("*.safetensors") if run.done else ()
    return sum(path.stat().st_size for path in paths if path != run.checkpoint)
