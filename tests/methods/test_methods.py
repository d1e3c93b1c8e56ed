"""Each method against an independent reference: plain tensor code, a dense layer, autograd, or a property."""

from copy import deepcopy

import pandas as pd
import pytest
import torch
from conftest import SETTINGS, predict, random_batch, run
from diffusers import StableDiffusionPipeline
from peft import PeftModel
from torch import nn

from selora.adapters import ADAPTER, linear_layers, lora_layers, ranks, trainable_parameters
from selora.diffusion.draws import generator, look_batches
from selora.export import WEIGHTS, save_lora
from selora.methods import make_method
from selora.methods.adalora import triplets
from selora.study.sample_run import load_weights

BATCH = random_batch(3, seed=9)


def parts(pipe: StableDiffusionPipeline) -> dict[str, nn.Module]:
    return {"unet": pipe.unet, "text_encoder": pipe.text_encoder}


def attached(pipe, name: str, steps: int = 20, **settings):
    """A method on a pipeline's networks, with all adapter weights moved off their start."""
    networks = parts(pipe)
    method = make_method(name, settings, seed=1, steps=steps)
    method.attach(networks)
    torch.manual_seed(2)
    with torch.no_grad():
        for model in networks.values():
            for p in model.parameters():
                if p.requires_grad:
                    p.add_(0.1 * torch.randn_like(p))
    return method, networks


def output(networks) -> torch.Tensor:
    with torch.no_grad():
        return predict(networks, BATCH)


def weights(layer) -> tuple[torch.Tensor, torch.Tensor]:
    return layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight


# ---- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["lora", "dylora", "adalora", "lora-matched", "selora-random", "sora", "increlora", "eva", "dora", "rslora"]
)
def test_the_file_of_a_run_is_the_same_adapter_in_a_stock_pipeline(base, data, earlier, tmp_path, name):
    trained, _ = run(base, name, data, tmp_path / "c.safetensors", earlier)
    save_lora(trained["unet"], trained["text_encoder"], tmp_path)
    stock = deepcopy(base)
    untouched = output(parts(stock))
    stock.load_lora_weights(tmp_path)
    load_weights(deepcopy(base), tmp_path / WEIGHTS)  # which finds that all of it has a place
    expected, found = output(trained), output(parts(stock))
    assert (expected - untouched).abs().max() > 1e-4
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    if name != "dora":  # which has magnitudes besides
        layers = [layer for model in trained.values() for layer in lora_layers(model).values()]
        assert all(layer.scaling[ADAPTER] == 1 for layer in layers)
        assert sum(map(trainable_parameters, trained.values())) == sum(
            A.numel() + B.numel() for A, B in map(weights, layers)
        )


@pytest.mark.parametrize("name", ["loha", "vera"])
def test_peft_reads_its_own_formats_back(base, data, tmp_path, name):
    networks = parts(deepcopy(base))
    method = make_method(name, SETTINGS.get(name, {}), seed=1, steps=7)
    method.attach(networks)
    with torch.no_grad():
        for model in networks.values():
            for p in model.parameters():
                if p.requires_grad:
                    p.add_(0.1)
    method.save(networks, tmp_path)
    again = {net: PeftModel.from_pretrained(model, tmp_path / net) for net, model in parts(deepcopy(base)).items()}
    torch.testing.assert_close(
        output({"unet": again["unet"].base_model.model, "text_encoder": again["text_encoder"].base_model.model}),
        output(networks),
    )


def test_qlora_says_what_it_needs(pipe):
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    with pytest.raises(ValueError, match="CUDA device and the package bitsandbytes"):
        make_method("qlora", {}, seed=0, steps=1).attach(parts(pipe))


# ---- AdaLoRA --------------------------------------------------------------------------------------------------------


