"""The time-aware classifier of the ADM line: which class a noisy image is of."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from guided_diffusion.networks.blocks import Block, check_sizes, contracting_half
from guided_diffusion.networks.layers import Attention, AttentionPooling, ResidualBlock, group_norm, noise_embedding


class NoisyClassifier(nn.Module):
    """``network(x_t, log_snr) -> logits``: the contracting half of the U-Net, then attention pooling.

    Dhariwal & Nichol 2021 (arXiv 2105.05233, section 4). GroupNorm throughout, so that an image's logits, and
    their gradient, don't depend on the batch it is in.

    Args:
        channels: of the images, 1 or 3.
        image_size: height and width of the images.
        num_classes: number of logits.
        width: channels of the first level.
        multipliers: width of each level in units of ``width``; each level has half the resolution of the last.
        blocks: residual blocks per level.
        attention_levels: levels, from 0, whose blocks are followed by attention.
        head_channels: channels of an attention head.
        dropout: within residual blocks, in training.
        patch_size: 2 works on 2x2 patches of pixels (space to depth): a quarter of the cost.

    Raises:
        ValueError: if the sizes don't divide: image by patch and levels, channels by groups and heads; if one is not
            positive, or ``dropout`` not in [0, 1).
    """

    def __init__(
        self,
        channels: int,
        image_size: int,
        num_classes: int,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 1,
        attention_levels: Sequence[int] = (),
        head_channels: int = 32,
        dropout: float = 0.0,
        patch_size: int = 1,
    ) -> None:
        super().__init__()
        check_sizes(image_size, width, multipliers, blocks, attention_levels, head_channels, dropout, patch_size)
        widths = [width * multiplier for multiplier in multipliers]
        condition_channels = 4 * width

        def block(in_channels: int, out_channels: int, attention: bool) -> Block:
            return Block(
                ResidualBlock(in_channels, out_channels, condition_channels, dropout),
                Attention(out_channels, head_channels) if attention else nn.Identity(),
                nn.Identity(),
            )

        self.num_classes = num_classes
        self.patch_size = patch_size
        self.condition = nn.Sequential(
            *noise_embedding(condition_channels),
            nn.Linear(condition_channels, condition_channels),
            nn.SiLU(),
        )
        self.input = nn.Conv2d(channels * patch_size**2, width, 3, padding=1)
        self.down, _ = contracting_half(width, widths, blocks, attention_levels, block)
        self.norm = group_norm(widths[-1])
        smallest = image_size // (patch_size * 2 ** (len(multipliers) - 1))
        self.pool = AttentionPooling(widths[-1], smallest**2, head_channels, num_classes)

    def forward(self, x_t: Float[Tensor, "b c h w"], log_snr: Float[Tensor, " b"]) -> Float[Tensor, "b classes"]:
        condition = self.condition(log_snr)
        h = self.input(F.pixel_unshuffle(x_t, self.patch_size))
        for layer in self.down:
            h = layer(h, condition)
        return self.pool(F.silu(self.norm(h)))
