"""Fewer ranks for a trained adapter: each layer's product cut to its largest singular values (Eckart, Young, 1936)."""

from dataclasses import replace
from pathlib import Path

import torch

from selora.export.adapter import Pair, read_adapter
from selora.export.formats import other_folder, write

ROUNDING = 1e-14  # of a share of squares: what is smaller is an fp32 weight's last digit


def shrink(source: Path, to: Path, energy: float | None = None, rank: int | None = None) -> list[dict]:
    """Write an adapter anew with fewer ranks, in diffusers' format, with its card.

    Args:
        source: the folder of a run, or any other that holds `pytorch_lora_weights.safetensors`.
        to: the folder to write to.
        energy: the share of each layer's squared singular values to keep, in (0, 1]; 1 keeps all that is not zero.
        rank: the highest rank that a layer keeps; one of energy and rank is given.

    Returns:
        One record a layer: network, layer, old_rank, rank, error, the Frobenius norm of what was lost over that of the
        whole product (0 for a product of zero).

    Raises:
        ValueError: for an energy or a rank that makes no sense, both or neither; and as `export` does.
    """
    check_choice(energy, rank)
    adapter = read_adapter(source)
    layers, records, errors = {}, [], []
    for (network, layer), pair in adapter.layers.items():
        layers[network, layer], error = cut(pair, energy, rank)
        errors.append(error)
        ranks = {"old_rank": len(pair[0]), "rank": len(layers[network, layer][0])}
        records.append({"network": network, "layer": layer, **ranks, "error": error})
    said = {"shrunk_to": f"energy {energy}" if rank is None else f"rank {rank}", "largest_error": max(errors)}
    write(replace(adapter, layers=layers, origin={**adapter.origin, **said}), "diffusers", other_folder(source, to))
    return records


def check_choice(energy: float | None, rank: int | None) -> None:
    """Raise ValueError unless exactly one of the two is given, and makes sense."""
    if (energy is None) == (rank is None):
        raise ValueError("give either an energy, the share to keep, or a rank")
    if energy is not None and not 0 < energy <= 1:
        raise ValueError(f"energy is {energy}: choose a share above 0, up to 1")
    if rank is not None and rank < 1:
        raise ValueError(f"rank is {rank}: choose 1 or more")


def cut(pair: Pair, energy: float | None, rank: int | None) -> tuple[Pair, float]:
    """A (k, d_in) and B (d_out, k) whose product is the best of rank k, and its relative error.

    The product itself, (d_out, d_in), is never made: with B = Q_B R_B and A^T = Q_A R_A its singular values are those
    of R_B R_A^T, (r, r).
    """
    A, B = (side.double() for side in pair)
    (Q_B, R_B), (Q_A, R_A) = torch.linalg.qr(B), torch.linalg.qr(A.T)
    U, S, Vh = torch.linalg.svd(R_B @ R_A.T)
    k = ranks_to_keep(S, energy) if energy is not None else min(rank or 1, len(S))
    root = S[:k].sqrt()
    new = (root[:, None] * Vh[:k] @ Q_A.T).to(pair[0]), (Q_B @ U[:, :k] * root).to(pair[1])
    whole = S.norm().item()
    return new, S[k:].norm().item() / whole if whole else 0.0


def ranks_to_keep(S: torch.Tensor, energy: float) -> int:
    """The fewest singular values, largest first, whose squares are a share `energy` of all; at least one.

    >>> ranks_to_keep(torch.tensor([3.0, 1.0, 0.0]), 0.9), ranks_to_keep(torch.tensor([3.0, 1.0, 0.0]), 1.0)
    (1, 2)
    """
    lost = S.double().square().flip(0).cumsum(0).flip(0)  # by keeping fewer than each: small ones are summed first
    return max(1, int((lost > (1 - energy + ROUNDING) * lost[0]).sum()))