def test_adalora_masks_the_triplets_that_plain_tensor_code_finds_least_important(pipe):
    """Sensitivity |w dL/dw| and uncertainty, both smoothed; a triplet scores E's entry plus the means of A and B."""
    method, networks = attached(pipe, "adalora", steps=6, warmup=0.2, final=0.4, interval=2)
    beta = method.tuners["unet"].peft_config[ADAPTER].beta1
    smooth, uncertain, expected = {}, {}, None
    layers = triplets(pipe.unet)
    for step in range(1, 4):  # cuts at step 2, within the budget from step 4
        batch = random_batch(2, seed=step)
        for model in networks.values():
            model.zero_grad()
        nn.functional.mse_loss(predict(networks, batch), batch["noise"]).backward()
        for name, layer in layers.items():
            for side in "ABE":
                p = getattr(layer, f"lora_{side}")[ADAPTER]
                now = (p * p.grad).abs().detach()
                key = (name, side)
                smooth[key] = beta * smooth.get(key, 0) + (1 - beta) * now
                uncertain[key] = beta * uncertain.get(key, 0) + (1 - beta) * (now - smooth[key]).abs()
        if step == 2:
            score = {key: smooth[key] * uncertain[key] for key in smooth}
            triplet = {
                name: score[name, "E"].flatten() + score[name, "A"].mean(1) + score[name, "B"].mean(0)
                for name in layers
            }
            budget = int((6 - 4) * len(layers) * (1 - (2 - 1) / (6 - 2 - 1)) ** 3 + 4 * len(layers))
            ordered = torch.cat(list(triplet.values())).sort().values
            limit = ordered[6 * len(layers) - budget - 1]
            expected = {name: triplet[name] > limit for name in layers}
        method.after_step(step)
        if step == 2:
            for name, layer in layers.items():
                assert torch.equal(layer.lora_E[ADAPTER].flatten() != 0, expected[name]), name
    assert sum(int(mask.sum()) for mask in expected.values()) == budget


def test_adalora_adds_orthogonality_ends_in_its_budget_and_exports_what_it_computes(pipe):
    method, networks = attached(pipe, "adalora", steps=8, interval=1)
    pairs = [(m.lora_A[ADAPTER], m.lora_B[ADAPTER]) for model in networks.values() for m in triplets(model).values()]
    away = [
        ((A @ A.T - torch.eye(6)).square().sum().sqrt(), (B.T @ B - torch.eye(6)).square().sum().sqrt())
        for A, B in pairs
    ]
    expected = 2.0 + 0.1 * sum(map(sum, away)) / (2 * len(away))
    torch.testing.assert_close(method.loss(torch.tensor(2.0)), expected)
    for step in range(1, 9):
        batch = random_batch(2, seed=step)
        method.loss(nn.functional.mse_loss(predict(networks, batch), batch["noise"])).backward()
        method.after_step(step)
        for model in networks.values():
            model.zero_grad()
    assert [method.settled(step) for step in (1, 4, 5, 8)] == [False, False, True, True]
    before = output(networks)
    method.finish(networks, lambda: 0.0)
    torch.testing.assert_close(output(networks), before, rtol=1e-4, atol=1e-5)
    for model in networks.values():
        found = list(ranks(model).values())
        assert len(set(found)) > 1
        assert sum(found) <= 4 * len(found) + found.count(1)  # a layer that lost all keeps one, of zeros


# ---- DyLoRA ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 3, 4])
def test_dylora_cuts_a_layer_as_a_dense_one_with_the_first_ranks_alone(pipe, rank):
    method, networks = attached(pipe, "dylora")
    name, layer = next(iter(lora_layers(pipe.text_encoder).items()))
    A, B = weights(layer)
    x = torch.randn(5, layer.in_features)
    method.cut_to = rank
    dense = layer.base_layer.weight + 4 / rank * B[:, :rank] @ A[:rank]
    torch.testing.assert_close(layer(x), nn.functional.linear(x, dense, layer.base_layer.bias))
    layer(x).square().mean().backward()
    assert A.grad[rank:].abs().sum() == 0 and B.grad[:, rank:].abs().sum() == 0
    assert A.grad[:rank].abs().sum() > 0


def test_dylora_can_update_the_newest_rank_only(pipe):
    method, networks = attached(pipe, "dylora", newest_only=True)
    method.start(networks, None)
    with method.around(3):
        newest = method.cut_to - 1
        nn.functional.mse_loss(predict(networks, BATCH), BATCH["noise"]).backward()
    A, B = weights(next(iter(lora_layers(pipe.unet).values())))
    moved = [bool(A.grad[i].abs().sum() > 0 or B.grad[:, i].abs().sum() > 0) for i in range(4)]
    assert moved == [i == newest for i in range(4)]


def test_dylora_draws_every_rank_and_is_whole_outside_of_a_step(pipe):
    method, _ = attached(pipe, "dylora")
    drawn = []
    for step in range(40):
        with method.around(step):
            drawn.append(method.cut_to)
    assert set(drawn) == {1, 2, 3, 4}
    assert method.cut_to is None


def test_dylora_ends_at_the_rank_with_the_least_loss(pipe):
    method, networks = attached(pipe, "dylora")
    losses = {1: 0.5, 2: 0.2, 3: 0.3, 4: 0.4}
    method.cut_to = 2
    expected = output(networks)
    found = method.finish(networks, lambda: losses[method.cut_to])
    assert found == {"best_rank": 2, "loss_by_rank": losses}
    assert set(ranks(pipe.unet).values()) == {2}
    torch.testing.assert_close(output(networks), expected)


