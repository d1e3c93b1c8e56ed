"""FID and KID against their definitions in a few lines of numpy; the encoder against its declared shape."""

import pickle
import sys

import numpy as np
import pytest
import scipy.linalg
import torch

from selora.scoring import SHIPPED
from selora.scoring.classifier import weights_of_pickled
from selora.scoring.encoders import ENCODERS, features, make_encoder
from selora.scoring.metrics import auroc, auroc_interval, fid, finding_auroc, kid, kid_error, ms_ssim_within, prdc
from selora.scoring.resampling import DRAWS, replicates, resampled_auroc, resampled_kid, resamples
from selora.scoring.score import Seen, compare


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
    for name in (name for name in ENCODERS if name in SHIPPED):
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


def test_kid_has_the_same_last_digit_whatever_was_drawn_before():
    a, b = two_sets(0.5)
    found = set()
    for seed in range(8):
        torch.manual_seed(seed)
        found.add(kid(a, b))
        assert torch.initial_seed() == seed
    assert len(found) == 1


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


def test_resamples_depend_on_the_number_of_images_alone():
    often = resamples(7)
    assert often.shape == (DRAWS, 7) and (often.sum(1) == 7).all()
    torch.manual_seed(5)
    np.random.seed(5)
    assert torch.equal(often, resamples(7))
    assert resamples(9)[:3].tolist() == [  # written down: runs of other days and machines must draw the same
        [1, 0, 1, 3, 1, 2, 0, 1, 0],
        [0, 1, 0, 0, 0, 0, 2, 3, 3],
        [2, 1, 0, 2, 1, 2, 0, 0, 1],
    ]


def test_kid_of_the_sample_itself_is_kid():
    a, b = two_sets(0.5)
    assert resampled_kid(a, b, torch.ones(1, 40, dtype=torch.double)).item() == pytest.approx(kid(a, b), rel=1e-5)


def test_kid_of_a_resample_counts_no_copies_of_one_image_as_a_pair():
    a, b = (features[:12].double() for features in two_sets(0.5))
    often = resamples(12, draws=3)

    def mean(x, y, drawn, across):
        """Over pairs of places in the resample, one by one; across: an image and its own reference are a pair."""
        pairs = [(p, q) for p in range(12) for q in range(12) if drawn[p] != drawn[q] or (across and p == q)]
        return sum(((x[drawn[p]] @ y[drawn[q]]).item() / 6 + 1) ** 3 for p, q in pairs) / len(pairs)

    for counts, found in zip(often, resampled_kid(a, b, often), strict=True):
        drawn = torch.arange(12).repeat_interleave(counts.long())
        expected = mean(a, a, drawn, False) + mean(b, b, drawn, False) - 2 * mean(a, b, drawn, True)
        assert found.item() == pytest.approx(expected, rel=1e-9)


def test_kids_replicates_lie_around_it_as_wide_as_its_standard_error():
    a, b = two_sets(0.5)
    drawn = resampled_kid(a, b, resamples(40))
    assert abs(drawn.mean().item() - kid(a, b)) < 0.2 * drawn.std().item()
    assert 1 / 1.5 < drawn.std().item() / kid_error(a, b) < 1.5


def test_auroc_of_a_resample_is_that_of_its_images():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(30) % 3 == 0
    scores = (torch.randn(30, generator=generator) + labels).round(decimals=1)  # with ties
    often = resamples(30, draws=5)
    for counts, found in zip(often, resampled_auroc(scores, labels, often), strict=True):
        drawn = torch.arange(30).repeat_interleave(counts.long())
        assert found.item() == pytest.approx(auroc(scores[drawn], labels[drawn]), abs=1e-6)


def test_replicates_leave_out_findings_that_were_not_drawn():
    generator = torch.Generator().manual_seed(0)
    scores, clip = torch.rand(12, 2, generator=generator), torch.rand(12, generator=generator)
    labels = torch.zeros(12, 2, dtype=torch.bool)
    labels[:6, 0] = labels[11, 1] = True
    features = torch.randn(2, 12, 6, generator=generator)
    found, often = replicates({"kid": features}, {"clip": clip}, scores, labels), resamples(12)
    assert {name: len(drawn) for name, drawn in found.items()} == {"kid": DRAWS, "clip": DRAWS, "auroc": DRAWS}
    lacking = int((often[:, 11] == 0).nonzero()[0])
    alone = resampled_auroc(scores[:, 0], labels[:, 0], often)[lacking].item()
    assert found["auroc"][lacking] == pytest.approx(alone, rel=1e-5)
    drawn = torch.arange(12).repeat_interleave(often[3].long())
    assert found["clip"][3] == pytest.approx(clip[drawn].mean().item(), rel=1e-5)
    assert replicates({"kid": features}, {}, scores[:, 1:], labels[:, 1:])["auroc"][lacking] is None
    assert "auroc" not in replicates({}, {}, scores[:, :0], labels[:, :0])


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
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    with pytest.raises(RuntimeError, match="'inception' is not on this machine .* no download: efficientnet-l"):
        make_encoder("inception")


def test_kid_by_clip_is_that_of_the_cosine_of_two_pictures():
    """Brute force over pairs, whatever the width of the embeddings."""
    generator = torch.Generator().manual_seed(0)
    near, far = torch.randn(2, 9, 5, generator=generator, dtype=torch.float64)
    one, two = (torch.nn.functional.normalize(x) for x in (near, far + 0.5))

    def mean(x, y, same):
        return np.mean(
            [(a @ b + 1).item() ** 3 for i, a in enumerate(x) for j, b in enumerate(y) if not same or i != j]
        )

    found = compare(*(Seen(torch.randn(9, 6, generator=generator), 5**0.5 * x) for x in (one, two)))
    assert found["kid_clip"] == pytest.approx(mean(one, one, True) + mean(two, two, True) - 2 * mean(one, two, False))
