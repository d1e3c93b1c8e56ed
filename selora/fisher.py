"""Fisher scores (Eq. 3 and 4 of the paper) of a LoRA layer, from what its ordinary backward pass shows anyway.

A LoRA layer adds `s * B A x` to its output. For one sample with T tokens, inputs X (T, d_in) and loss gradients at the
layer's output D (T, d_out), the gradients of that sample's loss are

    dL/dB = s D^T (X A^T)   (d_out, r)        dL/dA = s (D B)^T X   (r, d_in)

and a candidate row K of A, whose column of B is zero, has `dL/d(its column of B) = s D^T (X K^T)`, while K itself gets
no gradient, since its column of B is zero. (The paper says it the other way round.) So the scores of the layer as it
is, and as it would be with the candidate, need no forward or backward pass of their own.
"""

from typing import TypeAlias

import torch

# Gradients of one matrix by sample, (N, rows, columns): as they are, or as two factors (N, T, rows), (N, T, columns)
# whose product over the tokens they are. Factors are smaller, and cheaper to square, where tokens are fewer than rows.
Gradients: TypeAlias = torch.Tensor | tuple[torch.Tensor, torch.Tensor]


@torch.no_grad()
def sample_gradients(
    x: torch.Tensor, d: torch.Tensor, A: torch.Tensor, B: torch.Tensor, K: torch.Tensor, scaling: float
) -> list[Gradients]:
    """Per-sample gradients of one LoRA layer, in one pass over it.

    Args:
        x: inputs of the layer, (N, ..., d_in); an input without a token axis, (N, d_in), counts as one token.
        d: gradient of the loss at the layer's output, (N, ..., d_out).
        A: `lora_A.weight`, (r, d_in).
        B: `lora_B.weight`, (d_out, r).
        K: candidate row of A, (1, d_in).
        scaling: PEFT's `scaling` of the layer (alpha / r).

    Returns:
        The gradients of B^T, its last row the candidate's, (N, r + 1, d_out), and of A, (N, r, d_in); float32 or finer.
    """
    x, d = by_tokens(x, d)
    hidden = scaling * (x @ torch.cat([A, K]).to(x.dtype).T)  # (N, T, r + 1)
    factors = [(hidden, d), (scaling * (d @ B.to(x.dtype)), x)]
    return factors if x.shape[1] < len(A) else [multiply(pair) for pair in factors]


def by_tokens(x: torch.Tensor, d: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs (N, ..., d_in) and output gradients (N, ..., d_out) as (N, T, d_in) and (N, T, d_out), in x's precision
    or, where that is coarser, float32."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    return x.reshape(len(x), -1, x.shape[-1]).to(dtype), d.reshape(len(d), -1, d.shape[-1]).to(dtype)


def multiply(gradients: Gradients) -> torch.Tensor:
    """Gradients by sample as one tensor, (N, rows, columns)."""
    return gradients if torch.is_tensor(gradients) else gradients[0].mT @ gradients[1]


def add_gradients(one: list[Gradients], two: list[Gradients]) -> list[Gradients]:
    """The sums of the gradients of two calls, or two backward passes, of the same samples."""
    return [multiply(a) + multiply(b) for a, b in zip(one, two, strict=True)]


def row_squares(gradients: Gradients) -> torch.Tensor:
    """Squared gradients, summed over samples and columns: (rows,)."""
    if isinstance(gradients, torch.Tensor):
        return gradients.square().sum(dim=(0, 2))
    left, right = gradients
    gram = right @ right.mT  # (N, T, T): the columns never meet the rows (the 'ghost norm' of private training)
    return (left * (gram @ left)).sum(dim=(0, 1)).clamp(min=0)  # rounding may leave a zero below zero


def score(gradients: list[Gradients]) -> torch.Tensor:
    """What `sample_gradients` gave, squared and summed over samples: (2,), A and B, and the candidate's column of B."""
    of_B, of_A = (row_squares(part) for part in gradients)
    return torch.stack([of_B[:-1].sum() + of_A.sum(), of_B[-1]])


def squared_gradients(
    x: torch.Tensor, d: torch.Tensor, A: torch.Tensor, B: torch.Tensor, K: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Squared per-sample gradients of one LoRA layer, summed over all entries and all samples.

    Where the loss is the mean of N samples' losses, a sample's own gradient is N times what reaches `d`, so N times the
    returned sums are the FI-Scores of Eq. 4 (Eq. 3 takes the mean of N squares, each N^2 times larger). The factor
    cancels in the FI-Ratio. Arguments as in `sample_gradients`.

    Returns:
        (2,): the sum for A and B, and the sum for the candidate's column of B; float32 or finer.
    """
    return score(sample_gradients(x, d, A, B, K, scaling))


def fi_ratio(original: float, candidate: float) -> float:
    """FI-Ratio (Eq. 5) of the expanded layer to the original one: `(original + candidate) / original`.

    The paper prints the inverse, which can never exceed 1, since the expanded score is the original score plus squares;
    expanded over original is what its text and its released code mean. A layer that no gradient reaches (0 / 0) has
    nothing to gain and gets 1; one that only the candidate could move gets infinity.

    >>> fi_ratio(2.0, 0.5), fi_ratio(0.0, 0.0), fi_ratio(0.0, 0.5)
    (1.25, 1.0, inf)
    """
    if original == 0:
        return 1.0 if candidate == 0 else float("inf")
    return 1.0 + candidate / original


# ---- the gradient by the layer's weight, of which the others are made (`selora.criteria`) ----------------------------


@torch.no_grad()
def weight_gradients(x: torch.Tensor, d: torch.Tensor, scaling: float) -> Gradients:
    """g_n = s D_n^T X_n by sample, of inputs x (N, ..., d_in) and output gradients d (N, ..., d_out): as factors where
    tokens are so few that these are smaller, and cheaper to square."""
    x, d = by_tokens(x, d)
    pair = (scaling * d, x)
    rows, columns = d.shape[-1], x.shape[-1]
    return pair if x.shape[1] * (rows + columns) < rows * columns else multiply(pair)


def total(gradients: Gradients) -> torch.Tensor:
    """The sum over samples, (rows, columns)."""
    if isinstance(gradients, torch.Tensor):
        return gradients.sum(dim=0)
    left, right = gradients
    return left.flatten(0, 1).T @ right.flatten(0, 1)


def column_of(gradients: Gradients, row: torch.Tensor) -> torch.Tensor:
    """g_n K^T of a row K (1, d_in): (N, d_out)."""
    if isinstance(gradients, torch.Tensor):
        return (gradients @ row.T.to(gradients))[..., 0]
    left, right = gradients
    return (left.mT @ (right @ row.T.to(right)))[..., 0]


def last_rows(gradients: Gradients) -> torch.Tensor:
    """The candidate's gradients by sample, (N, d_out), of those of B^T."""
    if isinstance(gradients, torch.Tensor):
        return gradients[:, -1]
    left, right = gradients
    return (left[..., -1:].mT @ right)[:, 0]
