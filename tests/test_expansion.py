"""The SeLoRA controller on a whole U-Net and text encoder with plain PEFT LoRA."""

import math
from copy import deepcopy

import pytest
import torch
from conftest import attach, mean_loss, part, predict, random_batch, trainable
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from torch import nn
from torch.autograd import grad
from torch.utils.checkpoint import checkpoint

from selora import SeLoRA, linear_layers
from selora.adapters import draw_rows, lora_layers, ranks, resize
from selora.export import save_lora

SEED, STEP = 5, 4
HUGE = 1e9  # a threshold that nothing reaches


def controller(networks, optimizer=None, threshold=1.0, interval=1, **options) -> SeLoRA:
    optimizer = optimizer or torch.optim.Adam(trainable(networks), lr=1e-2)
    return SeLoRA(networks, optimizer, threshold=threshold, interval=interval, seed=SEED, **options)


def probed_ratios(networks, batch, threshold=HUGE) -> dict[tuple[str, str], float]:
    selora = controller(networks, threshold=threshold)
    with selora.probe(STEP):
        mean_loss(networks, batch).backward()
    return {(r["network"], r["layer"]): r["fi_ratio"] for r in selora.expand(STEP)}


def train_step(networks, selora: SeLoRA, step: int) -> list[dict]:
    """The loop of design section 5."""
    with selora.probe(step):
        mean_loss(networks, random_batch(3, seed=step)).backward()
    selora.optimizer.step()
    selora.optimizer.zero_grad()
    return selora.expand(step)


def weights(layer: LoraLinear) -> tuple[torch.Tensor, torch.Tensor]:
    return layer.lora_A["default"].weight, layer.lora_B["default"].weight


def layers_of(networks) -> dict[tuple[str, str], LoraLinear]:
    return {(net, name): layer for net, model in networks.items() for name, layer in lora_layers(model).items()}


def candidates(networks) -> dict[tuple[str, str], torch.Tensor]:
    """The rows K that seed and step determine, drawn anew."""
    generator = torch.Generator().manual_seed(SEED * 1_000_003 + STEP)
    return {key: draw_rows(weights(layer)[0], generator) for key, layer in layers_of(networks).items()}


def hooks(networks) -> int:
    modules = [m for model in networks.values() for m in model.modules()]
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in modules)


# ---------------------------------------------------------------- the ratios


def ratios_by_definition(networks, batch) -> dict[tuple[str, str], float]:
    """Eq. 3 to 5 taken literally: layers really expanded, then one forward and backward per sample."""
    expanded, rows = deepcopy(networks), candidates(networks)
    for key, layer in layers_of(expanded).items():
        A, B = weights(layer)
        layer.lora_A["default"].weight = nn.Parameter(torch.cat([A.data, rows[key]]))
        layer.lora_B["default"].weight = nn.Parameter(torch.cat([B.data, torch.zeros(len(B), 1)], dim=1))

    def scores(networks) -> torch.Tensor:
        parameters = [w for layer in layers_of(networks).values() for w in weights(layer)]
        total = torch.zeros(len(parameters), dtype=torch.float64)
        for n in range(len(batch["noise"])):
            torch.manual_seed(n)  # for dropout, where there is any
            gradients = grad(mean_loss(networks, part(batch, slice(n, n + 1))), parameters)
            total += torch.stack([g.double().square().sum() for g in gradients])
        return total.view(-1, 2).sum(dim=1)  # A and B together

    return dict(zip(rows, (scores(expanded) / scores(networks)).tolist(), strict=True))


def test_the_ratios_equal_one_backward_per_sample_through_both_networks(networks, base):
    batch = random_batch(4)
    expected = ratios_by_definition(networks, batch)
    assert len(expected) == len(linear_layers(base.unet)) + len(linear_layers(base.text_encoder))
    assert min(expected.values()) < 1.1 < 1.5 < max(expected.values())  # B is off zero, and not so large as to hide K
    assert probed_ratios(networks, batch) == pytest.approx(expected, rel=1e-5)


