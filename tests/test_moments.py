"""A grown rank under torch's Adam and AdamW: it moves as a parameter of its own would, of the rank's own age."""

from itertools import product

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from selora.moments import carry_state, count_rows

AGES = {"first": 0, "second": 3, "third": 5}  # steps before each block of rows is born; the rows of each:
ROWS = {"first": 2, "second": 1, "third": 2}
STEPS, WIDTH = 9, 4
OPTIONS = [
    {"foreach": False},
    {"foreach": True},
    {"fused": True},
    {"amsgrad": True, "weight_decay": 0.1},
    {"maximize": True, "betas": (0.5, 0.9)},
]


def block(name: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(name))
    return torch.randn(ROWS[name], WIDTH, generator=generator)


def gradient(step: int, name: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(100 * step + len(name))
    return torch.randn(ROWS[name], WIDTH, generator=generator) * (1 + step)


def apart(make, **options) -> torch.Tensor:
    """Each block a parameter with an optimizer of its own from its birth."""
    parameters = {name: nn.Parameter(block(name)) for name in AGES}
    optimizers = {name: make([p], lr=0.1, **options) for name, p in parameters.items()}
    for step in range(STEPS):
        for name, p in parameters.items():
            if step >= AGES[name]:
                p.grad = gradient(step, name)
                optimizers[name].step()
    return torch.cat(list(parameters.values())).detach()


def grown(make, axis: int, reload_at: int | None = None, **options) -> tuple[torch.Tensor, torch.optim.Optimizer]:
    """One parameter that grows by a block at each birth, along rows (as lora_A) or columns (as lora_B)."""

    def turned(rows: torch.Tensor) -> torch.Tensor:
        return rows.T.contiguous() if axis else rows

    parameter, names = nn.Parameter(turned(block("first"))), ["first"]
    optimizer = make([parameter], lr=0.1, **options)
    count_rows(optimizer)
    for step in range(STEPS):
        for name in [name for name, age in AGES.items() if age == step > 0]:
            new = nn.Parameter(torch.cat([parameter.data, turned(block(name))], dim=axis))
            carry_state(optimizer, parameter, new)
            parameter, names = new, [*names, name]
        if step == reload_at:
            state = optimizer.state_dict()
            optimizer = make([parameter], lr=0.1, **options)
            optimizer.load_state_dict(state)
            for _ in range(2):  # a second controller on one optimizer changes nothing
                count_rows(optimizer)
        parameter.grad = turned(torch.cat([gradient(step, name) for name in names]))
        optimizer.step()
    return turned(parameter.detach()), optimizer


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize(("options", "axis"), list(product(OPTIONS, (0, 1))))
def test_a_grown_rank_moves_as_a_parameter_of_its_own_age(make, options, axis):
    found, optimizer = grown(make, axis, **options)
    torch.testing.assert_close(found, apart(make, **options), rtol=0, atol=2e-6)
    (state,) = optimizer.state.values()
    assert int(state["step"]) == STEPS  # of the parameter; of the rows:
    assert torch.tensor(state["row_steps"]).flatten().tolist() == [9, 9, 6, 4, 4]


def test_a_gate_of_each_rank_counts_as_a_matrix_of_one_column_does():
    found = []
    for shape in ((-1, 1), (-1,)):
        p = nn.Parameter(torch.zeros(2).view(shape))
        optimizer = torch.optim.Adam([p], lr=0.1)
        count_rows(optimizer)
        for step in range(6):
            if step == 3:
                new = nn.Parameter(torch.cat([p.data, torch.zeros(2).view(shape)]))
                carry_state(optimizer, p, new)
                p = new
            p.grad = (torch.arange(len(p)) + 1.0 + step).view(shape)
            optimizer.step()
        found.append(p.detach().flatten())
    assert torch.equal(*found)


def test_without_a_count_of_its_own_a_new_rank_moves_several_times_as_far():
    """The control: under a gradient that stays the same, Adam's first step is lr for each entry."""
    moved = {}
    for counted in (True, False):
        p = nn.Parameter(torch.zeros(1, WIDTH))
        optimizer = torch.optim.Adam([p], lr=1.0)
        if counted:
            count_rows(optimizer)
        for step in range(241):
            if step == 240:
                new = nn.Parameter(torch.cat([p.data, torch.zeros(1, WIDTH)]))
                carry_state(optimizer, p, new)
                before, p = new.detach().clone(), new
            p.grad = torch.ones_like(p)
            optimizer.step()
        moved[counted] = (p.detach() - before).abs().mean(dim=1)
    assert moved[True].tolist() == pytest.approx([1, 1], rel=1e-4)
    assert moved[False].tolist() == pytest.approx([1, 0.1 * ((1 - 0.999**241) / 0.001) ** 0.5], rel=1e-3)  # 1.46


@pytest.mark.parametrize("reload_at", [4, 6])
def test_the_counts_go_with_the_optimizers_own_state(reload_at):
    whole, _ = grown(torch.optim.AdamW, 0)
    torch.testing.assert_close(grown(torch.optim.AdamW, 0, reload_at)[0], whole, rtol=0, atol=0)


def test_a_step_without_gradient_is_none():
    p, q = nn.Parameter(torch.zeros(1, WIDTH)), nn.Parameter(torch.zeros(1, WIDTH))
    optimizer = torch.optim.Adam([p, q])
    count_rows(optimizer)
    p.grad = q.grad = torch.ones(1, WIDTH)
    optimizer.step()
    new = nn.Parameter(torch.cat([p.data, p.data]))
    carry_state(optimizer, p, new)
    before = new.detach().clone()
    optimizer.step()  # q alone has a gradient
    assert torch.equal(new, before) and optimizer.state[new]["row_steps"] == [[1], [0]]


def test_a_step_that_a_scaler_skips_is_none():
    p = nn.Parameter(torch.ones(2, WIDTH))
    optimizer, scaler = torch.optim.Adam([p], fused=True), torch.amp.GradScaler("cpu", init_scale=2.0)
    count_rows(optimizer)
    scaler.scale(p.square().sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    new = nn.Parameter(torch.cat([p.data, p.data]))
    carry_state(optimizer, p, new)
    before = new.detach().clone()
    scaler.scale(new.square().sum() * torch.inf).backward()
    scaler.step(optimizer)  # the kernel itself leaves the weights as they are
    assert torch.equal(new, before)
    assert optimizer.state[new]["row_steps"] == [[1], [1], [0], [0]]


def test_accelerates_wrapper_counts_too():
    p = nn.Parameter(torch.zeros(1, WIDTH))
    wrapped = Accelerator(cpu=True).prepare(torch.optim.AdamW([p]))
    count_rows(wrapped)
    p.grad = torch.ones_like(p)
    wrapped.step()
    new = nn.Parameter(torch.cat([p.data, p.data]))
    carry_state(wrapped, p, new)
    new.grad = torch.ones_like(new)
    wrapped.step()
    assert wrapped.state[new]["row_steps"] == [[2], [1]]


def test_other_optimizers_are_left_alone():
    p = nn.Parameter(torch.zeros(1, WIDTH))
    optimizer = torch.optim.NAdam([p])
    count_rows(optimizer)
    p.grad = torch.ones_like(p)
    optimizer.step()
    new = nn.Parameter(torch.cat([p.data, p.data]))
    carry_state(optimizer, p, new)
    assert "row_steps" not in optimizer.state[new]
