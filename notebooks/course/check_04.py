"""Checks of chapter 4: by what a right answer does to matrices and choices drawn at random."""

import torch
from checks import close, verdict


def exercise_1(rank_where_noise_stops) -> bool:
    for threshold in (1.03, 1.15, 1.4, 1.9, 2.5):
        rank = rank_where_noise_stops(threshold)
        if not isinstance(rank, int) or rank < 1:
            return verdict(False, "the function returns a rank, a whole number from 1.")
        if 1 + 1 / rank >= threshold:
            return verdict(False, f"at rank {rank} the ratio {1 + 1 / rank:.3f} still reaches {threshold}.")
        if rank > 1 and 1 + 1 / (rank - 1) < threshold:
            return verdict(False, f"it would have stopped before rank {rank} at {threshold}.")
    return verdict(True, "")


def exercise_2(effective_rank) -> bool:
    draw = torch.Generator().manual_seed(0)
    for true in (0, 1, 3):
        columns, rows = (torch.linalg.qr(torch.randn(9, 9, generator=draw))[0] for _ in range(2))
        strengths = torch.tensor([2.0] * true + [0.01] * (7 - true))  # a product of rank 7, of which `true` count
        A = torch.nn.Parameter(strengths[:, None] * rows[:7])
        B = torch.nn.Parameter(columns[:, :7].clone())
        if not close(effective_rank(A, B, 0.1), true):
            return verdict(
                False, f"a product with {true} singular values of 2 and {7 - true} of 0.01 has a different number."
            )
    return verdict(True, "")


def exercise_3(random_choice) -> bool:
    draw = torch.Generator().manual_seed(0)
    grew = [True, False, False, True, False, False, False, False]
    times = torch.zeros(len(grew))
    for _ in range(400):
        chosen = random_choice(list(grew), draw)
        if not isinstance(chosen, list) or len(chosen) != len(grew):
            return verdict(False, f"the function returns a list of {len(grew)} bools for {len(grew)} layers.")
        if sum(chosen) != sum(grew):
            return verdict(False, f"{sum(grew)} layers grew, and {sum(chosen)} are chosen.")
        times += torch.tensor(chosen, dtype=torch.float32)
    # 100 of 400 are expected at each place, with a standard deviation below 9
    return verdict(bool(((times - 100).abs() < 45).all()), "not all layers are chosen equally often.")


def exercise_4(agreement) -> bool:
    draw = torch.Generator().manual_seed(0)
    A, B, K = torch.randn(2, 6, generator=draw), torch.randn(5, 2, generator=draw), torch.randn(1, 6, generator=draw)
    x, delta = torch.randn(1, 6, generator=draw).repeat(8, 1), torch.randn(1, 5, generator=draw).repeat(8, 1)
    if not close(agreement(x, delta, A, B, K), 8, tolerance=1e-4):
        return verdict(False, "eight samples that are the same should give 8.")
    cancelling = agreement(x, delta * torch.tensor([1.0, -1.0] * 4)[:, None], A, B, K)
    if not abs(cancelling) < 1e-6:
        return verdict(False, f"samples whose errors cancel should give 0, and give {cancelling:.3f}.")
    of_noise = [
        agreement(torch.randn(8, 6, generator=draw), torch.randn(8, 5, generator=draw), A, B, K) for _ in range(400)
    ]
    mean = sum(of_noise) / len(of_noise)
    if not 0.9 < mean < 1.1:
        return verdict(False, f"noise should give 1 on average, and gives {mean:.2f}.")
    x, delta = torch.randn(8, 6, generator=draw), torch.randn(8, 5, generator=draw)
    same = close(agreement(x, 3 * delta, A, B, K), agreement(x, delta, A, B, K), tolerance=1e-4)
    return verdict(same, "with all errors three times as large it gives a different number.")