def test_the_ratios_see_what_dropout_left(networks):
    """LoRA's dropout sits before A; with one sample and one seed, the masks are the same in every pass."""
    for layer in layers_of(networks).values():
        layer.lora_dropout["default"] = nn.Dropout(0.5)
    batch = random_batch(1)
    expected = ratios_by_definition(networks, batch)
    torch.manual_seed(0)
    assert probed_ratios(networks, batch) == pytest.approx(expected, rel=1e-5)


def test_gradient_accumulation_inside_a_probe_is_one_larger_batch(networks):
    batch = random_batch(4)
    selora = controller(networks, threshold=HUGE)
    with selora.probe(STEP):
        for which in (slice(0, 2), slice(2, 4)):
            (mean_loss(networks, part(batch, which)) / 2).backward()
    ratios = {(r["network"], r["layer"]): r["fi_ratio"] for r in selora.expand(STEP)}
    assert ratios == pytest.approx(probed_ratios(networks, batch), rel=1e-5)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_ratios(networks, reentrant):
    batch = random_batch(2)
    plain = probed_ratios(networks, batch)
    passes = count_forwards(networks["unet"])
    networks["unet"].train().enable_gradient_checkpointing(
        lambda block, *args: checkpoint(block, *args, use_reentrant=reentrant)
    )
    assert probed_ratios(networks, batch) == pytest.approx(plain, rel=1e-5)
    assert passes["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"] >= 2  # else nothing was checkpointed


def test_a_layer_that_no_gradient_reaches_gets_ratio_1_and_stays(networks):
    selora = controller(networks, threshold=1.0001)
    batch = random_batch(2)
    with selora.probe(STEP):
        states = networks["text_encoder"](batch["tokens"]).last_hidden_state.detach()
        networks["unet"](batch["latents"], batch["timesteps"], states).sample.square().mean().backward()
    text = [r for r in selora.expand(STEP) if r["network"] == "text_encoder"]
    assert len(text) == len(ranks(networks["text_encoder"]))
    assert all(r["fi_ratio"] == 1 and r["rank"] == 2 and not r["expanded"] for r in text)


def test_a_vanishing_gradient_gives_ratio_1(networks):
    selora = controller(networks, threshold=HUGE)
    with selora.probe(STEP):
        (0 * mean_loss(networks, random_batch(2))).backward()
    assert {r["fi_ratio"] for r in selora.expand(STEP)} == {1.0}


def test_a_loss_that_is_not_a_number_grows_nothing(networks):
    selora = controller(networks, threshold=1.0)
    with selora.probe(STEP):
        (math.nan * mean_loss(networks, random_batch(2))).backward()
    assert not any(r["expanded"] for r in selora.expand(STEP))


# ---------------------------------------------------------------- growth


def grow_all(networks, optimizer=None) -> list[dict]:
    selora = controller(networks, optimizer)
    with selora.probe(STEP):
        mean_loss(networks, random_batch(2)).backward()
    return selora.expand(STEP)


@torch.no_grad()
def test_growth_leaves_the_output_as_it_was_and_as_a_dense_layer_gives_it(networks, base):
    batch = random_batch(3)
    before = predict(networks, batch)
    dense = {"unet": deepcopy(base.unet), "text_encoder": deepcopy(base.text_encoder)}
    with torch.enable_grad():
        assert all(r["expanded"] and r["rank"] == 3 for r in grow_all(networks))
    after = predict(networks, batch)
    for (net, name), layer in layers_of(networks).items():
        A, B = weights(layer)
        assert A.shape[0] == B.shape[1] == layer.r["default"] == 3
        assert layer.scaling["default"] == 1.5  # alpha / r, from before
        dense[net].get_submodule(name).weight += 1.5 * B @ A
    assert torch.allclose(after, before, rtol=0, atol=1e-6)
    assert torch.allclose(after, predict(dense, batch), rtol=0, atol=1e-5)
    assert not torch.allclose(after, predict({"unet": base.unet, "text_encoder": base.text_encoder}, batch), atol=1e-3)


