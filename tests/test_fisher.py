"""Fisher scores from one backward pass, against autograd on each sample by itself."""

import math

import pytest
import torch
from torch import nn
from torch.autograd import grad

from selora.fisher import fi_ratio, squared_gradients

SAMPLES, IN, OUT, RANK, SCALING = 5, 7, 6, 3, 1.7


def random_layer(rank: int = RANK) -> tuple[torch.Tensor, ...]:
    """W0, A, B (not zero), and a candidate row K."""
    return torch.randn(OUT, IN), torch.randn(rank, IN), torch.randn(OUT, rank), torch.randn(1, IN)


def forward(x: torch.Tensor, W: torch.Tensor, A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    return x @ W.T + SCALING * x @ A.T @ B.T


def sample_losses(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """One loss per sample, not quadratic in the output, so that its gradient depends on the weights."""
    return (output.sin() * target + output**3).flatten(1).mean(dim=1)


def one_backward_per_sample(x, target, W, A, B) -> torch.Tensor:
    """Squared gradients of A and B of each sample's own loss, summed over entries and samples."""
    A, B = A.clone().requires_grad_(), B.clone().requires_grad_()
    total = torch.zeros(())
    for n in range(len(x)):
        loss = sample_losses(forward(x[n : n + 1], W, A, B), target[n : n + 1]).sum()
        total += sum(g.square().sum() for g in grad(loss, [A, B]))
    return total


def from_one_backward(x, target, W, A, B, K) -> torch.Tensor:
    output = forward(x, W, A, B).requires_grad_()
    (d,) = grad(sample_losses(output, target).mean(), [output])
    return len(x) ** 2 * squared_gradients(x, d, A, B, K, SCALING)  # the mean's 1 / N is in every gradient


# more tokens than rows, fewer, one, none, and an image-like input; the order of the products may depend on the sizes
@pytest.mark.parametrize("tokens", [(), (1,), (4,), (40,), (3, 4)], ids=str)
@pytest.mark.parametrize("rank", [1, 3, 9])
def test_the_scores_equal_one_backward_per_sample(tokens, rank):
    torch.manual_seed(0)
    W, A, B, K = random_layer(rank)
    x, target = torch.randn(SAMPLES, *tokens, IN), torch.randn(SAMPLES, *tokens, OUT)
    original = one_backward_per_sample(x, target, W, A, B)
    expanded = one_backward_per_sample(x, target, W, *grown(A, B, K))

    scores = from_one_backward(x, target, W, A, B, K)
    assert torch.allclose(scores[0], original, rtol=1e-5)
    assert torch.allclose(scores.sum(), expanded, rtol=1e-5)  # the candidate's share is what growth adds
    assert torch.allclose(scores[1], expanded - original, rtol=1e-4)  # a difference: less exact


def grown(A: torch.Tensor, B: torch.Tensor, K: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([A, K]), torch.cat([B, torch.zeros(len(B), 1)], dim=1)


def test_the_gradient_reaches_the_new_column_of_B_and_not_K():
    """The paper says it the other way round."""
    torch.manual_seed(0)
    W, A, B, K = random_layer()
    A, B = (t.requires_grad_() for t in grown(A, B, K))
    to_A, to_B = grad(
        sample_losses(forward(torch.randn(SAMPLES, IN), W, A, B), torch.randn(SAMPLES, OUT)).mean(), [A, B]
    )
    assert (to_A[-1] == 0).all()
    assert (to_B[:, -1] != 0).all()
    assert (to_A[:-1] != 0).all()


def test_squares_are_taken_before_the_mean_over_samples():
    """Two samples with opposite gradients: the square of the batch's mean gradient, the released code's score, is 0."""
    torch.manual_seed(0)
    _, A, B, K = random_layer()
    x, d = torch.randn(1, 4, IN).repeat(2, 1, 1), torch.randn(1, 4, OUT)
    d = torch.cat([d, -d])
    assert ((d.flatten(0, 1).T @ x.flatten(0, 1)).abs() < 1e-5).all()  # the batch's gradient at W0 vanishes
    assert (squared_gradients(x, d, A, B, K, SCALING) > 1).all()


def test_half_precision_is_summed_in_single():
    torch.manual_seed(0)
    _, A, B, K = random_layer()
    x, d = torch.randn(SAMPLES, 4, IN).bfloat16(), (1e-3 * torch.randn(SAMPLES, 4, OUT)).bfloat16()
    exact = squared_gradients(x.float(), d.float(), A, B, K, SCALING)
    scores = squared_gradients(x, d, A, B, K, SCALING)
    assert scores.dtype == torch.float32
    assert torch.allclose(scores, exact, rtol=1e-5)


def test_the_scores_build_no_graph():
    W, A, B, K = random_layer()
    assert not squared_gradients(torch.randn(2, IN), torch.randn(2, OUT), A.requires_grad_(), B, K, 1.0).requires_grad


def test_the_ratio_is_expanded_over_original():
    assert fi_ratio(original=4.0, candidate=1.0) == 1.25  # the paper prints the inverse
    assert fi_ratio(0.0, 0.0) == 1.0  # no gradient reaches the layer
    assert fi_ratio(0.0, 1.0) == math.inf


def test_the_ratio_is_never_below_1():
    torch.manual_seed(0)
    for draw in range(50):
        _, A, B, K = random_layer(rank=1 + draw % 4)
        x, d = torch.randn(2, 3, IN), 10.0 ** (draw % 7 - 3) * torch.randn(2, 3, OUT)
        B = B * (draw % 3 == 0)  # B off zero, and at its start
        assert fi_ratio(*squared_gradients(x, d, A, B, K, SCALING).tolist()) >= 1


def mean_null_ratio(rank: int, gain: float) -> float:
    """Mean FI-Ratio at B = 0 where inputs and gradients are noise, with A as PEFT draws it and K by another gain."""
    torch.manual_seed(0)
    width, ratios = 256, []
    for _ in range(40):
        A, K = torch.empty(rank, width), torch.empty(1, width)
        nn.init.kaiming_uniform_(A, a=math.sqrt(5))
        nn.init.kaiming_uniform_(K, a=gain)
        x, d = torch.randn(256, width), torch.randn(256, 4)
        ratios.append(fi_ratio(*squared_gradients(x, d, A, torch.zeros(4, rank), K, 1.0).tolist()))
    return sum(ratios) / len(ratios)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_on_unstructured_data_the_ratio_is_near_1_plus_1_over_r(rank):
    assert mean_null_ratio(rank, gain=math.sqrt(5)) == pytest.approx(1 + 1 / rank, rel=0.05)


def test_a_candidate_with_another_gain_gives_another_ratio():
    """The control of the test above: Kaiming with a = 0 has 6 times the variance."""
    assert mean_null_ratio(1, gain=0) == pytest.approx(7, rel=0.1)
