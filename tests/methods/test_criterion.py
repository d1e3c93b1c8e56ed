"""Growth by other criteria on SeLoRA's schedule: as many parameters after every test, in other layers."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from conftest import SETTINGS, mean_loss, random_batch, run, trainable

from selora.adapters import all_lora_layers, trained_tensors
from selora.criteria import spend
from selora.diffusion.method import Earlier
from selora.methods import METHODS, make_method

GROWING = [name for name in METHODS if name.startswith("grow-")]


def sizes_of(networks) -> dict[tuple[str, str], int]:
    return {key: layer.in_features + layer.out_features for key, layer in all_lora_layers(networks).items()}


def spent(records, sizes, network: str, until: int) -> int:
    """Parameters that a network gained by a step."""
    rows = [(r["network"], r["layer"]) for r in records if r["expanded"] and r["step"] <= until]
    return sum(sizes[key] for key in rows if key[0] == network)


@pytest.mark.parametrize("name", GROWING)
def test_each_holds_selora_s_parameters_after_every_test(base, data, earlier, tmp_path, name):
    networks, outcome = run(base, name, data, tmp_path / "c.safetensors", earlier, steps=6, batch_size=5)
    records, sizes = outcome["expansions"], sizes_of(networks)
    assert {r["step"] for r in records} == {2, 4, 6}
    for step in (2, 4, 6):
        for network in networks:
            allowed = spent(earlier["selora"].expansions, sizes, network, step)
            grown = {(r["network"], r["layer"]) for r in records if r["step"] == step and r["expanded"]}
            left = allowed - spent(records, sizes, network, step)
            assert 0 <= left < min(size for key, size in sizes.items() if key[0] == network and key not in grown)
    assert all(r["gain"] is not None and r["b_norm"] >= 0 and r["fi_ratio"] >= 1 for r in records)
    chosen = [(r["step"], r["layer"]) for r in records if r["expanded"]]
    assert sorted(chosen) != sorted((r["step"], r["layer"]) for r in earlier["selora"].expansions)


def test_the_papers_ratio_on_selora_s_schedule_is_selora_bit_for_bit(base, data, tmp_path, monkeypatch):
    plain, outcome = run(base, "selora", data, tmp_path / "a.safetensors")
    settings = METHODS["selora"][1] | SETTINGS["selora"]
    earlier = {"selora": Earlier({"settings": {"method": settings}}, outcome["expansions"], [])}
    monkeypatch.setitem(SETTINGS, "grow-accumulated", {"window": 1})
    networks, again = run(base, "grow-accumulated", data, tmp_path / "b.safetensors", earlier)
    assert [{**r, "gain": r["fi_ratio"]} for r in outcome["expansions"]] == again["expansions"]
    assert {r["expanded"] for r in outcome["expansions"]} == {True, False}
    expected, found = trained_tensors(plain), trained_tensors(networks)
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_a_window_ends_as_it_would_have_where_its_sums_were_saved_halfway(base, earlier):
    def started():
        networks = {"unet": deepcopy(base.unet), "text_encoder": deepcopy(base.text_encoder)}
        method = make_method("grow-accumulated", {"criterion": "signal"}, seed=1, steps=7, earlier=earlier)
        method.attach(networks)
        method.start(networks, torch.optim.SGD(trainable(networks), lr=0.0))
        return networks, method

    def probed(networks, method, step):
        with method.around(step):
            mean_loss(networks, random_batch(3, seed=step)).backward()
        return method.after_step(step)

    (networks, method), (others, again) = started(), started()
    assert method.controller.window == 2  # of 8: no more than there are steps from one test to the next
    assert method.state() == {} and probed(networks, method, 1) == []
    saved = method.state()
    assert all(torch.is_tensor(value) for value in saved.values())
    again.restore(saved)
    found = probed(networks, method, 2)
    assert found == probed(others, again, 2) != []
    assert method.state() == {}


def test_at_stable_diffusions_sizes_parameters_match_within_1_per_cent():
    sizes = dict(enumerate([320 + 320] * 40 + [640 + 2560] * 20 + [1280 + 768] * 30 + [1280 + 10240] * 10))
    draw = torch.Generator().manual_seed(0)
    total = allowed = sum(sizes.values())  # at rank 1
    for _ in range(15):
        allowed += sum(sizes[i] for i in sizes if torch.rand((), generator=draw) < 0.2)
        gains = dict(zip(sizes, torch.rand(len(sizes), generator=draw).tolist(), strict=True))
        total += sum(sizes[i] for i in spend(gains, sizes, allowed - total))
        assert 0.99 * allowed < total <= allowed


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"criterion": "luck"}, "unknown criterion 'luck': choose from ratio, expected"),
        ({"criterion": "aligned", "window": 2}, "no checkpoint holds: set its window to 1"),
    ],
    ids=["criterion", "window"],
)
def test_settings_that_make_no_sense_are_refused(pipe, earlier, settings, message):
    networks = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    method = make_method("grow-expected", settings, seed=1, steps=7, earlier=earlier)
    method.attach(networks)
    with pytest.raises(ValueError, match=message):
        method.start(networks, torch.optim.SGD([p for m in networks.values() for p in m.parameters()], lr=0.1))


def test_a_criterion_starts_from_selora_s_first_A_and_ranks(base, data, earlier, tmp_path):
    settings = {"method": {"rank": 2, "init": "peft", "interval": 2}}
    own = earlier["selora"]
    higher = earlier | {"selora": replace(own, result=own.result | {"settings": settings})}
    networks, outcome = run(base, "grow-signal", data, tmp_path / "c.safetensors", higher, steps=2)
    assert {r["rank"] for r in outcome["expansions"]} == {2, 3}
