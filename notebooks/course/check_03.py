"""Checks of chapter 3: each finds the answer's own score by autograd, one backward pass a sample."""

import torch
from checks import close, verdict
from torch.autograd import grad


def scores(W0, A, B, K, x, target) -> tuple[float, float, float]:
    """FI-Score of a layer, that of its candidate's column of B, and the latter's by the square of the mean gradient."""
    W0, A, B, K, x, target = (torch.tensor(numbers, dtype=torch.float64) for numbers in (W0, A, B, K, x, target))
    A, B, new = A.requires_grad_(), B.requires_grad_(), torch.zeros_like(B[:, :1]).requires_grad_()
    of_each = []
    for x_i, t_i in zip(x, target, strict=True):
        y = W0 @ x_i + B @ (A @ x_i) + new @ (K @ x_i)
        of_each.append(grad(0.5 * (y - t_i).square().sum(), [A, B, new]))
    of_A, of_B, of_new = (torch.stack(found) for found in zip(*of_each, strict=True))
    squares = [g.square().mean(dim=0).sum().item() for g in (of_A, of_B, of_new)]
    return squares[0] + squares[1], squares[2], of_new.mean(dim=0).square().sum().item()


def rows(answer, count: int, length: int) -> bool:
    """Whether an answer is so many rows of so many finite numbers, as a list."""
    try:
        found = torch.tensor(answer, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return False
    return found.shape == (count, length) and bool(found.isfinite().all())


def exercise_1(K, W0, A, B, x, target) -> bool:
    if not rows(K, 1, len(x[0])):
        return verdict(False, f"K is one row of {len(x[0])} numbers, as [[a, b, c]].")
    size = sum(value**2 for value in K[0])
    if size < 1e-12:
        return verdict(False, "K must not be zero.")
    original, candidate, _ = scores(W0, A, B, K, x, target)
    ratio = 1 + candidate / size / original  # of a K of length 1: a tiny one would be no answer
    return verdict(ratio < 1 + 1e-9, f"its direction, at length 1, has the FI-Ratio {ratio:.6f}.")


def exercise_2(row_with_ratio) -> bool:
    draw = torch.Generator().manual_seed(0)
    for wanted in (1.02, 1.5, 7.0):
        W0, A, B, K, x, target = (
            torch.randn(size, generator=draw, dtype=torch.float64)
            for size in ((4, 5), (2, 5), (4, 2), (1, 5), (3, 5), (3, 4))
        )

        def ratio(row, rest=(W0, A, B), data=(x, target)):
            original, candidate, _ = scores(*(t.tolist() for t in (*rest, row, *data)))
            return 1 + candidate / original

        found = row_with_ratio(K, ratio(K), wanted)
        if not torch.is_tensor(found) or found.shape != K.shape:
            return verdict(False, "the function returns a tensor of K's shape.")
        if not close(found / found.norm(), K / K.norm()):
            return verdict(False, "the row has to keep K's direction.")
        if not close(ratio(found), wanted):
            return verdict(False, f"on a random layer {wanted} was wanted and {ratio(found):.6f} came out.")
    return verdict(True, "")


def exercise_3(candidate_score) -> bool:
    draw = torch.Generator().manual_seed(0)
    x, delta, K = (torch.randn(size, generator=draw, dtype=torch.float64) for size in ((4, 6, 5), (4, 6, 3), (1, 5)))
    expected = torch.zeros(())
    for x_i, delta_i in zip(x, delta, strict=True):
        new = torch.zeros(3, 1, dtype=torch.float64, requires_grad=True)
        (gradient,) = grad(x_i @ K.T @ new.T, new, delta_i)
        expected = expected + gradient.square().sum() / len(x)
    found = candidate_score(x, delta, K)
    if close(found, (x @ K.T * delta).square().sum() / len(x)):
        return verdict(False, "that squares each token by itself; the gradient of a sample is a sum over its tokens.")
    if close(found, len(x) * expected):
        return verdict(False, "nearly: Eq. 3 is a mean over samples, not a sum.")
    return verdict(close(found, expected), "autograd, one backward pass per sample, finds a different number.")


def exercise_4(target, W0, A, B, K, x) -> bool:
    if not rows(target, len(x), len(W0)):
        return verdict(False, f"targets are {len(x)} rows of {len(W0)} numbers, as [[a, b], [c, d]].")
    _, candidate, of_mean = scores(W0, A, B, K, x, target)
    if candidate < 1e-6:
        return verdict(False, "by Eq. 3 too the new column has no information: the errors must not be zero.")
    return verdict(
        of_mean < 1e-12 * candidate, f"the new column scores {candidate:.4f} by Eq. 3 and {of_mean:.4f} by the mean."
    )
