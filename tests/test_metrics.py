"""FID and KID against their definitions in a few lines of numpy; the encoder against its declared shape."""

import pickle
import sys

import numpy as np
import pytest
import scipy.linalg
import torch

from selora.encoders import ENCODERS, features, make_encoder, weights_of_pickled
from selora.metrics import auroc, auroc_interval, fid, finding_auroc, kid, kid_error, ms_ssim_within, prdc


def two_sets(shift: float):
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(6, 6, generator=generator)
    return torch.randn(40, 6, generator=generator) @ mixing, torch.randn(40, 6, generator=generator) + shift


def test_fid_is_the_frechet_distance_of_two_gaussians():
    a, b = two_sets(0.5)
    (x, y), (s, t) = [f.double().numpy() for f in (a, b)], [np.cov(f.double().numpy().T) for f in (a, b)]
    root = scipy.linalg.sqrtm(s @ t).real
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(s + t - 2 * root)
    assert np.isclose(fid(a, b), expected, rtol=1e-5)


def test_kid_is_the_unbiased_squared_mmd_of_the_cubic_kernel():
    a, b = (f.double().numpy() for f in two_sets(0.5))
    n = len(a)

    def kernel(x, y):
        return (x @ y.T / x.shape[1] + 1) ** 3

    within = sum((kernel(x, x).sum() - np.trace(kernel(x, x))) / (n * (n - 1)) for x in (a, b))
    expected = within - 2 * kernel(a, b).mean()
    assert np.isclose(kid(torch.from_numpy(a), torch.from_numpy(b)), expected, rtol=1e-5)


def test_both_grow_with_the_shift():
    near, far = two_sets(0.1), two_sets(2.0)
    assert fid(*near) < fid(*far)
    assert kid(*near) < kid(*far)


def test_encoders_have_their_declared_width_and_see_differences():
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    for name in (name for name, (encoder, _) in ENCODERS.items() if encoder.offline):
        network = make_encoder(name)
        found = features(network, images, batch_size=2)
        assert found.shape == (3, network.num_features)
        assert torch.isfinite(found).all()
        assert (found[0] - found[1]).abs().max() > 1e-3
        assert torch.allclose(found, features(network, images, batch_size=3), atol=1e-4)


def test_precision_recall_density_coverage_as_defined_ball_by_ball():
    a, b = (f.double().numpy() for f in two_sets(1.0))
    k = 5

    def balls(points):
        distances = np.linalg.norm(points[:, None] - points[None], axis=2)
        return np.sort(distances, axis=1)[:, k]  # the first is the point itself

    between = np.linalg.norm(a[:, None] - b[None], axis=2)
    expected = {
        "precision": np.mean([any(between[i, j] < balls(a)[i] for i in range(len(a))) for j in range(len(b))]),
        "recall": np.mean([any(between[i, j] < balls(b)[j] for j in range(len(b))) for i in range(len(a))]),
        "density": sum(between[i, j] < balls(a)[i] for i in range(len(a)) for j in range(len(b))) / k / len(b),
        "coverage": np.mean([any(between[i, j] < balls(a)[i] for j in range(len(b))) for i in range(len(a))]),
    }
    assert prdc(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(expected)


def test_kids_standard_error_is_near_its_scatter_over_fresh_samples():
    generator = torch.Generator().manual_seed(0)
    pairs = [
        (torch.randn(60, 4, generator=generator), 0.5 + torch.randn(60, 4, generator=generator)) for _ in range(40)
    ]
    scatter = np.std([kid(a, b) for a, b in pairs])
    assert scatter / 1.5 < np.mean([kid_error(a, b) for a, b in pairs[:10]]) < 1.5 * scatter


def test_auroc_intervals_hold_the_value_and_narrow_with_the_number_of_images():
    generator = torch.Generator().manual_seed(0)
    widths = []
    for n in (40, 640):
        labels = torch.arange(n) % 2
        scores = torch.randn(n, generator=generator) + labels
        low, high = auroc_interval(scores, labels)
        assert low < auroc(scores, labels) < high
        assert abs(auroc(scores, labels) - 0.76) < 0.12  # of two normals one deviation apart: 0.760
        widths.append(high - low)
    assert 2.5 < widths[0] / widths[1] < 6  # 4 times, by the square root of 16


def test_findings_that_few_images_have_get_no_figure():
    labels = torch.zeros(30, 2, dtype=torch.bool)
    labels[:3, 0] = labels[:10, 1] = True
    records = finding_auroc(torch.linspace(1, 0, 30)[:, None].repeat(1, 2), labels, ["rare", "common"])
    assert [record["finding"] for record in records] == ["common"]
    assert records[0]["auroc"] == 1.0 and records[0]["n"] == 10


def test_ms_ssim_is_one_for_equal_images_and_falls_with_variety():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1, 1, 128, 128, 1)).repeat(3, 4)
    noisy = np.clip(image + rng.normal(0, 40, (1, 3, 128, 128, 1)), 0, 255)
    assert ms_ssim_within(image.repeat(3, 1).astype(np.uint8)) == pytest.approx(1.0, abs=1e-4)
    assert ms_ssim_within(noisy.astype(np.uint8)) < 0.95


def test_a_pickled_module_gives_its_weights_and_no_stranger_passes(tmp_path):
    def network():
        return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.ReLU())

    saved, like = network(), network()
    torch.save(saved, tmp_path / "whole.pt")
    like.load_state_dict(weights_of_pickled(tmp_path / "whole.pt", like))
    assert torch.equal(like[0].weight, saved[0].weight)
    with pytest.raises(pickle.UnpicklingError):
        weights_of_pickled(tmp_path / "whole.pt", torch.nn.Linear(1, 1))


def test_an_encoder_that_is_not_here_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchxrayvision", None)
    with pytest.raises(RuntimeError, match="'xrv-nih' is not on this machine .* no download: efficientnet-lite0, mini"):
        make_encoder("xrv-nih")
