"""The audit: the paper's numbers from the configuration; the released code's differences, each against a reference."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from conftest import mean_loss, random_batch, trainable
from diffusers import DDPMScheduler
from torch import nn

from selora.adapters import lora_layers
from selora.analysis import paper_numbers, released_code, released_ranks
from selora.analysis.released_code import VARIANTS, Variant, VariantSeLoRA
from selora.diffusion.loop import denoising_loss
from selora.study.profiles import load_profile

STEP = 4
HUGE = 1e9  # a threshold that nothing reaches


# ---------------------------------------------------------------- the paper's numbers


@pytest.fixture(scope="module")
def counts() -> dict[tuple[str, str], dict]:
    return {(row["network"], row["what"]): row for row in paper_numbers.counts().to_dict("records")}


@pytest.mark.parametrize(
    ("network", "what", "ours"),
    [
        ("unet", "base: parameters", 859_520_964),
        ("text_encoder", "base: parameters", 123_060_480),
        ("unet", "linear layers", 184),
        ("unet", "linear layers the released code adapts", 134),
        ("text_encoder", "linear layers the released code adapts", 72),
        ("unet", "LoRA: parameters per rank", 426_496),
        ("unet", "LoRA: parameters per rank, released layers", 310_016),
        ("text_encoder", "LoRA: parameters per rank, released layers", 165_888),
        ("unet", "LoRA r 4: parameters", 1_705_984),
        ("text_encoder", "LoRA r 4: parameters", 663_552),
        ("unet", "LoRA r 4: parameters, released layers", 1_240_064),
        ("unet", "AdaLoRA r 6: parameters, released layers", 1_860_900),
        ("text_encoder", "AdaLoRA r 6: parameters, released layers", 995_760),
    ],
)
def test_the_counts_of_stable_diffusion_come_out_exactly(counts, network, what, ours):
    assert counts[network, what]["ours"] == ours


def test_the_two_printed_percentages_that_can_be_checked_come_out_to_three_digits(counts):
    """SeLoRA's two cannot: a mean rank is read off them."""
    found = {(key[0], row["paper"]): round(row["ours"], 3) for key, row in counts.items() if row["paper"] is not None}
    expected = {("unet", 0.216), ("text_encoder", 0.803)}
    assert found == {(network, printed): printed for network, printed in expected}


def test_the_printed_percentages_imply_mean_ranks_of_3_4_and_2_7(counts):
    assert round(paper_numbers.implied_rank("unet", 0.121), 1) == 3.4
    assert round(paper_numbers.implied_rank("text_encoder", 0.368), 1) == 2.7
    assert round(counts["unet", "SeLoRA: % fewer parameters than LoRA r 4"]["ours"]) == 16
    assert counts["text_encoder", "LoRA r 1: %, released layers"]["ours"] > 0.121  # so 0.121 is not the text encoder's


def test_only_adalora_at_rank_6_explains_both_printed_percentages():
    found = paper_numbers.explanations()
    assert set(found["rank"]) == {6}
    both = [m for m, rows in found.groupby(["method", "layers"]) if {0.216, 0.803} <= set(rows.printed)]
    assert both == [("AdaLoRA", "released")]


def test_the_printed_ratio_never_exceeds_1_and_ours_is_its_inverse():
    ratios = paper_numbers.random_ratios(200)
    assert (ratios["orig / exp"] <= 1).all()
    assert (ratios["exp / orig"] >= 1.1).any()
    assert torch.allclose(
        torch.tensor((ratios["orig / exp"] * ratios["exp / orig"]).to_numpy()), torch.ones(200).double()
    )


def test_the_gradient_of_K_is_zero_until_its_column_of_B_moved():
    norms = paper_numbers.new_rank_gradients()
    assert norms.loc["K, the new row of A", "at growth"] == 0 < norms.loc["K, the new row of A", "one step later"]
    assert (norms.drop("K, the new row of A") > 0).all(axis=None)


# ---------------------------------------------------------------- the released code's differences


def make(networks, threshold: float = HUGE, **differences) -> VariantSeLoRA:
    optimizer = torch.optim.Adam(trainable(networks), lr=1e-2)
    return VariantSeLoRA(Variant(**differences), networks, optimizer, threshold=threshold, interval=2)


def layers_of(networks) -> dict:
    return {(net, name): layer for net, model in networks.items() for name, layer in lora_layers(model).items()}


def squared_batch_gradients(networks, batch, rows=None) -> dict[tuple[str, str], float]:
    """Per layer the sum of the squared entries of `.grad` of A and B after one backward, grown by `rows` if given."""
    networks = deepcopy(networks)
    for key, layer in layers_of(networks).items():
        A, B = layer.lora_A["default"], layer.lora_B["default"]
        A.weight.grad = B.weight.grad = None
        if rows:
            A.weight = nn.Parameter(torch.cat([A.weight.data, rows[key]]))
            B.weight = nn.Parameter(nn.functional.pad(B.weight.data, (0, 1)))
    mean_loss(networks, batch).backward()
    return {
        key: sum(side["default"].weight.grad.square().sum().item() for side in (layer.lora_A, layer.lora_B))
        for key, layer in layers_of(networks).items()
    }


