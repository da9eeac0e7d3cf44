"""The network of a time-aware classifier of images, as in ADM."""

import math
from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from guided_diffusion.networks.blocks import Block, check_groups, check_sizes, contracting_half
from guided_diffusion.networks.layers import AttentionPooling, group_norm, noise_embedding
from guided_diffusion.utils.validation import height_and_width


class NoisyClassifier(nn.Module):
    """The contracting half of the U-Net, then attention pooling: ``network(x_t, log_snr) -> logits``.

    It normalises by GroupNorm alone, so the logits of an image and their gradient don't depend on its batch.

    ``num_classes`` is the number of logits; other arguments and errors are as for ``UNet``. See Dhariwal & Nichol 2021
    (arXiv 2105.05233), section 4.
    """

    def __init__(
        self,
        channels: int,
        image_size: int | Sequence[int],
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
        check_groups(width, multipliers)
        widths = [width * multiplier for multiplier in multipliers]
        features = 4 * width
        block = partial(Block, condition_channels=features, head_channels=head_channels, dropout=dropout)

        self.num_classes = num_classes
        self.patch_size = patch_size
        self.condition = nn.Sequential(*noise_embedding(features), nn.Linear(features, features), nn.SiLU())
        self.input = nn.Conv2d(channels * patch_size**2, width, 3, padding=1)
        self.down, _ = contracting_half(width, widths, blocks, attention_levels, block)
        self.norm = group_norm(widths[-1])
        factor = patch_size * 2 ** (len(multipliers) - 1)
        num_pixels = math.prod(size // factor for size in height_and_width(image_size))
        self.pool = AttentionPooling(widths[-1], num_pixels, head_channels, num_classes)

    def forward(self, x_t: Float[Tensor, "b c h w"], log_snr: Float[Tensor, " b"]) -> Float[Tensor, "b classes"]:
        condition = self.condition(log_snr)
        h = self.input(F.pixel_unshuffle(x_t, self.patch_size))
        for layer in self.down:
            h = layer(h, condition)
        return self.pool(F.silu(self.norm(h)))
