"""The network of a denoiser of images: the U-Net of ADM."""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from guided_diffusion.denoisers import Condition
from guided_diffusion.networks.blocks import Block, check_groups, check_sizes, contracting_half, expanding_half
from guided_diffusion.networks.layers import Conditioning, group_norm, zero_init


class UNet(nn.Module):
    """A U-Net ``unet(x_t, log_snr, y) -> F``, with F of the shape of ``x_t``.

    It has residual blocks with the condition as scale and shift, attention at chosen levels, a skip connection from
    every layer on the way down to one on the way up, and an output that is zero at first
    (Dhariwal & Nichol 2021, arXiv 2105.05233, section 3).

    Args:
        channels: The number of channels of an image.
        image_size: The side of square images, or height and width; each must be a multiple of
            ``patch_size * 2 ** (len(multipliers) - 1)``.
        num_classes: The number of classes; a label is 0 to ``num_classes - 1``, or negative for none.
        multipliers: The channels of each level in units of ``width``; each level has half the resolution of the last.
        blocks: The number of residual blocks per level on the way down; there is one more on the way up.
        attention_levels: The levels, counted from 0, whose blocks are followed by attention.
        middle_attention: Whether there is attention between the two residual blocks at the bottom.
        head_channels: The number of channels of an attention head.
        patch_size: The side, in pixels, of the patches it works on (space to depth); 2 costs a quarter of 1.
        combine: How noise level and label are combined: ``add``, ``multiply`` or ``concat``.

    Raises:
        ValueError: If images can't be divided into patches and halved at each level, or channels into groups and heads;
            if a size is not positive or ``dropout`` is not in [0, 1).
    """

    def __init__(
        self,
        channels: int,
        image_size: int | Sequence[int],
        num_classes: int,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 2,
        attention_levels: Sequence[int] = (),
        middle_attention: bool = True,
        head_channels: int = 32,
        dropout: float = 0.0,
        patch_size: int = 1,
        combine: str = "add",
    ) -> None:
        super().__init__()
        check_sizes(image_size, width, multipliers, blocks, attention_levels, head_channels, dropout, patch_size)
        check_groups(width, multipliers)
        widths = [width * multiplier for multiplier in multipliers]
        features = 4 * width
        block = partial(Block, condition_channels=features, head_channels=head_channels, dropout=dropout)

        self.patch_size = patch_size
        self.size_multiple = patch_size * 2 ** (len(multipliers) - 1)
        self.num_classes = num_classes
        self.condition = Conditioning(num_classes, features, combine)
        self.input = nn.Conv2d(channels * patch_size**2, width, 3, padding=1)

        self.down, skips = contracting_half(width, widths, blocks, attention_levels, block)
        current = skips[-1]
        self.middle = nn.ModuleList([block(current, current, middle_attention), block(current, current, False)])
        self.up = expanding_half(skips, widths, blocks, attention_levels, block)
        self.norm = group_norm(width * multipliers[0])
        self.output = zero_init(nn.Conv2d(width * multipliers[0], channels * patch_size**2, 3, padding=1))

    def embed_labels(self, y: Int[Tensor, " b"]) -> Float[Tensor, "b e"]:
        """Return the embeddings of labels, which ``forward`` takes in place of them."""
        return self.condition.embed(y)

    def forward(
        self, x_t: Float[Tensor, "b c h w"], log_snr: Float[Tensor, " b"], y: Condition = None
    ) -> Float[Tensor, "b c h w"]:
        condition = self.condition(log_snr, y)
        h = self.input(F.pixel_unshuffle(x_t, self.patch_size))
        skips = [h]
        for layer in self.down:
            h = layer(h, condition)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, condition)
        for layer in self.up:
            h = layer(torch.cat([h, skips.pop()], dim=1), condition)
        return F.pixel_shuffle(self.output(F.silu(self.norm(h))), self.patch_size)
