"""The network of a denoiser that is fast on processors: a U-Net of few, large operations, with the channels last."""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from guided_diffusion.denoisers import Condition
from guided_diffusion.networks.blocks import check_sizes, contracting_half, expanding_half
from guided_diffusion.networks.layers import Conditioning, attention_heads, zero_init
from guided_diffusion.utils.validation import height_and_width

Modulations = Iterator[Float[Tensor, "b c"]]
"""The scales and shifts of the residual blocks, in the order in which they are called."""


class FastUNet(nn.Module):
    """A U-Net ``unet(x_t, log_snr, y) -> F`` of few, large operations, whose images have their channels last.

    It differs from ``UNet`` where that saves time. A residual block has one normalisation, over all values of its
    input; one linear layer gives the scales and shifts of all blocks; the resolution is halved by a 2x2 convolution and
    doubled by a 1x1 convolution and a reordering; and attention, with a learned bias for each relative place, is at the
    lowest resolution only. Convolutions are faster with the channels last, and all these operations keep them so.

    Args:
        channels, image_size, num_classes, width, multipliers: As for ``UNet``.
        blocks: The number of residual blocks per level on the way down; there is one more on the way up.
        head_channels: The number of channels of an attention head; 0 for no attention.
        dropout, patch_size, combine: As for ``UNet``.

    Raises:
        ValueError: As for ``UNet``.
    """

    def __init__(
        self,
        channels: int,
        image_size: int | Sequence[int],
        num_classes: int,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 1,
        head_channels: int = 32,
        dropout: float = 0.0,
        patch_size: int = 2,
        combine: str = "add",
    ) -> None:
        super().__init__()
        check_sizes(image_size, width, multipliers, blocks, (), head_channels or 1, dropout, patch_size)
        widths = [width * multiplier for multiplier in multipliers]
        lowest = widths[-1]
        factor = patch_size * 2 ** (len(multipliers) - 1)
        sides = [side // factor for side in height_and_width(image_size)]

        self.patch_size = patch_size
        self.num_classes = num_classes
        self.condition = Conditioning(num_classes, 4 * width, combine)
        self.input = nn.Conv2d(channels * patch_size**2, widths[0], 3, padding=1)
        self.down, skips = contracting_half(
            widths[0], widths, blocks, (), lambda i, o, _: FastBlock(i, o, dropout), Halving
        )
        self.middle = nn.ModuleList(FastBlock(lowest, lowest, dropout) for _ in range(2))
        self.attention = RelativeAttention(lowest, sides, head_channels) if head_channels else nn.Identity()
        self.up = expanding_half(
            skips, widths, blocks, (), lambda i, o, _, doubled: Joining(FastBlock(i, o, dropout), doubled)
        )
        self.output = zero_init(nn.Conv2d(widths[0], channels * patch_size**2, 3, padding=1))

        self.modulated = [2 * block.in_channels for block in self.modules() if isinstance(block, FastBlock)]
        self.modulation = nn.Linear(4 * width, sum(self.modulated))
        self.to(memory_format=torch.channels_last)

    def embed_labels(self, y: Int[Tensor, " b"]) -> Float[Tensor, "b e"]:
        """Return the embeddings of labels, which ``forward`` takes in place of them."""
        return self.condition.embed(y)

    def forward(
        self, x_t: Float[Tensor, "b c h w"], log_snr: Float[Tensor, " b"], y: Condition = None
    ) -> Float[Tensor, "b c h w"]:
        modulations = iter(self.modulation(self.condition(log_snr, y)).split(self.modulated, dim=1))
        patches = F.pixel_unshuffle(x_t, self.patch_size)
        h = self.input(patches.contiguous(memory_format=torch.channels_last))
        skips = [h]
        for layer in self.down:
            h = layer(h, modulations)
            skips.append(h)
        first, last = self.middle
        h = last(self.attention(first(h, modulations)), modulations)
        for layer in self.up:
            h = layer(h, skips, modulations)
        return F.pixel_shuffle(self.output(F.silu(normalise(h))), self.patch_size)


def normalise(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Return each image less the mean of all its values and divided by their standard deviation."""
    in_memory_order = x.permute(0, 2, 3, 1)
    return F.layer_norm(in_memory_order, in_memory_order.shape[1:]).permute(0, 3, 1, 2)


class FastBlock(nn.Module):
    """Normalisation, the condition as scale and shift, SiLU and convolution twice; added to the input."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.conv_1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.conv_2 = zero_init(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Float[Tensor, "b i h w"], modulations: Modulations) -> Float[Tensor, "b o h w"]:
        scale, shift = next(modulations)[..., None, None].chunk(2, dim=1)
        h = self.conv_1(F.silu(torch.addcmul(shift, normalise(x), 1 + scale)))
        return self.skip(x) + self.conv_2(self.dropout(F.silu(h)))


class Halving(nn.Module):
    """A 2x2 convolution with stride 2, which halves the resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 2, stride=2)

    def forward(self, x: Tensor, modulations: Modulations) -> Tensor:
        return self.conv(x)


class Joining(nn.Module):
    """A block on the way up: it takes the last skip connection beside its input, and may double the resolution.

    The resolution is doubled by a 1x1 convolution to four times the channels, which become 2x2 pixels.
    """

    def __init__(self, block: FastBlock, doubled: bool) -> None:
        super().__init__()
        self.block = block
        self.doubling = nn.Conv2d(block.out_channels, 4 * block.out_channels, 1) if doubled else None

    def forward(self, x: Tensor, skips: list[Tensor], modulations: Modulations) -> Tensor:
        h = self.block(torch.cat([x, skips.pop()], dim=1), modulations)
        if self.doubling is None:
            return h
        pixels = self.doubling(h).permute(0, 2, 3, 1).unflatten(-1, (2, 2, -1))
        return pixels.transpose(2, 3).flatten(1, 2).flatten(2, 3).permute(0, 3, 1, 2)


class RelativeAttention(nn.Module):
    """Self-attention over the pixels with a learned bias for each relative place and head, added to the input.

    With ``is_identity`` each pixel attends to itself alone.
    It is written as matrix products, which are faster than ``scaled_dot_product_attention`` for few pixels. The bias is
    that of Liu et al. 2021 (arXiv 2103.14030, eq. 4).
    """

    is_identity: bool = False
    places: Tensor

    def __init__(self, channels: int, sides: Sequence[int], head_channels: int) -> None:
        super().__init__()
        self.heads = attention_heads(channels, head_channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.output = zero_init(nn.Linear(channels, channels))
        height, width = sides
        self.bias = nn.Parameter(torch.zeros(self.heads, (2 * height - 1) * (2 * width - 1)))
        row, column = torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
        below, right = row[:, None] - row + height - 1, column[:, None] - column + width - 1
        self.register_buffer("places", below * (2 * width - 1) + right, persistent=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        pixels = x.permute(0, 2, 3, 1)
        tokens = pixels.flatten(1, 2)
        normalised = F.layer_norm(tokens, tokens.shape[1:])
        query, key, value = self.qkv(normalised).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if not self.is_identity:
            scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + self.bias[:, self.places]
            value = scores.softmax(-1).to(value.dtype) @ value
        attended = value.transpose(1, 2).flatten(2)
        return (tokens + self.output(attended)).view(pixels.shape).permute(0, 3, 1, 2)
