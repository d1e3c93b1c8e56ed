"""Which layers stand where in the rank maps."""

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg

from selora.figures.ranks import (
    ablation_curves,
    agreement,
    by_place,
    group,
    rank_map,
    ranks_over_steps,
    ranks_over_time,
    threshold_maps,
)


def test_maps_follow_the_signal_and_part_the_kinds_of_attention():
    """A U-Net lists its middle last; the map must not."""
    places = [f"{where}.attentions.0.transformer_blocks.0" for where in ("down_blocks.0", "up_blocks.0", "mid_block")]
    layers = [f"{place}.{kind}" for place in places for kind in ("attn1.to_q", "ff.net.2", "attn2.to_q")]
    kinds = [layer.partition("transformer_blocks.0.")[2] for layer in layers]
    ranks = pd.DataFrame({"network": "unet", "layer": layers, "kind": kinds, "rank": range(1, 10)})
    both = pd.concat([ranks.assign(seed=0), ranks.assign(seed=1, rank=ranks["rank"] + 1)])
    table = by_place(both)
    assert list(table.index) == ["attn1.to_q", "attn2.to_q", "ff.net.2"]
    assert list(table.loc["attn1.to_q"]) == [1.5, 7.5, 4.5]
    assert [group(kind) for kind in table.index] == ["self-attention", "cross-attention", "other"]


def test_a_map_has_each_rank_in_its_cell_the_first_kind_above():
    """Against the table itself; a layer that is not there leaves its cell empty, and two seeds show a digit more."""
    ranks = pd.DataFrame(
        {"network": "unet", "layer": list("abc"), "kind": ["attn1.to_q", "attn1.to_q", "ff.net.2"], "rank": [1, 2, 4]}
    )
    for seeds, shown in (((0,), ["1", "2", "4"]), ((0, 1), ["1.5", "2.5", "4.5"])):
        several = pd.concat([ranks.assign(seed=seed, rank=ranks["rank"] + seed) for seed in seeds])
        figure = rank_map(several, "")
        figure.canvas.draw()
        axis = figure.axes[0]
        assert [text.get_text() for text in axis.texts] == shown
        rows = [label.get_text().split()[0] for label in axis.get_yticklabels()]
        height = {name: label.get_window_extent().y0 for name, label in zip(rows, axis.get_yticklabels(), strict=True)}
        assert height["attn1.to_q"] > height["ff.net.2"]
        for text in axis.texts:
            column, row = (int(x) for x in text.get_position())
            assert by_place(several).iloc[row, column] == float(text.get_text())
            assert abs(text.get_window_extent().y0 - height[rows[row]]) < 10
        assert len(shown) == axis.collections[0].get_array().count()


def test_maps_are_drawn_once_when_they_are_saved(monkeypatch):
    """Drawn once for each map in it, a figure of 32 maps took half a minute."""
    drawn = []
    monkeypatch.setattr(FigureCanvasAgg, "draw", lambda canvas: drawn.append(canvas))
    ranks = pd.DataFrame({"network": "unet", "layer": list("abc"), "kind": list("abc"), "rank": [1, 2, 4]})
    threshold_maps({1 + i / 10: ranks for i in range(8)}, "")
    assert not drawn


def test_agreement_of_two_thresholds_maps():
    ranks = pd.DataFrame({"network": ["unet"] * 4, "layer": list("abcd"), "rank": [1, 2, 3, 4]})
    maps = {1.1: ranks, 1.2: ranks.assign(rank=[1, 2, 3, 5]), 1.3: ranks.assign(rank=[4, 3, 2, 1])}
    table = agreement(maps).loc["U-Net"]
    assert np.allclose(table.to_numpy(), [[1, 1, -1], [1, 1, -1], [-1, -1, 1]])


def test_ranks_over_steps_start_at_1_and_the_thick_line_is_the_layers_mean():
    tests = [
        {"network": net, "layer": f"{net}{i}", "kind": kind, "step": step, "seed": seed, "rank": 1 + step * i + seed}
        for net, kind in (("unet", "attn1.to_q"), ("text_encoder", "fc1"))
        for i in (0, 1, 2)
        for step in (5, 10)
        for seed in (0, 1)
    ]
    panels = {axis.get_title(): axis for axis in ranks_over_steps(pd.DataFrame(tests), "").axes}
    assert list(panels) == ["text encoder: fc1", "U-Net: attn1.to_q"]
    for axis in panels.values():
        *layers, mean = (line.get_xydata() for line in axis.lines if len(line.get_xdata()))
        assert np.allclose(layers, [[[0, 1], [5, 1.5 + 5 * i], [10, 1.5 + 10 * i]] for i in (0, 1, 2)])
        assert np.allclose(mean, np.mean(layers, axis=0))


def test_the_ablation_has_a_panel_for_each_figure_that_was_measured():
    names = ("unet_params", "text_encoder_params", "kid", "clip", "train_seconds", "unet_mean_rank")
    table = pd.DataFrame({name: [3.0, 2.0] for name in names} | {"text_encoder_mean_rank": 1.0, "auroc": np.nan})
    figure = ablation_curves(table.assign(dataset="iu-drr", threshold=[1.1, 1.0]))
    assert [axis.get_title() for axis in figure.axes] == [
        "KID x 1000 ↓", "CLIP score ↑", "trainable parameters", "training, seconds (median)",
        "mean rank, U-Net", "mean rank, text encoder",
    ]  # fmt: skip
    line = figure.axes[2].lines[0]
    assert line.get_xdata().tolist() == [1.0, 1.1]  # where the thresholds lie, not one after the other
    assert line.get_ydata().tolist() == [4, 6]  # both networks together


def test_the_scale_of_the_maps_ends_where_ranks_still_differ():
    """At a threshold of 1 all layers have one rank, which would darken all other maps."""
    ranks = pd.DataFrame({"network": "unet", "layer": list("abc"), "kind": list("abc"), "rank": [1, 2, 4]})
    figure = threshold_maps({1.0: ranks.assign(rank=16), 1.1: ranks}, "")
    assert {tuple(axis.collections[0].get_clim()) for axis in figure.axes[:2]} == {(1, 4)}
    assert threshold_maps({1.0: ranks.assign(rank=16)}, "").axes[0].collections[0].get_clim() == (1, 16)


def test_ranks_over_time_show_the_threshold():
    tests = pd.DataFrame({"network": "unet", "step": [5, 5, 10, 10], "rank": 2, "fi_ratio": [1.2, 1.4, 1.0, 1.1]})
    _, bottom = ranks_over_time(tests, 1.05, "").axes
    ratios, threshold = bottom.lines
    assert np.allclose(ratios.get_ydata(), [1.3, 1.05]) and set(threshold.get_ydata()) == {1.05}