def test_the_appended_row_is_the_candidate_that_was_tested(networks):
    old = {key: weights(layer)[0].detach().clone() for key, layer in layers_of(networks).items()}
    rows = candidates(networks)
    grow_all(networks)
    for key, layer in layers_of(networks).items():
        A, B = weights(layer)
        assert torch.equal(A[:2], old[key])
        assert torch.equal(A[2:], rows[key])
        assert (B[:, 2] == 0).all()
        assert 1 / math.sqrt(A.shape[1]) < rows[key].abs().max() <= math.sqrt(6 / A.shape[1])  # Kaiming's, a = 0


def plain(pipe, **options) -> dict[str, nn.Module]:
    """The practitioner's first lines: LoRA as PEFT draws it, B zero."""
    torch.manual_seed(3)
    networks = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    for model in networks.values():
        model.requires_grad_(False)
        model.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=linear_layers(model), **options))
    return networks


def first_rows(networks) -> dict[tuple[str, str], torch.Tensor]:
    return {key: weights(layer)[0].detach().clone() for key, layer in layers_of(networks).items()}


def test_the_first_A_is_drawn_as_the_candidates_are(pipe):
    networks = plain(pipe)
    assert all(A.abs().max() <= 1 / math.sqrt(A.shape[1]) for A in first_rows(networks).values())
    controller(networks)
    scaled = [A * math.sqrt(A.shape[1] / 6) for A in first_rows(networks).values()]  # uniform in (-1, 1)
    entries = torch.cat([A.flatten() for A in scaled])
    assert entries.abs().max() <= 1
    assert entries.square().mean() == pytest.approx(1 / 3, rel=0.05)


