"""Short trainings that differ from ours as the authors' released code does, one difference at a time: what each does to
the ranks. None of that code is used: a difference is a few lines around our own controller."""

import json
import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from torch import nn
from tqdm.auto import tqdm

from selora.adapters import ADAPTER, linear_layers, trainable_parameters
from selora.analysis.paper_numbers import released_layers
from selora.data import load_examples
from selora.data.folders import named_root
from selora.diffusion.base import load_base, noise_schedule
from selora.diffusion.draws import BATCH, draw_batch, generator
from selora.diffusion.latents import cached_latents, tokenize
from selora.diffusion.loop import denoising_loss, trainable
from selora.diffusion.machine import raise_trained
from selora.expansion import SeLoRA
from selora.files import CACHE, read_json, write_text
from selora.study.fingerprints import hash_examples, hash_model
from selora.study.profiles import Profile

PROBES = 6  # of each short training


@dataclass(frozen=True)
class Variant:
    """How a short training differs from ours, in the ways of the released code."""

    batch_fisher: bool = False  # scores: the square of the batch's mean gradient, not the mean of samples' squares
    lose_moments: bool = False  # a grown layer starts with an empty optimizer state
    scaling: int = 1  # of the adapter's output, whatever the rank
    probe_after: bool = False  # 'exp' from a second forward and backward, after the optimizer's step
    zero_first_row: bool = False  # before a layer's first growth the tested row is zero; the appended one is drawn
    released: bool = False  # adapt only `released_layers`
    seed: int = 0
    init: str = "kaiming"  # how A and K are drawn
    rank: int = 1  # at the start
    grows: bool = True  # False: plain LoRA, whose tests are recorded and grow nothing


VARIANTS = {
    "ours": Variant(),
    "ours, another seed": Variant(seed=1),
    "PEFT's gain": Variant(init="peft"),
    "batch Fisher": Variant(batch_fisher=True),
    "moments lost": Variant(lose_moments=True),
    "scaling 8": Variant(scaling=8),
    "probe after the step": Variant(probe_after=True),
    "probe after, first row 0": Variant(probe_after=True, zero_first_row=True),
    "released layers": Variant(released=True),
    "all of these": Variant(True, True, 8, True, True, True),
    "LoRA r 4": Variant(init="peft", rank=4, grows=False),
    "LoRA r 4, our gain": Variant(rank=4, grows=False),
}


