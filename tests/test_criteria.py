"""Other criteria of growth: each against one backward per sample, against many draws, or by the property it is for."""

import json
import math
import os
import socket
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from torch.autograd import grad
from torch.multiprocessing import start_processes

from selora import SeLoRA
from selora.adapters import all_lora_layers, draw_rows, linear_layers, lora_pair, row_variance
from selora.criteria import CRITERIA, spend
from selora.fisher import column_of, last_rows, multiply, row_squares, sample_gradients, total, weight_gradients

pytestmark = pytest.mark.filterwarnings("ignore:the first axis of the layers' inputs is taken for the samples")

SEED, STEP, N, T = 5, 4, 4, 3
WIDTHS = (6, 9, 5)
GENERATOR = torch.Generator().manual_seed(1)
X = torch.randn(16, T, WIDTHS[0], dtype=torch.float64, generator=GENERATOR)
Y = torch.randn(16, T, WIDTHS[2], dtype=torch.float64, generator=GENERATOR)


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(*WIDTHS[:2]), nn.Linear(*WIDTHS[1:])

    def forward(self, x):
        return self.down(self.up(x).tanh())


def toy(spread: float = 0.3, rank: int = 2) -> dict[str, nn.Module]:
    """With LoRA on both layers, scaling 1.5, B off zero by `spread`, in double precision."""
    torch.manual_seed(0)
    model = Toy().requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=1.5 * rank, target_modules=linear_layers(model)), model)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=spread)
    return {"net": model.double()}


def make(name: str, networks, rate: float = 0.0, **settings) -> SeLoRA:
    trained = [p for model in networks.values() for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=rate) if rate else torch.optim.SGD(trained, lr=0.0)
    settings = {"threshold": 1.0, "interval": STEP, "seed": SEED} | settings
    if name == "budgeted" and "target" not in settings:
        settings = {"budget": 200, "tests": 3} | settings
    return CRITERIA[name](networks, optimizer, **settings)


def losses(networks, which) -> torch.Tensor:
    return (networks["net"](X[which]) - Y[which]).square().flatten(1).mean(dim=1)


def one_test(selora: SeLoRA, networks, which=slice(0, N), step: int = STEP) -> list[dict]:
    with selora.probe(step):
        losses(networks, which).mean().backward()
    selora.optimizer.step()
    selora.optimizer.zero_grad()
    return selora.expand(step)


def gains(name: str, networks, **settings) -> dict[str, float]:
    records = one_test(make(name, networks, threshold=1e9, **settings), networks)
    return {record["layer"]: record["gain"] for record in records}


def rows_of(networks) -> dict[str, torch.Tensor]:
    """The rows K of the test, drawn anew."""
    generator = torch.Generator().manual_seed(SEED * 1_000_003 + STEP)
    layers = all_lora_layers(networks).items()
    return {name: draw_rows(lora_pair(layer)[0].weight, generator) for (_, name), layer in layers}


def by_sample(networks, which=slice(0, N)) -> dict[str, torch.Tensor]:
    """g_n of each layer, (N, d_out, d_in), from one backward pass per sample to the frozen weights themselves."""
    copy, found = deepcopy(networks), {}
    layers = {name: layer.base_layer.weight.requires_grad_() for (_, name), layer in all_lora_layers(copy).items()}
    for n in range(16)[which]:
        for name, g in zip(layers, grad(losses(copy, slice(n, n + 1)).sum(), [*layers.values()]), strict=True):
            found.setdefault(name, []).append(1.5 * g)
    return {name: torch.stack(gs) for name, gs in found.items()}


def parts(networks, rows=None) -> dict[str, tuple[float, float, float]]:
    """a, b and q of each layer by their definition."""
    rows, found = rows or rows_of(networks), {}
    for name, g in by_sample(networks).items():
        A, B = (side.weight.detach() for side in lora_pair(networks["net"].get_submodule(name)))
        found[name] = tuple((p.square().sum()).item() for p in (g @ A.T, B.T @ g, g @ rows[name].T))
    return found