def test_the_seed_determines_the_first_A_and_nothing_else_does(pipe):
    drawn = []
    for seed in (1, 1, 2):
        networks = plain(deepcopy(pipe))
        torch.manual_seed(len(drawn))
        SeLoRA(networks, torch.optim.Adam(trainable(networks)), seed=seed)
        drawn.append(torch.cat([A.flatten() for A in first_rows(networks).values()]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.isclose(drawn[0], drawn[2]).all()


@pytest.mark.parametrize("begun", ["a B off zero", "a state of the optimizer", "another start", "PEFT's gain"])
def test_an_A_that_is_not_new_stays(pipe, begun):
    networks = plain(pipe, **({"init_lora_weights": "gaussian"} if begun == "another start" else {}))
    optimizer, layer = torch.optim.Adam(trainable(networks)), next(iter(layers_of(networks).values()))
    if begun == "a B off zero":
        weights(layer)[1].data[0, 0] = 1e-6
    if begun == "a state of the optimizer":
        weights(layer)[0].grad = torch.zeros_like(weights(layer)[0])
        optimizer.step()
    before = first_rows(networks)
    SeLoRA(networks, optimizer, init="peft" if begun == "PEFT's gain" else "kaiming")
    assert all(torch.equal(A, before[key]) for key, A in first_rows(networks).items())


def test_the_other_gain_is_that_of_the_candidates_too(networks):
    selora = SeLoRA(networks, torch.optim.Adam(trainable(networks)), threshold=1.0, interval=1, init="peft")
    train_step(networks, selora, 1)
    rows = [weights(layer)[0][2] for layer in layers_of(networks).values()]
    assert all(0 < row.abs().max() <= 1 / math.sqrt(len(row)) for row in rows)


def test_seed_and_step_determine_the_candidates(networks):
    def tested(seed: int, step: int) -> torch.Tensor:
        twin = deepcopy(networks)
        selora = SeLoRA(twin, torch.optim.Adam(trainable(twin)), threshold=1.0, interval=1, seed=seed)
        torch.manual_seed(seed + 7 * step)  # the global generator plays no part
        with selora.probe(step):
            mean_loss(twin, random_batch(2)).backward()
        selora.expand(step)
        return torch.cat([weights(layer)[0][2] for layer in layers_of(twin).values()])

    assert torch.equal(tested(1, 10), tested(1, 10))
    assert not torch.isclose(tested(1, 10), tested(1, 11)).all()
    assert not torch.isclose(tested(1, 10), tested(2, 10)).all()


OPTIMIZERS = {
    "Adam": lambda p: torch.optim.Adam(p, lr=1e-2),
    "AdamW, amsgrad": lambda p: torch.optim.AdamW(p, lr=1e-2, amsgrad=True),
    "SGD, momentum": lambda p: torch.optim.SGD(p, lr=1e-1, momentum=0.9),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_the_optimizer_keeps_its_state_of_old_entries_and_has_none_of_new_ones(networks, make):
    optimizer = make(trainable(networks))
    selora = controller(networks, optimizer, interval=3)
    for step in (1, 2):
        assert train_step(networks, selora, step) == []
    with selora.probe(3):
        mean_loss(networks, random_batch(3, seed=3)).backward()
    optimizer.step()
    optimizer.zero_grad()
    old = {key: [dict(optimizer.state[w]) for w in weights(layer)] for key, layer in layers_of(networks).items()}
    assert all(r["expanded"] for r in selora.expand(3))

    parameters = {p for group in optimizer.param_groups for p in group["params"]}
    assert parameters == set(trainable(networks)) == set(optimizer.state)
    for key, layer in layers_of(networks).items():
        for before, weight, fresh in zip(
            old[key], weights(layer), (slice(2, None), (slice(None), slice(2, None))), strict=True
        ):
            after = optimizer.state[weight]
            assert after.keys() - {"row_steps"} == before.keys()
            for name, value in before.items():
                if name == "step":
                    assert after[name] == value == 3
                else:
                    assert after[name].shape == weight.shape
                    assert torch.equal(after[name][tuple(slice(0, n) for n in value.shape)], value) and value.any()
                    assert (after[name][fresh] == 0).all()


def test_training_goes_on_as_if_nothing_had_grown_and_the_new_rank_joins_in(networks):
    """One step after growth, old entries are where a twin has them that never grew; after two, the new row moved."""
    twin = deepcopy(networks)
    runs = [(networks, controller(networks, interval=2)), (twin, controller(twin, interval=2, threshold=HUGE))]
    for nets, selora in runs:
        for step in (1, 2, 3):
            train_step(nets, selora, step)
    rows = {}
    for (key, layer), other in zip(layers_of(networks).items(), layers_of(twin).values(), strict=True):
        (A, B), (twin_A, twin_B) = weights(layer), weights(other)
        assert torch.allclose(A[:2], twin_A, rtol=0, atol=1e-4)
        assert torch.allclose(B[:, :2], twin_B, rtol=0, atol=1e-4)
        assert (B[:, 2] != 0).any()
        rows[key] = A[2].detach().clone()
    train_step(networks, runs[0][1], 5)  # 5 is no multiple of the interval
    assert all((weights(layer)[0][2] != rows[key]).any() for key, layer in layers_of(networks).items())


@pytest.mark.parametrize("rank", [1, 2])
def test_an_optimizer_with_factored_state_is_refused(pipe, rank):
    """At rank 1 a factor may have the very shape of its parameter."""
    attach(pipe.text_encoder, rank=rank, alpha=rank)
    networks = {"text_encoder": pipe.text_encoder}
    optimizer = torch.optim.Adafactor(trainable(networks))
    selora = controller(networks, optimizer)
    with selora.probe(1):
        pipe.text_encoder(random_batch(2)["tokens"]).last_hidden_state.square().mean().backward()
    optimizer.step()
    with pytest.raises(TypeError, match="Adafactor.*use Adam"):
        selora.expand(1)


def test_the_peft_configuration_describes_the_grown_model(networks, base):
    """Attached to an untouched model, it gives layers of the same ranks and scalings."""
    selora = controller(networks, threshold=1.3, interval=1)
    for step in (1, 2):
        train_step(networks, selora, step)
    for name, model in networks.items():
        config = LoraConfig(**model.peft_config["default"].to_dict())
        fresh = deepcopy(getattr(base, name))
        fresh.add_adapter(config)
        assert ranks(fresh) == ranks(model)
        assert len(set(ranks(fresh).values())) > 1
        assert all(layer.scaling["default"] == pytest.approx(1.5) for layer in lora_layers(fresh).values())


# ---------------------------------------------------------------- when and what to grow


def test_every_interval_th_step_tests_and_the_threshold_decides(networks):
    selora = controller(networks, threshold=1.3, interval=3)
    records = {step: train_step(networks, selora, step) for step in range(1, 7)}
    assert [step for step, found in records.items() if found] == [3, 6]
    for step in (3, 6):
        assert {(r["network"], r["layer"]) for r in records[step]} == set(layers_of(networks))
        assert all(r["step"] == step and r["expanded"] == (r["fi_ratio"] >= 1.3) for r in records[step])
        assert {r["expanded"] for r in records[step]} == {True, False}
    first = {(r["network"], r["layer"]): r["expanded"] for r in records[3]}
    for r in records[6]:
        assert r["rank"] == 2 + first[r["network"], r["layer"]] + r["expanded"]
        assert r["rank"] == ranks(networks[r["network"]])[r["layer"]]
    assert selora.expand(6) == []  # a test is good for one growth


def test_threshold_1_grows_every_layer_and_a_huge_one_none(networks):
    for threshold, rank in ((HUGE, 2), (1.0, 3)):
        train_step(networks, controller(networks, threshold=threshold), 1)
        assert {r for model in networks.values() for r in ranks(model).values()} == {rank}


def count_forwards(model: nn.Module) -> dict[str, int]:
    """Counts the forward calls of every module from now on."""
    calls = {name: 0 for name, _ in model.named_modules()}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    return calls


def test_a_probe_costs_no_further_forward_or_backward(networks):
    forwards = {net: count_forwards(model) for net, model in networks.items()}
    backwards = {key: 0 for key in layers_of(networks)}
    for key, layer in layers_of(networks).items():
        weights(layer)[1].register_hook(lambda _, key=key: backwards.update({key: backwards[key] + 1}))
    selora = controller(networks, threshold=HUGE, interval=2)
    seen = []
    for step in (1, 2):
        tested = train_step(networks, selora, step)
        assert bool(tested) == (step == 2)
        seen.append((deepcopy(forwards), dict(backwards)))
        for calls in (*forwards.values(), backwards):
            calls.update(dict.fromkeys(calls, 0))
    assert seen[0] == seen[1]
    assert set(seen[1][1].values()) == {1}
    assert all(calls[""] == 1 for calls in seen[1][0].values())


def test_a_probe_changes_nothing_in_the_training_step(networks):
    twin = deepcopy(networks)
    train_step(networks, controller(networks, threshold=HUGE, interval=1), 1)
    train_step(twin, controller(twin, threshold=HUGE, interval=2), 1)  # no probe
    pairs = zip(trainable(networks), trainable(twin), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_no_hook_outlives_the_probe(networks):
    selora, before = controller(networks), hooks(networks)
    with selora.probe(1):
        assert hooks(networks) > before
        mean_loss(networks, random_batch(2)).backward()
    assert hooks(networks) == before


def test_a_step_that_fails_inside_the_probe_leaves_no_hooks_and_grows_nothing(networks):
    selora, before = controller(networks), hooks(networks)
    with pytest.raises(RuntimeError, match="out of memory"):
        with selora.probe(1):
            mean_loss(networks, random_batch(2)).backward()
            raise RuntimeError("out of memory")
    assert hooks(networks) == before
    assert selora.expand(1) == []
    assert set(ranks(networks["unet"]).values()) == {2}


# ---------------------------------------------------------------- what is adapted, what is refused


@pytest.mark.parametrize("name", ["unet", "text_encoder"])
def test_linear_layers_names_every_linear_layer_and_nothing_else(base, name):
    """All weights of two axes belong to linear layers or embeddings; LoRA goes to each of the former."""
    model = deepcopy(getattr(base, name))
    embeddings = {n for n, m in model.named_modules() if isinstance(m, nn.Embedding)}
    matrices = {n.removesuffix(".weight") for n, p in model.named_parameters() if p.ndim == 2}
    assert set(linear_layers(model)) == matrices - embeddings
    attach(model, rank=1, alpha=1)
    assert list(lora_layers(model)) == linear_layers(getattr(base, name))
    assert all("lora" in n for n, p in model.named_parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 0.9}, "threshold is 0.9.*below 1"),
        ({"threshold": math.nan}, "threshold is nan"),
        ({"interval": 0}, "interval is 0.*1 or more"),
        ({"init": "xavier"}, "unknown init 'xavier': choose from kaiming, peft"),
    ],
    ids=["threshold", "nan", "interval", "init"],
)
def test_a_setting_that_makes_no_sense_is_refused(networks, settings, message):
    with pytest.raises(ValueError, match=message):
        controller(networks, **settings)


def test_models_without_lora_layers_are_refused(pipe):
    with pytest.raises(ValueError, match="no LoRA layers found: call model.add_adapter"):
        SeLoRA([pipe.unet, pipe.text_encoder], torch.optim.Adam(pipe.unet.parameters()))


@pytest.mark.parametrize("option", ["use_dora", "use_rslora", "lora_bias"])
def test_other_kinds_of_lora_are_refused(pipe, option):
    """DoRA has a magnitude, rsLoRA another rule for alpha, lora_bias a bias: growth and export know none of them."""
    model = pipe.text_encoder
    model.add_adapter(LoraConfig(r=2, target_modules=linear_layers(model), **{option: True}))
    with pytest.raises(ValueError, match="not plain LoRA"):
        controller({"text_encoder": model}, torch.optim.Adam(model.parameters()))


def test_parameters_that_the_optimizer_does_not_hold_are_refused(networks):
    """They would grow and never be trained."""
    only_unet = torch.optim.Adam(trainable({"unet": networks["unet"]}))
    with pytest.raises(ValueError, match="text_encoder.*optimizer"):
        controller(networks, only_unet)


def test_two_models_of_a_class_need_names(pipe):
    twin = deepcopy(pipe.unet)
    for model in (pipe.unet, twin):
        attach(model, rank=1, alpha=1)
    optimizer = torch.optim.Adam([*pipe.unet.parameters(), *twin.parameters()])
    with pytest.raises(ValueError, match="pass them by name"):
        SeLoRA([pipe.unet, twin], optimizer)
    assert len(SeLoRA({"one": pipe.unet, "two": twin}, optimizer).layers) == 2 * len(ranks(twin))


def test_in_a_list_the_classes_name_the_networks(networks):
    selora = SeLoRA(list(networks.values()), torch.optim.Adam(trainable(networks)), interval=1)
    assert {r["network"] for r in train_step(networks, selora, 1)} == {"UNet2DConditionModel", "CLIPTextModel"}


# ---------------------------------------------------------------- PEFT's own wrapper, other names


@pytest.mark.parametrize("name", ["default", "chest"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_wrapped_model_and_an_adapter_of_any_name_grow_are_saved_and_load(base, tmp_path, wrapped, name):
    pipe = deepcopy(base)
    networks = {}
    for net in ("unet", "text_encoder"):
        model = getattr(pipe, net)
        model.requires_grad_(False)
        config = LoraConfig(r=1, lora_alpha=1, target_modules=linear_layers(model))
        networks[net] = get_peft_model(model, config, adapter_name=name) if wrapped else model
        if not wrapped:
            model.add_adapter(config, adapter_name=name)
    optimizer = torch.optim.Adam(trainable(networks), lr=1e-2)
    selora = SeLoRA(networks, optimizer, threshold=1.4, interval=1)
    for step in (1, 2, 3):
        with selora.probe(step):
            mean_loss(networks, random_batch(3, seed=step)).backward()
        optimizer.step()
        optimizer.zero_grad()
        selora.expand(step)
    assert all(len(set(ranks(model).values())) > 1 for model in networks.values())
    expected = predict(networks, random_batch(2)).detach()

    save_lora(*networks.values(), tmp_path / "diffusers")
    stock = deepcopy(base)
    stock.load_lora_weights(tmp_path / "diffusers")
    found = predict({"unet": stock.unet, "text_encoder": stock.text_encoder}, random_batch(2))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)

    if wrapped:
        loaded = {}
        for net, model in networks.items():
            model.save_pretrained(tmp_path / net)
            folder = tmp_path / net if name == "default" else tmp_path / net / name
            loaded[net] = PeftModel.from_pretrained(deepcopy(getattr(base, net)), folder)
        torch.testing.assert_close(predict(loaded, random_batch(2)), expected, rtol=0, atol=1e-5)


class Nested(nn.Module):
    """A layer's name that another one's ends with; a pattern that a user gave."""

    def __init__(self):
        super().__init__()
        self.block = nn.ModuleDict({"fc": nn.Linear(4, 4), "out": nn.Linear(4, 4)})
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(self.block["out"](self.block["fc"](x).tanh()))


@pytest.mark.parametrize("grown", ["fc", "block.fc", "block.out"])
def test_a_rank_is_recorded_for_its_layer_alone(grown, tmp_path):
    torch.manual_seed(0)
    plain = Nested()
    config = LoraConfig(
        r=1, lora_alpha=1, target_modules=["fc", "out"], rank_pattern={"out": 2}, alpha_pattern={"out": 2}
    )
    model = get_peft_model(deepcopy(plain), config)
    selora = SeLoRA({"net": model}, torch.optim.Adam(trainable({"net": model})))
    key = ("net", f"base_model.model.{grown}")
    selora.grow(key, torch.ones(1, 4))
    expected = {name.removeprefix("base_model.model."): rank for name, rank in ranks(model).items()}
    assert expected[grown] == 3 if grown == "block.out" else 2
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(plain, tmp_path)
    assert ranks(loaded.get_base_model()) == expected


def test_of_several_adapters_the_one_in_use_grows(base):
    model = deepcopy(base.text_encoder)
    model.requires_grad_(False)
    for name in ("frozen", "chest"):
        model.add_adapter(LoraConfig(r=1, target_modules=["q_proj"]), adapter_name=name)
    model.set_adapter("chest")
    optimizer = torch.optim.Adam(model.parameters())
    selora = SeLoRA([model], optimizer, threshold=1.0, interval=1)
    with selora.probe(1):
        model(random_batch(2)["tokens"]).last_hidden_state.square().mean().backward()
    assert all(r["rank"] == 2 for r in selora.expand(1))
    assert {layer.r["frozen"] for layer in lora_layers(model).values()} == {1}
    for layer in lora_layers(model).values():
        layer.set_adapter(["frozen", "chest"])
    with pytest.raises(ValueError, match="adapters .*frozen.*chest.* are trained at once.*set_adapter"):
        SeLoRA([model], optimizer)


@pytest.mark.parametrize("rank", [1, 3])
def test_new_weights_of_any_strides_get_those_that_a_file_gives_back(networks, rank):
    """Rows cut from a transposed matrix, columns cut from a wider one: what an SVD and a pruner hand over."""
    model = networks["unet"]
    name, layer = next(iter(lora_layers(model).items()))
    A, B = weights(layer)
    transposed, wider = torch.randn(A.shape[1], rank).T, torch.randn(len(B), rank + 4)[:, :rank]
    resize(model, name, transposed, wider)
    for weight, given in zip(weights(layer), (transposed, wider), strict=True):
        assert torch.equal(weight, given)
        assert weight.stride() == torch.empty(weight.shape).stride() != given.stride()
