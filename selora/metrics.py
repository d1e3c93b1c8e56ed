"""Distances between two sets of features (N, F), through torchmetrics. They know no encoder."""

import warnings

import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance


class _Identity(nn.Module):
    """Stands in for torchmetrics' image encoder, since the features are there already."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def fid(reference: torch.Tensor, other: torch.Tensor) -> float:
    """Fréchet distance of two Gaussians fitted to the features. Biased upwards for small N: show it beside a floor."""
    metric = FrechetInceptionDistance(feature=_Identity(reference.shape[1]))
    metric.update(reference.double(), real=True)
    metric.update(other.double(), real=False)
    return metric.compute().item()


def kid(reference: torch.Tensor, other: torch.Tensor) -> float:
    """Kernel distance (unbiased squared MMD, cubic polynomial kernel) over all features; below 0 by chance near 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of the memory that the features take, which they take anyway
        size = min(len(reference), len(other))
        metric = KernelInceptionDistance(feature=_Identity(reference.shape[1]), subsets=1, subset_size=size)
    metric.update(reference.double(), real=True)
    metric.update(other.double(), real=False)
    return metric.compute()[0].item()