def ratios(records) -> dict[tuple[str, str], float]:
    return {(r["network"], r["layer"]): r["fi_ratio"] for r in records}


def test_batch_fisher_is_the_square_of_the_batchs_mean_gradient(networks):
    batch, selora = random_batch(4), make(networks, batch_fisher=True)
    with selora.probe(STEP):
        mean_loss(networks, batch).backward()
    original, expanded = (squared_batch_gradients(networks, batch, rows) for rows in (None, dict(selora._rows)))
    found = ratios(selora.expand(STEP))
    assert found == pytest.approx({key: expanded[key] / original[key] for key in original}, rel=1e-4)

    ours = make(networks)
    with ours.probe(STEP):
        mean_loss(networks, batch).backward()
    assert found != pytest.approx(ratios(ours.expand(STEP)), rel=1e-2)


def test_a_probe_after_the_step_compares_two_weights_and_costs_a_second_pass(networks):
    batch, selora = random_batch(4), make(networks, batch_fisher=True, probe_after=True)
    calls = []
    networks["unet"].register_forward_hook(lambda *_: calls.append("forward"))
    networks["unet"].conv_out.register_full_backward_hook(lambda *_: calls.append("backward"))
    with selora.probe(STEP):
        mean_loss(networks, batch).backward()
    assert calls == ["forward", "backward"]
    original, rows = squared_batch_gradients(networks, batch), dict(selora._rows)
    selora.optimizer.step()
    expanded = squared_batch_gradients(networks, batch, rows)
    calls.clear()
    selora.probe_again(STEP, lambda: mean_loss(networks, batch))
    assert calls == ["forward", "backward"]
    found = ratios(selora.expand(STEP))
    assert found == pytest.approx({key: expanded[key] / original[key] for key in original}, rel=1e-4)
    assert min(found.values()) < 1  # which a test at one set of weights never gives


def train_pipe(pipe, variant: Variant, steps: int, threshold: float = 1.0) -> tuple[dict, list[dict]]:
    networks = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    settings = {"steps": steps, "interval": 2, "threshold": threshold, "learning_rate": 1e-2}
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)
    records, _ = released_code.train_variant(networks, variant, lambda step: random_batch(3, step), schedule, settings)
    return networks, records


def test_grown_layers_lose_their_moments_and_only_they(networks):
    selora = make(networks, lose_moments=True)
    with selora.probe(STEP):
        mean_loss(networks, random_batch(3)).backward()
    selora.optimizer.step()
    found = selora._sums
    selora.threshold = torch.stack([1 + c / o for o, c in found.values()]).median().item()
    grown = {(r["network"], r["layer"]): r["expanded"] for r in selora.expand(STEP)}
    assert set(grown.values()) == {True, False}
    for key, layer in layers_of(networks).items():
        for side in (layer.lora_A, layer.lora_B):
            assert (side["default"].weight in selora.optimizer.state) != grown[key]


def test_scaling_8_multiplies_scores_by_64_while_B_is_zero_and_leaves_the_ratio(pipe):
    sums, found = {}, {}
    for scaling in (1, 8):
        twin = deepcopy({"unet": pipe.unet, "text_encoder": pipe.text_encoder})
        released_code.attach(twin, Variant(scaling=scaling))
        assert {layer.scaling["default"] for layer in layers_of(twin).values()} == {scaling}
        selora = make(twin)
        with selora.probe(STEP):
            mean_loss(twin, random_batch(3)).backward()
        sums[scaling] = torch.stack(list(selora._sums.values()))
        found[scaling] = ratios(selora.expand(STEP))
    assert torch.allclose(sums[8], 64 * sums[1], rtol=1e-4)
    assert found[8] == pytest.approx(found[1], rel=1e-4)


def test_scaling_8_stays_whatever_the_rank(pipe):
    networks, _ = train_pipe(pipe, Variant(scaling=8), steps=4)
    assert {(layer.r["default"], layer.scaling["default"]) for layer in layers_of(networks).values()} == {(3, 8)}


def test_a_first_row_of_zeros_gives_ratio_1_by_one_pass_and_a_drawn_row_is_appended(pipe):
    networks, records = train_pipe(pipe, Variant(zero_first_row=True), steps=4)
    assert {r["fi_ratio"] for r in records if r["step"] == 2} == {1.0}  # so no threshold above 1 is ever reached
    assert all(r["fi_ratio"] > 1 for r in records if r["step"] == 4)  # after a layer's first growth rows are drawn
    assert all((layer.lora_A["default"].weight != 0).any(dim=1).all() for layer in layers_of(networks).values())


def test_a_first_row_of_zeros_compares_a_layer_with_itself_after_the_step(pipe):
    _, records = train_pipe(pipe, Variant(probe_after=True, zero_first_row=True), steps=2)
    found = [r["fi_ratio"] for r in records]
    assert min(found) < 1 < max(found)


def test_the_released_layers_alone_are_adapted(pipe):
    networks, _ = train_pipe(pipe, Variant(released=True), steps=1)
    names = {name.rpartition(".")[2] for _, name in layers_of(networks)}
    assert names == paper_numbers.RELEASED