# ---- the gradient by the weight --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [(), (2,), (40,)], ids=str)  # factors, factors, whole
def test_gradients_of_the_weight_and_what_is_made_of_them(tokens):
    x, d, K = torch.randn(4, *tokens, 7).double(), torch.randn(4, *tokens, 6).double(), torch.randn(1, 7).double()
    whole = 1.5 * torch.einsum("nti,ntj->nij", d.reshape(4, -1, 6), x.reshape(4, -1, 7))
    found = weight_gradients(x, d, 1.5)
    assert torch.is_tensor(found) == (tokens == (40,))
    torch.testing.assert_close(multiply(found), whole)
    torch.testing.assert_close(row_squares(found).sum(), whole.square().sum())
    torch.testing.assert_close(total(found), whole.sum(dim=0))
    torch.testing.assert_close(column_of(found, K), (whole @ K.T)[..., 0])
    of_B, _ = sample_gradients(x, d, torch.randn(3, 7), torch.randn(6, 3), K, 1.5)
    torch.testing.assert_close(last_rows(of_B), column_of(found, K))


# ---- the gains -------------------------------------------------------------------------------------------------------


def test_the_ratio_is_the_papers():
    networks = toy()
    assert gains("ratio", networks) == pytest.approx({k: 1 + q / (a + b) for k, (a, b, q) in parts(networks).items()})


@pytest.mark.parametrize("init", ["kaiming", "peft"])
def test_expected_is_the_mean_over_draws_of_the_row(init):
    networks, draw = toy(), torch.Generator().manual_seed(0)
    found = gains("expected", networks, init=init)
    for name, g in by_sample(networks).items():
        rows = draw_rows(torch.empty(1, g.shape[2]).double(), draw, 1, init)
        rows = torch.cat([rows, *(draw_rows(rows, draw, 1, init) for _ in range(20_000))])
        assert rows.var().item() == pytest.approx(row_variance(g.shape[2], init), rel=0.02)
        mean = (g @ rows.T).square().sum().item() / len(rows)
        a, b, _ = parts(networks)[name]
        assert found[name] - 1 == pytest.approx(mean / (a + b), rel=0.02)


def test_aligned_grows_by_the_leading_direction_of_the_mean_gradient():
    networks = toy()
    whole, before = by_sample(networks), parts(networks)
    selora = make("aligned", networks)
    records = one_test(selora, networks)
    assert all(record["expanded"] for record in records)
    for record in records:
        name, g = record["layer"], whole[record["layer"]]
        row = lora_pair(networks["net"].get_submodule(name))[0].weight[-1].detach()
        leading = torch.linalg.eigh(g.sum(dim=0).T @ g.sum(dim=0))[1][:, -1]
        assert (row @ leading).abs().item() == pytest.approx(row.norm().item())
        assert row.norm().item() == pytest.approx(math.sqrt(2))  # of Kaiming's: variance 2 / d_in
        a, b, _ = before[name]
        assert record["gain"] == pytest.approx(1 + (g @ row).square().sum().item() / (a + b))
    assert {r["layer"]: r["fi_ratio"] for r in records} == pytest.approx(gains("ratio", toy()))


class Noise(nn.Module):
    """A layer whose inputs, and gradients at its output, know nothing of each other."""

    def __init__(self, width_in: int, width_out: int):
        super().__init__()
        self.layer = nn.Linear(width_in, width_out)

    def forward(self, x):
        return self.layer(x)


def noise_gain(name: str, rank: int, spread: float, widths=(48, 96), samples=1024, common=0.0, seed=0) -> dict:
    torch.manual_seed(seed)
    model = Noise(*widths).requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=["layer"]), model)
    nn.init.normal_(lora_pair(model.layer)[1].weight, std=spread)
    if spread == 0:
        nn.init.zeros_(lora_pair(model.layer)[1].weight)
    selora = make(name, {"net": model}, threshold=1e9, seed=seed)
    x, d = torch.randn(samples, widths[0]), torch.randn(samples, widths[1])
    x = x + common * torch.randn(widths[0])
    d = d + common * torch.randn(widths[1])
    with selora.probe(STEP):
        (model(x) * d).sum(dim=1).mean().backward()
    return selora.expand(STEP)[0]


