"""The network of a time-aware classifier of images, as in ADM."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from guided_diffusion.networks.blocks import Block, check_sizes, contracting_half
from guided_diffusion.networks.layers import Attention, AttentionPooling, ResidualBlock, group_norm, noise_embedding


class NoisyClassifier(nn.Module):
    """The contracting half of the U-Net, then attention pooling: ``network(x_t, log_snr) -> logits``.

    It normalises by GroupNorm alone, so the logits of an image and their gradient don't depend on its batch.

    Args:
        channels: The channels of an image, 1 or 3.
        image_size: The height and width of an image.
        num_classes: The number of logits.
        width: The channels of the first level.
        multipliers: The channels of each level over ``width``; each level has half the resolution of the one before.
        blocks: The residual blocks per level.
        attention_levels: The levels, counted from 0, whose blocks are followed by attention.
        head_channels: The channels of an attention head.
        dropout: The dropout within residual blocks.
        patch_size: With 2 the network works on 2x2 patches of pixels (space to depth), at a quarter of the cost.

    Raises:
        ValueError: If images can't be divided by patches and halved at each level, channels not by groups and heads,
            if a size is not positive or ``dropout`` not in [0, 1).

    References:
        Dhariwal & Nichol 2021 (arXiv 2105.05233), section 4.
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