def test_ours_is_the_study_s_selora_step_by_step(pipe):
    """A variant without a difference: the same ratios as the plain controller in the plain loop."""
    twin = deepcopy({"unet": pipe.unet, "text_encoder": pipe.text_encoder})
    _, records = train_pipe(pipe, Variant(), steps=4, threshold=1.3)
    released_code.attach(twin, Variant())
    selora = released_code.SeLoRA(twin, torch.optim.Adam(trainable(twin), lr=1e-2), threshold=1.3, interval=2)
    schedule, expected = DDPMScheduler.from_config(pipe.scheduler.config), []
    for step in range(1, 5):
        with selora.probe(step):
            denoising_loss(twin, schedule, **random_batch(3, step)).backward()
        selora.optimizer.step()
        selora.optimizer.zero_grad()
        expected += selora.expand(step)
    assert records == expected


# ---------------------------------------------------------------- the short trainings


@pytest.fixture
def trained(pipe, monkeypatch) -> list[Variant]:
    """The variants trained from now on; the base is the tiny pipeline, the batches are random."""
    called, train = [], released_code.train_variant
    monkeypatch.setattr(released_code, "load_base", lambda name, precision: pipe)
    monkeypatch.setattr(released_code, "batch_maker", lambda pipe, profile: lambda seed, step: random_batch(2, step))
    chosen = {name: VARIANTS[name] for name in ("ours", "scaling 8", "released layers")}
    for module in (released_code, released_ranks):
        monkeypatch.setattr(module, "VARIANTS", chosen)
    monkeypatch.setattr(released_code, "train_variant", lambda *args: (called.append(args[1]), train(*args))[1])
    return called


def test_a_second_run_reads_what_is_done_and_only_stale_ones_are_trained(trained, tmp_path, monkeypatch):
    profile, record = replace(load_profile("smoke"), audit_steps=2), tmp_path / "audit.json"
    first = released_code.run_variants(profile, record)
    assert len(trained) == 3
    assert set(first.step) == {1, 2}
    assert released_code.run_variants(profile, record).equals(first) and len(trained) == 3
    changed = released_code.VARIANTS | {"scaling 8": Variant(scaling=4)}
    monkeypatch.setattr(released_code, "VARIANTS", changed)
    released_code.run_variants(profile, record)
    assert trained[3:] == [Variant(scaling=4)]
    released_code.run_variants(replace(profile, learning_rate=1.0), record)
    assert len(trained) == 7
    monkeypatch.setattr(released_code, "hash_model", lambda name: "another base")
    released_code.run_variants(profile, record)
    assert len(trained) == 10


def test_the_table_and_the_figure_have_every_variant(trained, tmp_path):
    records = released_code.run_variants(replace(load_profile("smoke"), audit_steps=2), tmp_path / "audit.json")
    table = released_code.variant_table(records)
    assert list(table.index) == list(released_code.VARIANTS)
    assert table.loc["ours", "Spearman, unet"] == pytest.approx(1)
    assert table.loc["released layers", "parameters"] < table.loc["ours", "parameters"]
    last = records[(records.step == 2) & (records.variant == "ours") & (records.network == "unet")]
    assert table.loc["ours", "mean rank, unet"] == last["rank"].mean()
    rows = released_code.variant_rows(records)
    assert len(rows) == 6 + 3 and list(rows) == ["what", "network", "ours", "paper"]
    strips = released_ranks.rank_strips(records, "tiny").axes[0].get_yticklabels()
    assert [label.get_text().partition(" (")[0] for label in strips] == [
        name for name, variant in released_code.VARIANTS.items() if variant.grows
    ]


def test_lora_beside_them_grows_nothing_and_differs_in_its_first_rows_alone(pipe):
    drawn = {}
    for name in ("LoRA r 4", "LoRA r 4, our gain"):
        networks, records = train_pipe(deepcopy(pipe), VARIANTS[name], steps=2)
        assert {(r["rank"], r["expanded"]) for r in records} == {(4, False)}
        assert {layer.scaling["default"] for layer in layers_of(networks).values()} == {1}
        rows = {key: layer.lora_A["default"].weight for key, layer in layers_of(networks).items()}
        drawn[name] = torch.cat([(w * w.shape[1] ** 0.5).flatten() for w in rows.values()]).square().mean().item()
    assert drawn["LoRA r 4, our gain"] / drawn["LoRA r 4"] == pytest.approx(6, rel=0.2)


@pytest.mark.parametrize(("name", "probes"), [("smoke", 2), ("quick", 6), ("mini", 6)])
def test_every_profile_probes_six_times_or_at_each_of_its_steps(name, probes):
    settings = released_code.experiment_settings(load_profile(name))
    assert settings["steps"] // settings["interval"] == probes == min(settings["steps"], released_code.PROBES)


def test_the_audits_steps_do_not_make_a_finished_run_stale():
    profile = load_profile("smoke")
    other = replace(profile, audit_steps=profile.audit_steps + 1)
    assert profile.run_settings("iu-drr", "selora") == other.run_settings("iu-drr", "selora")
