"""The network of a small time-aware classifier of images: a few seconds of training make it a guide."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from guided_diffusion.networks.layers import noise_embedding
from guided_diffusion.utils.validation import check_positive, height_and_width

STAGES = 3
"""The number of convolutions, each of which halves the resolution."""


class NoisyCNNClassifier(nn.Module):
    """Three convolutions of stride 2 and a linear layer: ``network(x_t, log_snr) -> logits``.

    After each convolution follow a layer norm over all values of an image, scale and shift from the noise level, and
    SiLU. The logits of an image and their gradient don't depend on its batch.

    Args:
        channels: The number of channels of an image.
        image_size: The side of square images, or height and width, of at least 8 pixels each.
        num_classes: The number of logits.
        width: The number of channels of the first convolution; each later one has twice as many.

    Raises:
        ValueError: If an image is too small or there is no channel.
    """

    def __init__(self, channels: int, image_size: int | Sequence[int], num_classes: int, width: int = 48) -> None:
        super().__init__()
        check_positive(channels=channels, num_classes=num_classes, width=width)
        height, wide = height_and_width(image_size)
        if min(height, wide) < 2**STAGES:
            raise ValueError(
                f"images of {height}x{wide} are too small for {STAGES} convolutions of stride 2: take at least "
                f"{2**STAGES} pixels each way, or another network"
            )
        widths = [channels, *(width * 2**stage for stage in range(STAGES))]
        for _ in range(STAGES):
            height, wide = -(-height // 2), -(-wide // 2)

        self.num_classes = num_classes
        self.condition = noise_embedding(4 * width)
        self.stages = nn.ModuleList(Stage(before, after, 4 * width) for before, after in pairwise(widths))
        self.logits = nn.Linear(widths[-1] * height * wide, num_classes)
        self.to(memory_format=torch.channels_last)

    def forward(self, x_t: Float[Tensor, "b c h w"], log_snr: Float[Tensor, " b"]) -> Float[Tensor, "b classes"]:
        condition, h = self.condition(log_snr), x_t.contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            h = stage(h, condition)
        return self.logits(h.permute(0, 2, 3, 1).flatten(1))


class Stage(nn.Module):
    """A convolution of stride 2, then ``SiLU((1 + scale) LayerNorm(h) + shift)``, with the channels last in memory."""

    def __init__(self, in_channels: int, out_channels: int, condition_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.scale_shift = nn.Linear(condition_channels, 2 * out_channels)

    def forward(self, x: Float[Tensor, "b i h w"], condition: Float[Tensor, "b c"]) -> Float[Tensor, "b o h2 w2"]:
        scale, shift = self.scale_shift(condition)[:, None, None].chunk(2, dim=-1)
        h = self.conv(x).permute(0, 2, 3, 1)
        h = torch.addcmul(shift, F.layer_norm(h, h.shape[1:]), 1 + scale)
        return F.silu(h).permute(0, 3, 1, 2)
