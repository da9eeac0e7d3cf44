"""The judge: a small classifier of clean images, which never guides."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from guided_diffusion.networks.layers import group_norm


class JudgeNet(nn.Module):
    """A convolutional classifier of images in [-1, 1], with GroupNorm: ``judge(x) -> logits``.

    Args:
        channels: of the images.
        image_size: height and width of the images.
        num_classes: number of logits.
        width: channels of the first stage; each of the three stages has twice those of the last.
    """

    def __init__(self, channels: int, image_size: int, num_classes: int, width: int = 32) -> None:
        super().__init__()

        def stage(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
            conv = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
            return nn.Sequential(conv, group_norm(out_channels), nn.SiLU())

        first = 1 if image_size < 16 else 2
        self.stages = nn.Sequential(
            stage(channels, width, first),
            stage(width, 2 * width, 2),
            stage(2 * width, 4 * width, 2),
        )
        size = image_size
        for stride in (first, 2, 2):
            size = -(-size // stride)
        self.hidden = nn.Linear(4 * width * size**2, 128)
        self.dropout = nn.Dropout(0.3)
        self.logits = nn.Linear(128, num_classes)

    def features(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 128"]:
        """The 128 numbers on which distances between sets of images are measured."""
        return F.silu(self.hidden(self.stages(x).flatten(1)))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        return self.logits(self.dropout(self.features(x)))
