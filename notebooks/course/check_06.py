"""Checks of chapter 6."""

from collections.abc import Callable

import torch
from checks import close, verdict
from peft import AdaLoraConfig
from peft.tuners.adalora import RankAllocator
from torch import nn


def exercise_1(soft_threshold: Callable[[torch.Tensor, float], torch.Tensor]) -> bool:
    """The proximal operator of t |z|, against the least value on a fine grid of z."""
    g, grid = torch.linspace(-1.2, 1.2, 25).double(), torch.linspace(-1.5, 1.5, 30_001).double()
    for t in (0.1, 0.45):
        cost = (grid - g[:, None]) ** 2 / 2 + t * grid.abs()
        answer = soft_threshold(g.clone(), t)
        if not close(answer, grid[cost.argmin(dim=1)], tolerance=1e-3):
            return verdict(False, f"at t = {t} some entry is not where (z - g)² / 2 + t |z| is least")
        if int((answer == 0).sum()) != int((g.abs() <= t + 1e-12).sum()):
            return verdict(False, "entries no larger than t have to be exactly 0")
    return verdict(True, "")


def exercise_2(budget: Callable[[int, int, int, int, int], int]) -> bool:
    """AdaLoRA's schedule, against PEFT's own allocator."""
    for first, last, warmup, end, total in ((24, 9, 60, 360, 600), (42, 28, 20, 150, 200)):
        config = AdaLoraConfig(tinit=warmup, tfinal=total - end, total_step=total)
        allocator = RankAllocator(nn.Module(), config, "default")
        allocator.init_bgt, allocator.target_bgt = first, last
        for step in range(1, total + 1):
            answer = budget(step, first, last, warmup, end)
            if answer != (expected := allocator.budget_schedule(step)[0]):
                return verdict(
                    False, f"at step {step} of {total} PEFT keeps {expected} triplets, your budget is {answer}"
                )
    return verdict(True, "")


def exercise_3(least_error: Callable[[torch.Tensor, int], float]) -> bool:
    """The least error at a rank: of other updates of that rank none is better, and one is as good."""
    draw = torch.Generator().manual_seed(3)
    for rows, columns in ((5, 8), (9, 4)):
        delta = torch.randn(rows, columns, generator=draw)
        for b in range(min(rows, columns) + 1):
            answer = least_error(delta, b)
            A = torch.randn(b, columns, generator=draw)
            for _ in range(500):  # alternating least squares: B for this A, then A for this B
                B = delta @ torch.linalg.pinv(A)
                A = torch.linalg.pinv(B) @ delta
            fitted = ((delta - B @ A) ** 2).sum().item()
            if not isinstance(answer, float) or abs(answer - fitted) > 1e-3 * (1 + fitted):
                return verdict(
                    False, f"an adapter of rank {b}, fitted to a {rows} x {columns} update, leaves {fitted:.4f}"
                )
    return verdict(True, "")


def exercise_4(grow_on: Callable[[torch.Tensor, torch.Tensor], bool]) -> bool:
    """A rule that stops at the true rank of layers that are grown rank by rank."""
    draw = torch.Generator().manual_seed(4)
    stops = []
    for true_rank in (1, 2, 3, 5, 7):
        delta = torch.randn(12, true_rank, generator=draw) @ torch.randn(true_rank, 16, generator=draw)
        x = torch.randn(1000, 16, generator=draw)
        y = x @ delta.T + 0.3 * torch.randn(1000, 12, generator=draw)
        errors = [held_out_errors(x, y, rank) for rank in range(13)]
        rank = 1
        while rank < 12 and grow_on(errors[rank], errors[rank + 1]):
            rank += 1
        stops.append((true_rank, rank))
    wrong = [f"{rank} where the true rank is {true}" for true, rank in stops if rank != true]
    small = torch.full((50,), 1.0)
    lucky = small - 0.01 * torch.tensor([11.0, -9.0]).repeat(25)  # a gain far within its own spread
    if not wrong and grow_on(small, lucky):
        return verdict(False, "it takes as real a gain that is smaller than its own standard error")
    return verdict(not wrong, f"your rule stops at rank {', '.join(wrong)}")


def held_out_errors(x: torch.Tensor, y: torch.Tensor, rank: int) -> torch.Tensor:
    """Squared error of each held-out sample, of the best update of a rank that the other half of the samples gives."""
    half = len(x) // 2
    fitted = torch.linalg.lstsq(x[:half], y[:half]).solution  # (d_in, d_out)
    directions = torch.linalg.svd(x[:half] @ fitted, full_matrices=False).Vh[:rank]
    return ((y[half:] - x[half:] @ fitted @ directions.T @ directions) ** 2).mean(dim=1)