@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0])
def test_null_corrected_is_1_where_gradients_have_no_structure(rank, spread):
    records = [noise_gain("null-corrected", rank, spread, seed=seed) for seed in range(12)]
    gain, ratio = (sum(r[name] for r in records) / len(records) for name in ("gain", "fi_ratio"))
    assert gain == pytest.approx(1, abs=0.12)
    A = 2 * rank if spread == 0 else rank / 3  # |A|^2 as the paper draws it, or, beside a trained B, as PEFT did
    assert ratio == pytest.approx(1 + 2 / (A + rank * 96 * spread**2 * 48 / 96), rel=0.1)  # what norms alone give


def test_the_null_is_of_the_weights_that_were_tested():
    networks = toy()
    (layer, (a, b, q)), *_ = parts(networks).items()
    A, B = (side.weight.detach().square().sum().item() for side in lora_pair(networks["net"].get_submodule(layer)))
    K = rows_of(networks)[layer].square().sum().item()
    null = 1 + K / (A + B * WIDTHS[0] / WIDTHS[1])
    records = one_test(make("null-corrected", networks, rate=0.5), networks)  # the weights are others after the step
    assert records[0]["gain"] == pytest.approx((q / (a + b)) / (null - 1))


@pytest.mark.parametrize("c", [0.2, 3.0])
def test_invariant_is_the_same_for_the_same_model_and_the_ratio_is_not(c):
    networks, scaled = toy(), toy()
    with torch.no_grad():
        for layer in all_lora_layers(scaled).values():
            A, B = (side.weight for side in lora_pair(layer))
            A.mul_(c)
            B.div_(c)
    torch.testing.assert_close(networks["net"](X), scaled["net"](X))
    assert gains("invariant", scaled) == pytest.approx(gains("invariant", networks))
    plain, other = gains("ratio", networks), gains("ratio", scaled)
    assert all(abs(math.log((other[name] - 1) / (plain[name] - 1))) > 0.2 for name in plain)
    for name, (a, b, q) in parts(networks).items():
        A, B = (side.weight.detach().square().sum().item() for side in lora_pair(networks["net"].get_submodule(name)))
        K = rows_of(networks)[name].square().sum().item()
        assert gains("invariant", networks)[name] == pytest.approx(1 + q / K / (2 * (a / A + b / B)))


def test_invariant_takes_a_zero_B_for_nothing():
    assert noise_gain("invariant", rank=1, spread=0.0)["gain"] == pytest.approx(2, rel=0.3)


def test_signal_is_the_squared_mean_over_its_variance():
    networks = toy()
    found = gains("signal", networks)
    for name, g in by_sample(networks).items():
        columns = (g @ rows_of(networks)[name].T)[..., 0]
        assert found[name] == pytest.approx((columns.mean(0).square().sum() / (columns.var(0).sum() / N)).item())


def test_signal_is_1_in_the_mean_of_noise_and_more_where_samples_agree():
    noise = [noise_gain("signal", 1, 0.1, samples=16, seed=seed)["gain"] for seed in range(20)]
    assert sum(noise) / len(noise) == pytest.approx(1, abs=0.12)
    agreed = [noise_gain("signal", 1, 0.1, samples=16, common=1.0, seed=seed)["gain"] for seed in range(20)]
    assert sum(agreed) / len(agreed) > 3


def test_signal_needs_two_samples():
    networks = toy()
    with pytest.raises(ValueError, match="signal needs 2 samples in a test"):
        one_test(make("signal", networks), networks, slice(0, 1))


def test_a_window_sums_the_scores_of_its_steps():
    networks = toy()
    selora = make("ratio", networks, threshold=1e9, window=2)
    found = [one_test(selora, networks, slice(4 * step, 4 * step + 4), step) for step in (1, 2, 3)]
    assert found == [[]] * 3
    once = make("ratio", networks, threshold=1e9)
    with once.probe(STEP):  # the weights do not move here: as one batch of both steps
        for step in (3, 4):
            losses(networks, slice(4 * step, 4 * step + 4) if step < 4 else slice(0, 4)).mean().backward()
    found += [one_test(selora, networks, slice(0, 4), 4)]
    expected = {r["layer"]: r["fi_ratio"] for r in once.expand(STEP)}
    assert {r["layer"]: r["gain"] for r in found[-1]} == pytest.approx(expected)
    assert one_test(selora, networks, slice(0, 4), 5) == []


def test_a_window_within_the_interval():
    with pytest.raises(ValueError, match="window is 5: choose a number of steps from 1 to the interval, 4"):
        make("ratio", toy(), window=5)