class VariantSeLoRA(SeLoRA):
    """SeLoRA with the differences of a `Variant`, as far as they are the controller's; other arguments as there."""

    def __init__(self, variant: Variant, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.variant = variant
        self._drawn: dict[tuple[str, str], torch.Tensor] = {}  # rows to append where zeros were tested

    def _watch(self, key, layer):
        if self.variant.zero_first_row and layer.r[ADAPTER] == 1:
            self._drawn[key] = self._rows[key]
            self._rows[key] = torch.zeros_like(self._rows[key])
        return super()._watch(key, layer)

    def _measure(self, key, layer, x, d):
        if self.variant.batch_fisher:  # as one sample with all tokens, gradients are summed before they are squared
            x, d = x.flatten(0, -2)[None], d.flatten(0, -2)[None]
        return super()._measure(key, layer, x, d)

    def probe_again(self, step: int, loss: Callable[[], torch.Tensor]) -> None:
        """After the optimizer's step: replace the score of the expanded layer by that of a new pass at the new weights,
        the same rows K in place. The ratio may then be below 1."""
        before = {key: sums[0] for key, sums in self._sums.items()}
        self._sums.clear()
        with self.probe(step):
            loss().backward()
        self.optimizer.zero_grad()
        for key, original in before.items():
            self._sums[key] = torch.stack([original, self._sums[key].sum() - original])

    def grow(self, key, row):
        super().grow(key, self._drawn.pop(key, row))
        if self.variant.lose_moments:
            for side in (self.layers[key].lora_A, self.layers[key].lora_B):
                self.optimizer.state.pop(side[ADAPTER].weight, None)


def attach(networks: Mapping[str, nn.Module], variant: Variant) -> None:
    """Freeze the networks and add LoRA to the variant's layers, with its rank and scaling."""
    for model in networks.values():
        model.requires_grad_(False)
        names = released_layers(model) if variant.released else linear_layers(model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(variant.seed)
            alpha = variant.rank * variant.scaling
            model.add_adapter(LoraConfig(r=variant.rank, lora_alpha=alpha, target_modules=names))


def train_variant(
    networks: Mapping[str, nn.Module], variant: Variant, draw_batch: Callable[[int], dict], schedule, settings: dict
) -> tuple[list[dict], float]:
    """Train the networks for settings['steps'] steps on `draw_batch(step)`, arguments of `denoising_loss`.

    Returns:
        SeLoRA's records of all probes, and the mean loss of the steps since the last but one.
    """
    attach(networks, variant)
    raise_trained(networks)
    optimizer = torch.optim.Adam(trainable(networks), lr=settings["learning_rate"])
    threshold, records, losses = settings["threshold"] if variant.grows else math.inf, [], []
    selora = VariantSeLoRA(variant, networks, optimizer, threshold, settings["interval"], variant.seed, variant.init)
    for step in tqdm(range(1, settings["steps"] + 1), desc="train", mininterval=5):
        loss = partial(denoising_loss, networks, schedule, **draw_batch(step))
        with selora.probe(step):
            now = loss()
            now.backward()
        losses.append(now.detach())
        optimizer.step()
        optimizer.zero_grad()
        if variant.probe_after and step % selora.interval == 0:
            selora.probe_again(step, loss)
        records += selora.expand(step)
    return records, torch.stack(losses[-selora.interval :]).mean().item()


def experiment_settings(profile: Profile) -> dict:
    """What determines the outcome of the short trainings, besides the variant, contents included."""
    dataset, names = profile.datasets[0], ("base_model", "resolution", "batch_size", "learning_rate", "prompt_dropout")
    return {name: getattr(profile, name) for name in names} | {
        "dataset": dataset,
        "base_contents": hash_model(profile.base_model),
        "data_contents": hash_examples(dataset, named_root(profile.data_root)),
        "steps": profile.audit_steps,
        "interval": max(1, profile.audit_steps // PROBES),
        "threshold": profile.run_settings(dataset, "selora")["method"]["threshold"],
    }


def batch_maker(pipe: StableDiffusionPipeline, profile: Profile) -> Callable[[int, int], dict]:
    """A function of seed and step that gives a batch of the first data set, as arguments of `denoising_loss`."""
    examples = load_examples(profile.datasets[0], "train", profile.data_root)
    latents = cached_latents(pipe.vae, examples, profile.resolution, CACHE, profile.sampling_batch)
    tokens, empty = (tokenize(pipe.tokenizer, texts) for texts in ([e.prompt for e in examples], [""]))

    def make(seed: int, step: int) -> dict:
        draw = generator(seed, BATCH, step)
        part = torch.randint(len(latents), (profile.batch_size,), generator=draw)
        how = {"empty_tokens": empty, "prompt_dropout": profile.prompt_dropout}
        return draw_batch(latents, tokens, part, draw, **how, order=("dropped", "noise", "timesteps"))

    return make


def run_variants(profile: Profile, record: Path) -> pd.DataFrame:
    """Train every variant on the profile's base and first data set; what is done is read from `record`, a JSON file.

    Returns:
        One row per variant, probe and layer: variant, and SeLoRA's record; parameters: of its network, at the end;
        loss: the mean since the last probe but one.
    """
    settings = experiment_settings(profile)
    done = read_json(record) if record.exists() else {}
    if done.get("settings") != settings:
        done = {"settings": settings, "variants": {}}
    found = done["variants"]
    missing = {name: v for name, v in VARIANTS.items() if found.get(name, {}).get("variant") != asdict(v)}
    if missing:
        pipe = load_base(profile.base_model, profile.precision)
        make_batch, schedule = batch_maker(pipe, profile), noise_schedule(pipe)
    for name, variant in missing.items():
        networks = deepcopy({"unet": pipe.unet, "text_encoder": pipe.text_encoder})
        records, loss = train_variant(networks, variant, partial(make_batch, variant.seed), schedule, settings)
        sizes = {network: trainable_parameters(model) for network, model in networks.items()}
        columns = pd.DataFrame(records).round({"fi_ratio": 6}).to_dict("list")
        found[name] = {"variant": asdict(variant), "parameters": sizes, "loss": loss, "records": columns}
        write_text(record, json.dumps(done) + "\n")
    return read_variants(record)


def read_variants(record: Path) -> pd.DataFrame | None:
    """What `run_variants` left in a file; None where there is no such file."""
    if not record.exists():
        return None
    found, tables = read_json(record)["variants"], []
    for name in VARIANTS:
        table = pd.DataFrame(found[name]["records"])
        sizes = table.network.map(found[name]["parameters"])
        tables.append(table.assign(variant=name, parameters=sizes, loss=found[name]["loss"]))
    return pd.concat(tables, ignore_index=True)


def final_ranks(records: pd.DataFrame, network: str) -> pd.DataFrame:
    """Ranks after the last probe: a row per layer in the network's order, a column per variant; NaN: not adapted."""
    last = records[(records.step == records.step.max()) & (records.network == network)]
    table = last.pivot(index="layer", columns="variant", values="rank")
    return table.loc[last[last.variant == "ours"].layer, list(VARIANTS)]


def variant_table(records: pd.DataFrame) -> pd.DataFrame:
    """One row per variant: mean ranks, parameters, Spearman's correlation with ours over layers (none where all ranks
    are equal), shares of layers that grew at the first probe, and of FI-Ratios below 1, and the loss at the end."""
    tables = {network: final_ranks(records, network) for network in records.network.unique()}
    rows = {}
    for name, own in records.groupby("variant", sort=False):
        first, sizes = own[own.step == own.step.min()], own.groupby("network").parameters.first()
        rows[name] = {
            **{f"mean rank, {network}": table[name].mean() for network, table in tables.items()},
            "parameters": sizes.sum(),
            **{f"Spearman, {net}": table[name].corr(table["ours"], method="spearman") for net, table in tables.items()},
            "grown at first probe, %": 100 * first.expanded.mean(),
            "ratios below 1, %": 100 * (own.fi_ratio < 1).mean(),
            "loss at the end": own.loss.iloc[0],
        }
    return pd.DataFrame(rows).T


def variant_rows(records: pd.DataFrame) -> pd.DataFrame:
    """The variants' mean ranks and losses as rows of audit.csv; the paper has no such numbers."""
    last = records[records.step == records.step.max()]
    means = last.groupby(["variant", "network"], sort=False)["rank"].mean().rename("ours").reset_index()
    means = means.assign(what="short training, " + means.variant + ": mean rank")
    losses = last.groupby("variant", sort=False).loss.first().rename("ours").reset_index().assign(network="both")
    losses = losses.assign(what="short training, " + losses.variant + ": loss at the end")
    return pd.concat([means, losses]).assign(paper=None)[["what", "network", "ours", "paper"]]
