"""FID and KID against their definitions in a few lines of numpy; the encoder against its declared shape."""

import numpy as np
import scipy.linalg
import torch

from selora.encoders import ENCODERS, features
from selora.metrics import fid, kid


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
    for encoder in ENCODERS.values():
        network = encoder()
        found = features(network, images, batch_size=2)
        assert found.shape == (3, network.num_features)
        assert torch.isfinite(found).all()
        assert (found[0] - found[1]).abs().max() > 1e-3
        assert torch.allclose(found, features(network, images, batch_size=3), atol=1e-4)