# ---- what grows ------------------------------------------------------------------------------------------------------


def test_the_largest_gains_are_bought_first_and_nothing_is_overspent():
    sizes = {("n", name): size for name, size in zip("abcd", (5, 3, 2, 4), strict=True)}
    gain = {("n", name): value for name, value in zip("abcd", (1.0, 9.0, math.nan, 2.0), strict=True)}
    assert spend(gain, sizes, 8) == {("n", "b"), ("n", "d")}
    assert spend(gain, sizes, 6) == {("n", "b")}
    assert spend(gain, sizes, 100) == {("n", "a"), ("n", "b"), ("n", "d")}


def test_a_budget_is_given_out_over_its_tests_and_respected():
    networks = toy()
    sizes, held = {"up": 15, "down": 14}, []
    selora = make("budgeted", networks, interval=1, budget=100, tests=3)
    assert selora.held(["net"]) == 2 * 29
    for step in range(1, 6):
        records = one_test(selora, networks, step=step)
        worth = {r["layer"]: r["gain"] for r in records}
        if sum(r["expanded"] for r in records) == 1:
            best = max(worth, key=worth.get)
            assert {r["layer"]: r["expanded"] for r in records}[best] or sizes[best] > 100 - held[-1]
        held.append(selora.held(["net"]))
        assert held[-1] <= 58 + 42 * min(step, 3) // 3
    assert 100 - 14 < held[-1] <= 100 and held[-1] == held[-2]


def test_budgeted_is_worth_per_parameter():
    networks = toy()
    sizes = {"up": 15, "down": 14}
    expected = {name: q / sizes[name] for name, (_, _, q) in parts(networks).items()}
    assert gains("budgeted", networks) == pytest.approx(expected)


@pytest.mark.parametrize("settings", [{}, {"budget": 57}, {"budget": 100, "tests": 0}], ids=str)
def test_a_budget_that_makes_no_sense_is_refused(settings):
    with pytest.raises(ValueError, match="choose at least 58, what there is, and 1"):
        make("budgeted", toy(), **{"budget": None} | settings)


def test_by_the_ratio_all_is_as_by_selora_bit_for_bit():
    plain, networks, kept = toy(), toy(), toy()
    one = SeLoRA(plain, torch.optim.Adam(trained(plain), lr=1e-2), threshold=1.3, interval=1, seed=SEED)
    two = make("ratio", networks, rate=1e-2, threshold=1.3, interval=1)
    expected = [one_test(one, plain, slice(step, step + 4), step) for step in range(1, 8)]
    found = [one_test(two, networks, slice(step, step + 4), step) for step in range(1, 8)]
    assert [[{**r, "gain": r["fi_ratio"]} for r in records] for records in expected] == found
    assert {r["expanded"] for records in expected for r in records} == {True, False}
    equal(plain, networks)

    sizes, start = {"up": 15, "down": 14}, 58  # and under its own schedule, as many parameters after each test
    grown = [sum(sizes[r["layer"]] for r in records if r["expanded"]) for records in expected]
    three = make("ratio", kept, 1e-2, interval=1, target=lambda step: {("net",): start + sum(grown[:step])})
    assert [one_test(three, kept, slice(step, step + 4), step) for step in range(1, 8)] == found
    equal(plain, kept)


def trained(networks) -> list[nn.Parameter]:
    return [p for model in networks.values() for p in model.parameters() if p.requires_grad]


