"""Judges: small classifiers of clean images, which measure samples and never guide."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from guided_diffusion.networks.layers import group_norm


class JudgeNet(nn.Module):
    """A convolutional classifier of images in [-1, 1], with GroupNorm: ``judge(x) -> logits``.

    ``width`` is the number of channels of the first of three stages; each later stage has twice as many.
    """

    def __init__(self, channels: int, image_size: int, num_classes: int, width: int = 32) -> None:
        super().__init__()

        def stage(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
            conv = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
            return nn.Sequential(conv, group_norm(out_channels), nn.SiLU())

        first = 1 if image_size < 16 else 2
        self.stages = nn.Sequential(
            stage(channels, width, first), stage(width, 2 * width, 2), stage(2 * width, 4 * width, 2)
        )
        size = image_size
        for stride in (first, 2, 2):
            size = -(-size // stride)
        self.hidden = nn.Linear(4 * width * size**2, 128)
        self.dropout = nn.Dropout(0.3)
        self.logits = nn.Linear(128, num_classes)

    def features(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 128"]:
        """Return the features by which distances between sets of images are measured."""
        return F.silu(self.hidden(self.stages(x).flatten(1)))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        return self.logits(self.dropout(self.features(x)))


class LeNet(nn.Module):
    """LeNet-5 with ReLU and maximum pooling, a judge of another architecture: ``judge(x) -> logits``.

    Both convolutions are padded, so that images of 8x8, or even 4x4, are large enough. ``width`` is the number of
    channels of the first convolution; the second has twice as many (6 and 16 in LeCun et al. 1998, fig. 2).
    """

    def __init__(self, channels: int, image_size: int, num_classes: int, width: int = 16) -> None:
        super().__init__()

        def stage(in_channels: int, out_channels: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(in_channels, out_channels, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2))

        self.stages = nn.Sequential(stage(channels, width), stage(width, 2 * width))
        self.hidden = nn.Sequential(nn.Linear(2 * width * (image_size // 4) ** 2, 120), nn.ReLU(), nn.Linear(120, 84))
        self.logits = nn.Linear(84, num_classes)

    def features(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 84"]:
        """Return the features by which distances between sets of images are measured: the input of the logits."""
        return F.relu(self.hidden(self.stages(x).flatten(1)))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        return self.logits(self.features(x))
