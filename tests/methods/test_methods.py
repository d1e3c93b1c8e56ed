"""Each method against an independent reference: plain tensor code, a dense layer, autograd, or a property."""

from copy import deepcopy

import pandas as pd
import pytest
import torch
from conftest import SETTINGS, mean_loss, predict, random_batch, run, trainable
from diffusers import StableDiffusionPipeline
from peft import PeftModel
from torch import nn

from selora.adapters import ADAPTER, linear_layers, lora_layers, ranks, trainable_parameters
from selora.diffusion.draws import generator, look_batches
from selora.export import save_lora
from selora.files import WEIGHTS
from selora.methods import make_method
from selora.methods.adalora import triplets
from selora.methods.matched import neighbouring_ranks
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
    "name",
    [
        "lora",
        "dylora",
        "adalora",
        "lora-matched",
        "selora-random",
        "ranks-selora",
        "sora",
        "increlora",
        "elalora",
        "gora",
        "eva",
        "dora",
        "rslora",
    ],
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


def test_qlora_says_what_it_needs(pipe, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="the package bitsandbytes"):
        make_method("qlora", {}, seed=0, steps=1).attach(parts(pipe))


def test_qlora_trains_lora_over_four_bits(base, data, tmp_path):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    untouched = output(parts(deepcopy(base)))
    networks, outcome = run(base, "qlora", data, tmp_path / "c.safetensors")
    assert sum(isinstance(m, bitsandbytes.nn.Linear4bit) for m in networks["unet"].modules()) == len(
        linear_layers(base.unet)
    )
    assert trainable_parameters(networks["unet"]) == sum(
        4 * (layer.in_features + layer.out_features) for layer in map(base.unet.get_submodule, linear_layers(base.unet))
    )
    assert (output(networks) - untouched).abs().max() > 1e-3
    losses = [row["train_loss"] for row in outcome["history"]]
    assert all(0 < loss < 10 for loss in losses)


# ---- AdaLoRA --------------------------------------------------------------------------------------------------------


def test_adalora_masks_the_triplets_that_plain_tensor_code_finds_least_important(pipe):
    """Sensitivity |w dL/dw| and uncertainty, both smoothed; a triplet scores E's entry plus the means of A and B."""
    method, networks = attached(pipe, "adalora", steps=6, warmup=0.2, final=0.4, interval=2)
    beta = method.tuner.peft_config[ADAPTER].beta1
    smooth, uncertain, expected = {}, {}, None
    layers = {(net, name): layer for net, model in networks.items() for name, layer in triplets(model).items()}
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
    found = [rank for model in networks.values() for rank in ranks(model).values()]
    assert len(set(found)) > 1
    assert sum(found) <= 4 * len(found) + found.count(1)  # a layer that lost all keeps one, of zeros


def test_adalora_starts_with_rows_of_the_authors_length(pipe):
    method = make_method("adalora", {}, seed=1, steps=20)
    method.attach(parts(pipe))
    rows = [row for layer in triplets(method.tuner).values() for side in (layer.lora_A, layer.lora_B)
            for row in (side[ADAPTER] if side is layer.lora_A else side[ADAPTER].T)]  # fmt: skip
    lengths = torch.stack([row.square().sum() for row in rows])
    assert lengths.mean().sqrt().item() == pytest.approx(0.02 * 768**0.5, rel=0.05)
    x = torch.randn(3, 16)
    layer = next(iter(triplets(pipe.text_encoder).values()))
    layer.lora_E[ADAPTER].data.fill_(1.0)
    update = layer.lora_B[ADAPTER] @ layer.lora_A[ADAPTER] * 32 / 6
    torch.testing.assert_close(layer(x), layer.base_layer(x) + x @ update.T, rtol=1e-4, atol=1e-5)


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
    method, networks = attached(pipe, "sora", steps=10, shrinkage=1.0)  # 0.1 a step
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
    layer.scaling[ADAPTER] = 8.0  # of a rank of 4
    with method.around(1):
        nn.functional.mse_loss(predict(networks, BATCH), BATCH["noise"]).backward()
    update = (8 * (B * gate) @ A).detach().requires_grad_()
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
    assert len(grown) == 3 * layers // 2  # from rank 1 to a mean of 4, by two at a time
    assert {record["step"] for record in grown} == {2, 4, 6, 8}