# ---- SoRA and IncreLoRA ---------------------------------------------------------------------------------------------


def test_sora_takes_the_proximal_step_and_drops_closed_gates(pipe):
    method, networks = attached(pipe, "sora", steps=10, closing=0.5)  # 0.5 / 5 = 0.1 a step
    gates = [layer.lora_A[ADAPTER].gate for layer in lora_layers(pipe.unet).values()]
    gates[0].data = torch.tensor([1.0, -1.0, 0.05, -0.05, 0.2, 0.1, 0.0, 3.0])
    method.after_step(1)
    torch.testing.assert_close(gates[0].data, torch.tensor([0.9, -0.9, 0.0, 0.0, 0.1, 0.0, 0.0, 2.9]))
    gates[1].data.zero_()
    before = output(networks)
    method.finish(networks, lambda: 0.0)
    assert list(ranks(pipe.unet).values())[:2] == [4, 1]
    torch.testing.assert_close(output(networks), before, rtol=1e-4, atol=1e-5)


def test_increlora_scores_a_layer_by_its_updates_weights_and_their_gradients(pipe):
    method, networks = attached(pipe, "increlora", interval=2)
    (network, name), layer = next(iter(method.layers.items()))
    A, B = weights(layer)
    gate = layer.lora_A[ADAPTER].gate
    with method.around(1):
        nn.functional.mse_loss(predict(networks, BATCH), BATCH["noise"]).backward()
    update = ((B * gate) @ A).detach().requires_grad_()
    layer.lora_B[ADAPTER].weight.data = torch.zeros_like(B)  # W0 x + W x, with W dense and apart
    handle = layer.register_forward_hook(lambda _, x, y: y + nn.functional.linear(x[0], update))
    nn.functional.mse_loss(predict(networks, BATCH), BATCH["noise"]).backward()
    handle.remove()
    expected = (update * update.grad).abs().sum() / update.numel() ** 0.5
    torch.testing.assert_close(method.seen[0], expected.detach())


def test_increlora_grows_to_its_budget_and_exports_what_it_computes(base, data, tmp_path):
    networks, outcome = run(base, "increlora", data, tmp_path / "c.safetensors", steps=8)
    grown = [record for record in outcome["expansions"] if record["expanded"]]
    layers = sum(len(lora_layers(model)) for model in networks.values())
    assert len(grown) == 3 * layers  # from rank 1 to a mean of 4
    assert {record["step"] for record in grown} == {2, 4, 6, 8}


def test_increloras_growth_and_export_leave_the_output(pipe):
    method, networks = attached(pipe, "increlora", interval=2)
    for layer in method.layers.values():
        layer.lora_A[ADAPTER].gate.data = torch.tensor([0.7, 1e-5])
    parameters = [p for model in networks.values() for p in model.parameters() if p.requires_grad]
    method.start(networks, torch.optim.Adam(parameters))
    before = output(networks)
    for (network, name), layer in method.layers.items():
        method.grow(network, name, layer, generator(0))
    torch.testing.assert_close(output(networks), before, rtol=1e-3, atol=1e-4)  # a reserve more, at 1e-5
    method.finish(networks, lambda: 0.0)
    assert set(ranks(pipe.unet).values()) == {2}
    torch.testing.assert_close(output(networks), before, rtol=1e-3, atol=1e-4)


