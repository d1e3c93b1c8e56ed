"""The controls of notebook 11 on a handful of images and on numbers whose answer is known."""

import dataclasses

import numpy as np
import pytest
import torch

from selora.analysis.controls import (
    DEGRADATIONS,
    alignments,
    bias_curve,
    closest_pairs,
    degradations,
    findings_table,
    flips,
    ladder,
    nearest,
)
from selora.analysis.image_sets import load_image_sets
from selora.diffusion.base import load_base
from selora.files import write_json
from selora.scoring.classifier import load_classifier
from selora.scoring.clip import CLIP
from selora.scoring.encoders import features, make_encoder
from selora.study.profiles import load_profile
from selora.study.results import Run


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """iu-drr as smoke sees it, without any run; the reference twice as if two methods had made it."""
    found = load_image_sets(load_profile("smoke"), "iu-drr", tmp_path_factory.mktemp("results"))
    assert found.generated == {}
    found.generated["copies"] = found.images[found.train[:8]]
    return found


@pytest.fixture(scope="module")
def encoder():
    return make_encoder("efficientnet-lite0")


@pytest.fixture(scope="module")
def found(sets, encoder):
    """Features of all images."""
    return features(encoder, sets.images)


def test_degradations_leave_little_at_first_and_much_at_last(sets):
    images = sets.images[sets.test]
    for degrade, strengths in DEGRADATIONS.values():
        changes = [np.abs(degrade(images, s).astype(float) - images).mean() for s in strengths]
        assert all(a < b for a, b in zip(changes, changes[1:], strict=False))
        assert 0 < changes[0] < 10 < changes[-1]


def test_every_damage_ranks_worse_than_none_in_its_order(sets, encoder, found):
    table = degradations(found[sets.test], sets.images[sets.others], encoder)
    for _, rows in table.groupby("degradation"):
        assert rows.sort_values("level").fid.is_monotonic_increasing
        assert rows.kid.iloc[-1] > rows.kid.iloc[0]


def test_fid_of_a_gaussian_with_the_sets_covariance_is_biased_alike():
    features = torch.randn(400, 24, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.linspace(0.1, 2, 24))
    curve = bias_curve(features, (20, 80, 160, 300), draws=4)
    assert sorted(curve.n.unique()) == [20, 80, 160]  # 300 has no two disjoint samples among 400
    fid = curve.groupby(["set", "n"]).fid.mean()
    for name in ("images", "Gaussian"):
        assert fid[name, 20] > 2 * fid[name, 80] > 2 * fid[name, 160] > 0
    assert fid["Gaussian", 80] == pytest.approx(fid["images", 80], rel=0.25)
    assert abs(curve.kid.mean()) < 0.2 * curve.fid.mean()


def test_copies_of_training_images_are_found(sets, encoder, found):
    table = nearest(sets, found, encoder)
    copies = table[table.images == "copies"]
    assert (copies.distance < 1e-2).all() and list(copies.train) == list(sets.train[:8])
    assert table[table.images == "reference"].distance.min() > 1
    pairs = closest_pairs(sets, table, "copies", count=2)
    assert all(np.array_equal(a, b) for a, b in zip(*pairs.values(), strict=True))


def test_mirroring_moves_the_sides(sets):

    many = dataclasses.replace(sets, test=np.arange(len(sets.examples)))
    table = flips(many, load_classifier()).set_index("finding")
    for finding in ("atelectasis", "pleural effusion", "calcified granuloma"):
        assert table.loc[finding, "as they are"] > 0.9
        assert table.loc[finding, "mirrored"] < 0.1


def test_shuffled_prompts_score_below_right_ones(sets):

    table = alignments(sets, CLIP("data/mini-clip")).set_index("images")
    assert table.right["reference"] > table.shuffled["reference"]
    assert table.right["reference"] > table.right["copies"]  # real images, but of other prompts


def test_the_ladder_begins_at_real_vs_real_and_has_the_runs_own_scores(sets, encoder, found):
    run = {name: 0.5 for name in ("fid", "kid", "kid_error", "precision", "recall", "density", "coverage")}
    recorded = dataclasses.replace(sets, results={"lora": run | {"clip": 1.0}})
    table = ladder(recorded, found, found[sets.train], encoder, load_base("data/mini-sd").vae)
    real, limit, method, other = table.index
    assert real.startswith("real vs real") and limit.startswith("autoencoder limit")
    assert (method, other) == ("lora", "the other data set")
    assert run.keys() == set(table.columns) and set(table.loc["lora"]) == {0.5}


def test_samples_that_are_missing_are_said_and_the_record_is_read(tmp_path, capsys):
    """As of published runs, which have few samples."""
    run = Run(load_profile("smoke"), "iu-drr", "lora", 0, tmp_path)
    write_json(run.record, {"kid": 0.1})
    found = load_image_sets(run.profile, "iu-drr", tmp_path)
    assert found.generated == {} and found.results == {"lora": {"kid": 0.1}}
    assert "iu-drr, lora: 8 of 8 samples are not here" in capsys.readouterr().out


def test_findings_stand_beside_those_of_the_reference(sets):

    record = {"finding": "nodule", "n": 9, "auroc": 0.9, "low": 0.8, "high": 1.0}
    run = {name: {"findings": [record]} for name in ("reference", "ceiling")} | {"findings": [record | {"auroc": 0.6}]}
    table = findings_table(dataclasses.replace(sets, results={"lora": run}))
    assert list(table.images) == ["reference", "reconstruction", "lora"] and table.auroc.iloc[2] == 0.6
    assert len(findings_table(sets)) == 0