def test_increloras_growth_and_export_leave_the_output_but_for_its_scaling(pipe):
    method, networks = attached(pipe, "increlora", interval=2)
    for layer in method.layers.values():
        layer.lora_A[ADAPTER].gate.data = torch.tensor([0.7, 1e-5, 1e-5])
    parameters = [p for model in networks.values() for p in model.parameters() if p.requires_grad]
    method.start(networks, torch.optim.Adam(parameters))
    assert {layer.scaling[ADAPTER] for layer in method.layers.values()} == {32}  # alpha by rank 1
    before = output(networks)
    for (network, name), layer in method.layers.items():
        method.grow(network, name, layer, generator(0))
        assert layer.scaling[ADAPTER] == pytest.approx(32 / 3)
        layer.lora_A[ADAPTER].gate.data[0] *= 3
    torch.testing.assert_close(output(networks), before, rtol=1e-2, atol=2e-2)  # two ranks more, at 1e-5
    grown = output(networks)
    method.finish(networks, lambda: 0.0)
    assert set(ranks(pipe.unet).values()) == {3}
    torch.testing.assert_close(output(networks), grown, rtol=1e-3, atol=1e-3)


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
    assert gate[-2:].tolist() == pytest.approx([1e-5, 1e-5]) and gate[0] != 0
    assert not torch.equal(layer.lora_A[ADAPTER].weight[-1], row)


# ---- ElaLoRA and GoRA ------------------------------------------------------------------------------------------------


def elalora(pipe, **settings):
    """The method with moved weights, an optimizer, and one pass done; in a round three layers in ten lose a rank."""
    method, networks = attached(pipe, "elalora", steps=20, share=0.3, **settings)
    optimizer = torch.optim.Adam([p for model in networks.values() for p in model.parameters() if p.requires_grad])
    method.start(networks, optimizer)
    nn.functional.mse_loss(predict(networks, BATCH), BATCH["noise"]).backward()
    optimizer.step()
    return method, networks, optimizer


def test_elalora_moves_ranks_from_the_least_important_to_where_the_best_of_the_least_are(pipe):
    method, networks, optimizer = elalora(pipe)
    method.first, method.interval = 0, 1
    smooth = {}
    for key in method.layers:
        for part, p in method.parts(key).items():
            now = (p * p.grad).abs().detach()
            mean = 0.15 * now
            smooth[key, part] = mean * 0.15 * (now - mean).abs()  # after one step
    scores = {key: smooth[key, "gate"] + smooth[key, "A"].mean(1) + smooth[key, "B"].mean(0) for key in method.layers}
    count = round(0.3 * len(method.layers) * (1 - (1 / 15) ** 3))
    offered = sorted(
        (value, key) for key, found in scores.items() for value in found.tolist() if value in sorted(found.tolist())[:2]
    )
    lost, won = [key for _, key in offered[:count]], [key for _, key in offered[-count:]]
    records = method.after_step(1)
    expected = {key: 4 - lost.count(key) + won.count(key) for key in method.layers}
    assert {(r["network"], r["layer"]): r["rank"] for r in records} == expected
    assert sum(expected.values()) == 4 * len(expected) and len(set(expected.values())) > 1
    method.finish(networks, lambda: 0.0)
    found = {(net, name): rank for net, model in networks.items() for name, rank in ranks(model).items()}
    assert found == expected


def test_elaloras_change_keeps_the_output_but_for_what_it_prunes_and_the_moments_of_what_stays(pipe):
    method, networks, optimizer = elalora(pipe)
    method.after_step(1)  # importance alone
    key = next(iter(method.layers))
    layer, old = method.layers[key], {part: p.detach().clone() for part, p in method.parts(key).items()}
    moments = {part: optimizer.state[p]["exp_avg"].clone() for part, p in method.parts(key).items()}
    old["gate"][1] = 0
    layer.lora_A[ADAPTER].gate.data[1] = 0
    before = output(networks)
    method.change(3, key, {1}, 2)
    torch.testing.assert_close(output(networks), before)
    new = method.parts(key)
    assert new["A"].shape[0] == new["B"].shape[1] == len(new["gate"]) == 5
    assert torch.equal(new["A"][:3], old["A"][[0, 2, 3]]) and torch.equal(new["B"][:, :3], old["B"][:, [0, 2, 3]])
    for part, p in new.items():
        kept, fresh = optimizer.state[p]["exp_avg"], moments[part]
        if part == "B":
            kept, fresh = kept.T, fresh.T
        assert torch.equal(kept[:3], fresh[[0, 2, 3]]) and not kept[3:].any()
    assert layer.scaling[ADAPTER] == pytest.approx(1.6)
    assert new["A"][3:].norm(dim=1).tolist() == pytest.approx([1, 1])


