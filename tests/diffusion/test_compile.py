"""torch.compile and growing ranks: the same training, few compilations, and probes that still see."""

from copy import deepcopy

import pytest
import torch
from conftest import attach, mean_loss, random_batch, trainable

from selora import SeLoRA
from selora.adapters import ranks
from selora.diffusion.machine import compile_blocks, compiled_graphs


def grow(base, compiled: bool) -> tuple[list[float], list[dict], dict[str, int]]:
    """Nine steps in which every layer grows at each third: losses, records, and the U-Net's ranks."""
    pipe = deepcopy(base)
    networks = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    torch.manual_seed(0)
    for model in networks.values():
        attach(model, rank=1, alpha=1)
    if compiled:
        compile_blocks(pipe.unet, backend="eager")  # traces and guards as any backend, and needs no compiler
    optimizer = torch.optim.AdamW(trainable(networks), lr=1e-3)
    selora, losses, records = SeLoRA(networks, optimizer, threshold=1.0, interval=3), [], []
    for step in range(1, 10):
        with selora.probe(step):
            loss = mean_loss(networks, random_batch(2, step))
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        records += selora.expand(step)
    return losses, records, ranks(pipe.unet)


def test_compiled_blocks_train_and_grow_as_plain_ones_and_compile_twice(base):
    expected, before = grow(base, compiled=False), compiled_graphs()
    losses, records, grown = grow(base, compiled=True)
    assert losses == pytest.approx(expected[0], rel=1e-4)
    assert [r["fi_ratio"] for r in records] == pytest.approx([r["fi_ratio"] for r in expected[1]], rel=1e-3)
    assert grown == expected[2] and set(grown.values()) == {4}
    assert compiled_graphs() - before == 2, "one graph for rank 1, one for all others"