def equal(one, two) -> None:
    for a, b in zip(one["net"].parameters(), two["net"].parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", CRITERIA)
def test_a_loss_that_is_not_a_number_grows_nothing(name):
    networks = toy()
    selora = make(name, networks)
    with selora.probe(STEP):
        (math.nan * losses(networks, slice(0, 4)).mean()).backward()
    assert not any(record["expanded"] for record in selora.expand(STEP))


@pytest.mark.parametrize("name", CRITERIA)
def test_a_layer_that_no_gradient_reaches_is_judged_too(name):
    networks = toy()
    selora = make(name, networks, threshold=1e9)
    with selora.probe(STEP):
        networks["net"].down(networks["net"].up(X[:4]).detach()).square().mean().backward()
    gain = {r["layer"]: r["gain"] for r in selora.expand(STEP)}
    assert gain["up"] == (0 if name in ("null-corrected", "signal", "budgeted") else 1) < gain["down"]


@pytest.mark.parametrize("name", CRITERIA)
def test_no_criterion_costs_a_forward_or_backward_pass(name):
    networks, calls = toy(), {"forward": 0, "backward": 0}
    selora = make(name, networks, threshold=1e9, window=1)
    for layer in all_lora_layers(networks).values():
        layer.register_forward_hook(lambda *_: calls.update(forward=calls["forward"] + 1))
        lora_pair(layer)[1].weight.register_hook(lambda _: calls.update(backward=calls["backward"] + 1))
    assert one_test(selora, networks, step=STEP - 1) == []
    assert calls == {"forward": 2, "backward": 2}
    assert len(one_test(selora, networks)) == 2
    assert calls == {"forward": 4, "backward": 4}


# ---- a saved state ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 2])
@pytest.mark.parametrize("name", CRITERIA)
def test_a_resumed_test_ends_as_one_that_went_on(name, window, tmp_path):
    def started():
        networks = toy()
        return networks, make(name, networks, rate=1e-2, interval=2, window=window, threshold=1.05)

    def probed(networks, selora, step):
        with selora.probe(step):
            losses(networks, slice(step, step + 4)).mean().backward()
        selora.optimizer.step()
        selora.optimizer.zero_grad()

    networks, selora = started()
    for step in (1, 2, 3):
        probed(networks, selora, step)
        if step < 3:
            selora.expand(step)
    if window == 1:
        selora.expand(3)
        probed(networks, selora, 4)  # between the probe and `expand`
    torch.save([selora.state_dict(), networks["net"].state_dict(), selora.optimizer.state_dict()], tmp_path / "s.pt")
    state, weights, moments = torch.load(tmp_path / "s.pt", weights_only=True)
    again, resumed = started()
    resumed.load_state_dict(state)
    again["net"].load_state_dict(weights)
    resumed.optimizer.load_state_dict(moments)
    for nets, one in ((networks, selora), (again, resumed)):
        if window == 2:  # in the midst of one
            assert one.expand(3) == []
            probed(nets, one, 4)
    assert selora.expand(4) == resumed.expand(4) != []
    equal(networks, again)


def test_a_state_of_another_criterion_or_window_is_refused():
    state = make("expected", toy()).state_dict()
    with pytest.raises(ValueError, match="criterion was Expected when this state was saved and is Signal"):
        make("signal", toy()).load_state_dict(state)
    with pytest.raises(ValueError, match="window was 1"):
        make("expected", toy(), window=2).load_state_dict(state)


# ---- two processes ---------------------------------------------------------------------------------------------------


def shared_growth(which: list[slice]) -> list:
    """All criteria's records and weights, of tests that see some samples each."""
    found = []
    for name in CRITERIA:
        networks = toy()
        selora = make(name, networks, interval=1, target=lambda step: {("net",): 58 + 20 * step})
        records = [
            record for step, part in enumerate(which, start=1) for record in one_test(selora, networks, part, step)
        ]
        found.append([records, [p.flatten().tolist() for p in trained(networks)]])
    return found


def one_of_two(rank: int, folder: Path, port: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "1"}
    from accelerate import PartialState

    PartialState(cpu=True)
    found = shared_growth([slice(2 * rank, 2 * rank + 2), slice(4 + 2 * rank, 6 + 2 * rank)])
    (folder / f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def test_two_processes_grow_the_same_layers_by_the_same_rows_as_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_processes(one_of_two, (tmp_path, port), nprocs=2, start_method="spawn")
    first, second = ((tmp_path / f"{rank}.json").read_text() for rank in (0, 1))
    assert first == second
    for (records, weights), (expected, own) in zip(
        json.loads(first), shared_growth([slice(0, 4), slice(4, 8)]), strict=True
    ):
        assert [r["expanded"] for r in records] == [r["expanded"] for r in expected]
        # a process's loss is the mean over its own half: twice each sample's share
        assert [r["fi_ratio"] for r in records] == pytest.approx([r["fi_ratio"] for r in expected])
        assert all(
            torch.allclose(torch.tensor(a).abs(), torch.tensor(b).abs()) for a, b in zip(weights, own, strict=True)
        )