def test_gora_shares_ranks_by_importance_and_starts_down_the_gradient(base, data):
    networks = parts(deepcopy(base))
    batches = look_batches(*data["train"], base.scheduler, seed=0)
    method = make_method("gora", {"gamma": 0.01}, seed=0, steps=1)
    method.inspect(networks, batches)
    gradients, found = dict(method.gradients), dict(method.ranks)

    def loss(networks) -> torch.Tensor:
        parts = [nn.functional.mse_loss(predict(networks, batch), batch["target"]) for batch in batches]
        return torch.stack(parts).mean()

    twin = parts(deepcopy(base))
    for model in twin.values():
        model.requires_grad_(True)
    before = loss(twin)
    before.backward()
    importance, roots = {}, {}
    for key, gradient in gradients.items():
        weight = twin[key[0]].get_submodule(key[1]).weight
        torch.testing.assert_close(gradient, weight.grad, rtol=1e-3, atol=1e-7)
        importance[key], roots[key] = (weight * weight.grad).abs().mean().item(), sum(weight.shape) ** 0.5
    total = 4 * sum(roots.values()) / sum(importance.values())
    assert found == {k: min(max(round(total * importance[k] / roots[k]), 2), 16) for k in importance}
    assert not any(p.grad is not None for model in networks.values() for p in model.parameters())

    method.attach(networks)
    assert len(set(found.values())) > 1
    for key, layer in ((key, networks[key[0]].get_submodule(key[1])) for key in gradients):
        A, B = weights(layer)
        assert len(A) == found[key]
        fit = torch.linalg.lstsq(A.T, gradients[key].T).solution.T  # of B A to the gradient
        torch.testing.assert_close(B, -0.01 * (A.shape[1] / len(A)) ** 0.5 * fit, rtol=1e-2, atol=1e-6)
    with torch.no_grad():
        assert loss(networks) < before


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
    assert sum(found) == 4 * len(found)  # those that EVA would drop included
    assert torch.allclose(A.norm(dim=1), torch.ones(len(A)), atol=1e-4)


def test_selora_records_the_norm_that_b_has_in_the_test(networks):
    method = make_method("selora", {"rank": 1, "threshold": 1.0, "interval": 2}, seed=0, steps=2)
    optimizer = torch.optim.SGD(trainable(networks), lr=0.1)
    method.start(networks, optimizer)
    layers = {(net, name): layer for net, model in networks.items() for name, layer in lora_layers(model).items()}
    before = {key: layer.lora_B["default"].weight.square().sum().item() ** 0.5 for key, layer in layers.items()}
    with method.around(2):
        mean_loss(networks, random_batch(4)).backward()
    optimizer.step()
    records = method.after_step(2)
    assert {(r["network"], r["layer"]): r["b_norm"] for r in records} == pytest.approx(before, rel=1e-6)
    assert method.after_step(3) == []


def test_lora_matched_has_selora_s_parameters_in_two_neighbouring_ranks(pipe, earlier):
    networks = parts(pipe)
    make_method("lora-matched", {}, seed=0, steps=1, earlier=earlier).attach(networks)
    for network, wanted in (("unet", 9000), ("text_encoder", 2000)):
        layers = lora_layers(networks[network]).values()
        found = ranks(networks[network]).values()
        assert max(found) == min(found) + 1
        smallest = min(layer.in_features + layer.out_features for layer in layers)
        assert abs(trainable_parameters(networks[network]) - wanted) <= smallest / 2
        for A, B in map(weights, layers):
            assert not B.any() and (6 / A.shape[1]) ** 0.5 * 0.5 < A.abs().max() <= (6 / A.shape[1]) ** 0.5


def test_at_stable_diffusions_sizes_lora_matched_is_within_1_per_cent():
    sizes = [320 + 320] * 40 + [640 + 2560] * 20 + [1280 + 768] * 30 + [1280 + 10240] * 10
    for wanted in range(sum(sizes), 4 * sum(sizes), 12_345):
        found = neighbouring_ranks(sizes, wanted, generator(wanted))
        assert sum(rank * size for rank, size in zip(found, sizes, strict=True)) == pytest.approx(wanted, rel=0.01)
        assert max(found) - min(found) <= 1