def test_increloras_reserve_stays_closed_while_it_learns(base, data, tmp_path):
    networks = parts(deepcopy(base))
    method = make_method("increlora", SETTINGS["increlora"], seed=1, steps=7)
    method.attach(networks)
    parameters = [p for model in networks.values() for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    method.start(networks, optimizer)
    layer = next(iter(method.layers.values()))
    row = layer.lora_A[ADAPTER].weight[-1].detach().clone()
    with method.around(1):
        nn.functional.mse_loss(predict(networks, BATCH), BATCH["noise"]).backward()
    optimizer.step()
    gate = layer.lora_A[ADAPTER].gate.detach()
    assert gate[-1] == pytest.approx(1e-5) and gate[0] != 0
    assert not torch.equal(layer.lora_A[ADAPTER].weight[-1], row)


# ---- EVA, the controls, scaling -------------------------------------------------------------------------------------


def test_eva_starts_at_the_main_directions_of_each_layers_inputs(pipe, data):
    networks = parts(pipe)
    batches = look_batches(*data["train"], pipe.scheduler, seed=0)
    seen = []
    name = next(n for n in linear_layers(pipe.text_encoder) if n.endswith("layers.0.mlp.fc1"))
    handle = pipe.text_encoder.get_submodule(name).register_forward_hook(lambda _, x, y: seen.append(x[0]))
    with torch.no_grad():
        for batch in batches:
            pipe.text_encoder(batch["tokens"])
    handle.remove()
    inputs = torch.cat(seen).flatten(0, 1)
    method = make_method("eva", {}, seed=0, steps=1)
    method.inspect(networks, batches)
    method.attach(networks)
    A, B = weights(lora_layers(pipe.text_encoder)[name])
    assert B.abs().sum() == 0
    _, _, right = torch.linalg.svd(inputs - inputs.mean(0), full_matrices=False)  # PEFT centres them
    cosines = (A @ right[: len(A)].T).abs().diagonal()
    assert cosines[0] > 0.95  # PEFT's incremental SVD stops at a cosine of 0.99 between two steps
    found = list(ranks(pipe.unet).values())
    assert max(found) <= 8 and len(set(found)) > 1
    assert sum(found) <= 4 * len(found) + found.count(1)


def test_lora_matched_takes_the_rank_with_the_nearest_number_of_parameters(pipe, earlier):
    networks = parts(pipe)
    make_method("lora-matched", {}, seed=0, steps=1, earlier=earlier).attach(networks)
    for network, wanted in (("unet", 9000), ("text_encoder", 2000)):
        rank = ranks(networks[network]).popitem()[1]
        count = trainable_parameters(networks[network])
        nearest = min(range(1, 50), key=lambda r: abs(count / rank * r - wanted))
        assert set(ranks(networks[network]).values()) == {nearest}


def test_selora_random_grows_other_layers_to_the_same_number_of_parameters(base, data, earlier, tmp_path):
    networks, outcome = run(base, "selora-random", data, tmp_path / "c.safetensors", earlier)
    grown = [record for record in outcome["expansions"] if record["expanded"]]
    tests = pd.DataFrame(earlier.expansions)

    def sizes(rows) -> list[tuple]:
        layers = {(net, name): layer for net, model in networks.items() for name, layer in lora_layers(model).items()}
        keys = [(step, layers[network, layer]) for step, network, layer in rows]
        return sorted((step, layer.in_features + layer.out_features) for step, layer in keys)

    own = [(r["step"], r["network"], r["layer"]) for r in grown]
    theirs = list(tests[["step", "network", "layer"]].itertuples(index=False, name=None))
    assert sizes(own) == sizes(theirs)
    assert sorted(own) != sorted(theirs)


def test_increlora_says_when_its_budget_cannot_be_reached(pipe):
    with pytest.raises(ValueError, match="in 1 growths: choose a smaller interval than 5"):
        make_method("increlora", {"interval": 5}, seed=0, steps=10).attach(parts(pipe))


def test_sora_ends_with_ranks_below_its_start(base, data, tmp_path, monkeypatch):
    monkeypatch.setitem(SETTINGS, "sora", {"closing": 0.7})
    networks, outcome = run(base, "sora", data, tmp_path / "c.safetensors", steps=40, learning_rate=3e-3)
    found = [rank for model in networks.values() for rank in ranks(model).values()]
    assert min(found) < 8
    assert outcome["best_step"] >= 28  # not before gates without gradient have closed


@pytest.mark.parametrize(("name", "as_lora"), [("loha", 4), ("dora", 4), ("rslora", 4), ("vera", None)])
def test_parameters_of_other_adapters(pipe, name, as_lora):
    """LoHa of rank 2 is as large as LoRA of rank 4; DoRA adds a magnitude per output, VeRA has vectors alone."""
    sizes = [(m.in_features, m.out_features) for m in map(pipe.unet.get_submodule, linear_layers(pipe.unet))]
    settings = SETTINGS.get(name, {})
    make_method(name, settings, seed=0, steps=1).attach(parts(pipe))
    expected = sum((as_lora or 0) * (i + o) + (o if name == "dora" else 0) for i, o in sizes)
    if name == "vera":
        expected = sum(settings["r"] + o for _, o in sizes)
    assert trainable_parameters(pipe.unet) == expected


def test_rslora_scales_by_the_root_of_the_rank_until_the_export_folds_it(pipe):
    method, networks = attached(pipe, "rslora")
    assert {layer.scaling[ADAPTER] for layer in lora_layers(pipe.unet).values()} == {2.0}  # 4 / sqrt 4
    before = output(networks)
    method.finish(networks, lambda: 0.0)
    torch.testing.assert_close(output(networks), before)
