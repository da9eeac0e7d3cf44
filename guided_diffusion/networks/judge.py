"""Judges: small classifiers of clean images, which measure samples."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from guided_diffusion.networks.layers import group_norm
from guided_diffusion.utils.validation import height_and_width


class JudgeNet(nn.Module):
    """A convolutional classifier of images in [-1, 1], with GroupNorm: ``judge(x) -> logits``.

    ``width`` is the number of channels of the first of three stages; each later stage has twice as many.
    """

    def __init__(self, channels: int, image_size: int | Sequence[int], num_classes: int, width: int = 32) -> None:
        super().__init__()

        def stage(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
            conv = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
            return nn.Sequential(conv, group_norm(out_channels), nn.SiLU())

        sizes = height_and_width(image_size)
        first = 1 if min(sizes) < 16 else 2
        self.stages = nn.Sequential(
            stage(channels, width, first), stage(width, 2 * width, 2), stage(2 * width, 4 * width, 2)
        )
        for stride in (first, 2, 2):
            sizes = (-(-sizes[0] // stride), -(-sizes[1] // stride))
        self.hidden = nn.Linear(4 * width * math.prod(sizes), 128)
        self.dropout = nn.Dropout(0.3)
        self.logits = nn.Linear(128, num_classes)

    def features(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 128"]:
        """Return the features by which distances between sets of images are measured."""
        return F.silu(self.hidden(self.stages(x).flatten(1)))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        return self.logits(self.dropout(self.features(x)))


class LeNet(nn.Module):
    """LeNet-5 with ReLU and maximum pooling, a second architecture of judges: ``judge(x) -> logits``.

    It takes images of any size: both convolutions are padded, and a side of one pixel is not halved.
    ``width`` is the number of channels of the first convolution; the second has twice as many (6 and 16 in
    LeCun et al. 1998, fig. 2).
    """

    def __init__(self, channels: int, image_size: int | Sequence[int], num_classes: int, width: int = 16) -> None:
        super().__init__()

        def stage(in_channels: int, out_channels: int, sizes: tuple[int, int]) -> nn.Sequential:
            # an int unless a side is 1, because the cache finds judges by the printed text of the network
            pool = nn.MaxPool2d(2 if min(sizes) > 1 else (min(2, sizes[0]), min(2, sizes[1])))
            return nn.Sequential(nn.Conv2d(in_channels, out_channels, 5, padding=2), nn.ReLU(), pool)

        sizes = height_and_width(image_size)
        halves = (max(1, sizes[0] // 2), max(1, sizes[1] // 2))
        quarters = math.prod(max(1, size // 2) for size in halves)
        self.stages = nn.Sequential(stage(channels, width, sizes), stage(width, 2 * width, halves))
        self.hidden = nn.Sequential(nn.Linear(2 * width * quarters, 120), nn.ReLU(), nn.Linear(120, 84))
        self.logits = nn.Linear(84, num_classes)

    def features(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 84"]:
        """Return the features by which distances between sets of images are measured: the input of the logits."""
        return F.relu(self.hidden(self.stages(x).flatten(1)))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        return self.logits(self.features(x))


class ResidualJudge(nn.Module):
    """A residual network for natural images, in channels-last memory format: ``judge(x) -> logits``.

    It is the ResNet-9 of D. Page ("How to train your ResNet", 2018) on half the resolution. Its batch norm needs
    several images in training. ``width`` is the number of channels of the first convolution; the last has eight times
    as many.
    """

    def __init__(self, channels: int, image_size: int | Sequence[int], num_classes: int, width: int = 32) -> None:
        super().__init__()
        height_and_width(image_size)
        self.stages = nn.Sequential(
            _normalised_conv(channels, width, stride=2),
            _normalised_conv(width, 2 * width),
            _Pool(),
            _Residual(2 * width),
            _normalised_conv(2 * width, 4 * width),
            _Pool(),
            _normalised_conv(4 * width, 8 * width),
            _Residual(8 * width),
        )
        self.dropout = nn.Dropout(0.3)
        self.logits = nn.Linear(8 * width, num_classes)
        self.to(memory_format=torch.channels_last)

    def features(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Return the features by which distances between sets of images are measured: the mean of each channel."""
        return self.stages(x.contiguous(memory_format=torch.channels_last)).mean((2, 3))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        return self.logits(self.dropout(self.features(x)))


def _normalised_conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class _Pool(nn.Module):
    """Maximum pooling over 2x2 pixels; a side of one pixel is not halved."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c i j"]:
        return F.max_pool2d(x, (min(2, x.shape[2]), min(2, x.shape[3])))


class _Residual(nn.Module):
    """Two convolutions, whose output is added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(_normalised_conv(width, width), _normalised_conv(width, width))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.convolutions(x)


ARCHITECTURES: dict[str, type[JudgeNet | LeNet | ResidualJudge]] = {
    "cnn": JudgeNet,
    "lenet": LeNet,
    "resnet": ResidualJudge,
}
"""The networks of judges, by their names in configs and in the files of judges."""