def test_selora_random_grows_other_layers_to_the_same_number_of_parameters(base, data, earlier, tmp_path):
    networks, outcome = run(base, "selora-random", data, tmp_path / "c.safetensors", earlier)
    grown = [record for record in outcome["expansions"] if record["expanded"]]
    tests = pd.DataFrame(earlier["selora"].expansions)

    def sizes(rows) -> list[tuple]:
        layers = {(net, name): layer for net, model in networks.items() for name, layer in lora_layers(model).items()}
        keys = [(step, layers[network, layer]) for step, network, layer in rows]
        return sorted((step, layer.in_features + layer.out_features) for step, layer in keys)

    own = [(r["step"], r["network"], r["layer"]) for r in grown]
    theirs = list(tests[["step", "network", "layer"]].itertuples(index=False, name=None))
    assert sizes(own) == sizes(theirs)
    assert sorted(own) != sorted(theirs)


def test_selora_and_its_random_control_start_from_the_same_draws(base, earlier):
    drawn = []
    for name in ("selora", "selora-random"):
        networks = parts(deepcopy(base))
        method = make_method(name, {}, seed=1, steps=7, earlier=earlier)
        method.attach(networks)
        trained = [p for model in networks.values() for p in model.parameters() if p.requires_grad]
        method.start(networks, torch.optim.Adam(trained))
        drawn.append(torch.cat([p.flatten() for p in trained]))
    assert torch.equal(*drawn) and drawn[0].any()


def test_increlora_says_when_its_budget_cannot_be_reached(pipe):
    with pytest.raises(ValueError, match="in 1 growths: choose a smaller interval than 5"):
        make_method("increlora", {"interval": 5}, seed=0, steps=10).attach(parts(pipe))


def test_sora_gives_gates_their_own_rate_and_an_l1_term(pipe):
    method, networks = attached(pipe, "sora", steps=43)
    optimizer = torch.optim.Adam([p for model in networks.values() for p in model.parameters() if p.requires_grad])
    method.start(networks, optimizer)
    held = [{id(p) for p in group["params"]} for group in optimizer.param_groups]
    assert held[1] == {id(gate) for gate in method.gates()} and not held[0] & held[1]
    assert optimizer.param_groups[1]["lr"] == pytest.approx(8 / 3 * 0.1)  # the threshold is 4.3 / 43
    gates = torch.cat(method.gates())
    torch.testing.assert_close(method.loss(torch.tensor(2.0)), 2 + 10 * gates.abs().sum() / gates.numel())
    assert {layer.scaling[ADAPTER] for layer in lora_layers(pipe.unet).values()} == {2}


def test_sora_ends_with_ranks_below_its_start(base, data, tmp_path, monkeypatch):
    monkeypatch.setitem(SETTINGS, "sora", {})
    networks, outcome = run(base, "sora", data, tmp_path / "c.safetensors", steps=40, learning_rate=3e-3)
    found = [rank for model in networks.values() for rank in ranks(model).values()]
    assert min(found) < 8


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


def test_loha_starts_as_in_lycoris_and_changes_nothing_at_first(base):
    networks = parts(deepcopy(base))
    before = output(networks)
    make_method("loha", {}, seed=1, steps=1).attach(networks)
    assert torch.equal(output(networks), before)
    drawn = {
        name: torch.cat([p.flatten() for n, p in networks["unet"].named_parameters() if f"{name}.default" in n])
        for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    }
    deviations = {name: entries.std().item() for name, entries in drawn.items()}
    assert deviations == pytest.approx({"hada_w1_a": 0.1, "hada_w1_b": 1, "hada_w2_a": 0, "hada_w2_b": 1}, rel=0.05)


def test_rslora_scales_by_the_root_of_the_rank_until_the_export_folds_it(pipe):
    method, networks = attached(pipe, "rslora")
    assert {layer.scaling[ADAPTER] for layer in lora_layers(pipe.unet).values()} == {2.0}  # 4 / sqrt 4
    before = output(networks)
    method.finish(networks, lambda: 0.0)
    torch.testing.assert_close(output(networks), before)
