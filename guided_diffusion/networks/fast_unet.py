"""The network of a denoiser that is fast on processors: a small U-Net whose images have their channels last."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from guided_diffusion.denoisers import Labels
from guided_diffusion.networks.blocks import check_sizes
from guided_diffusion.networks.layers import Conditioning, attention_heads, zero_init
from guided_diffusion.utils.validation import height_and_width


class FastUNet(nn.Module):
    """A U-Net ``unet(x_t, log_snr, y) -> F`` of few, large operations on images with their channels last.

    It differs from ``UNet`` where that saves time: a residual block has one normalisation, over all values of an image;
    attention, with learned biases for relative places, is at the lowest resolution only; the resolution is halved by a
    2x2 convolution and doubled by a 1x1 convolution and a reordering.

    Args:
        channels, image_size, num_classes, width, multipliers, blocks: As for ``UNet``.
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
        check_sizes(image_size, width, multipliers, blocks, (), max(1, head_channels), dropout, patch_size)
        widths = [width * multiplier for multiplier in multipliers]
        features = 4 * width
        pixel = channels * patch_size**2
        factor = patch_size * 2 ** (len(multipliers) - 1)
        lowest = [side // factor for side in height_and_width(image_size)]

        self.patch_size = patch_size
        self.condition = Conditioning(num_classes, features, combine)
        self.input = nn.Conv2d(pixel, widths[0], 3, padding=1)
        self.down, skips, current = nn.ModuleList(), [widths[0]], widths[0]
        for level, out in enumerate(widths):
            if level:
                self.down.append(Halve(current, current))
                skips.append(current)
            for _ in range(blocks):
                self.down.append(FastBlock(current, out, features, dropout))
                skips.append(current := out)
        attention = RelativeAttention(current, lowest, head_channels) if head_channels else nn.Identity()
        self.middle = nn.ModuleList(
            [FastBlock(current, current, features, dropout), attention, FastBlock(current, current, features, dropout)]
        )
        self.up = nn.ModuleList()
        for level, out in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up.append(FastBlock(current + skips.pop(), out, features, dropout))
                current = out
            self.up.append(Double(out, out) if level else nn.Identity())
        self.output = zero_init(nn.Conv2d(widths[0], pixel, 3, padding=1))
        self.to(memory_format=torch.channels_last)

    def forward(
        self, x_t: Float[Tensor, "b c h w"], log_snr: Float[Tensor, " b"], y: Labels = None
    ) -> Float[Tensor, "b c h w"]:
        condition = self.condition(log_snr, y)
        h = F.pixel_unshuffle(x_t, self.patch_size).contiguous(memory_format=torch.channels_last)
        h = self.input(h)
        skips = [h]
        for layer in self.down:
            h = layer(h, condition)
            skips.append(h)
        first, attention, last = self.middle
        h = last(attention(first(h, condition)), condition)
        for layer in self.up:
            if isinstance(layer, FastBlock):
                h = layer(torch.cat([h, skips.pop()], dim=1), condition)
            else:
                h = layer(h)
        return F.pixel_shuffle(self.output(F.silu(normalise(h))), self.patch_size)


def normalise(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Subtract the mean of each image's values and divide by their standard deviation, in memory order."""
    last = x.permute(0, 2, 3, 1)
    return F.layer_norm(last, last.shape[1:]).permute(0, 3, 1, 2)


class FastBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, condition_channels: int, dropout: float) -> None:
        super().__init__()
        self.scale_shift = nn.Linear(condition_channels, 2 * in_channels)
        self.conv_1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.conv_2 = zero_init(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Float[Tensor, "b i h w"], condition: Float[Tensor, "b c"]) -> Float[Tensor, "b o h w"]:
        scale, shift = self.scale_shift(condition)[..., None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, normalise(x), 1 + scale)
        h = self.conv_1(F.silu(h))
        return self.skip(x) + self.conv_2(self.dropout(F.silu(h)))


class Halve(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 2, stride=2)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.conv(x)


class Double(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 4 * out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        pixels = self.conv(x).permute(0, 2, 3, 1).reshape(b, h, w, 2, 2, -1)
        return pixels.transpose(2, 3).reshape(b, 2 * h, 2 * w, -1).permute(0, 3, 1, 2)


class RelativeAttention(nn.Module):
    def __init__(self, channels: int, sizes: Sequence[int], head_channels: int) -> None:
        super().__init__()
        self.heads = attention_heads(channels, head_channels)
        height, width = sizes
        self.qkv = nn.Linear(channels, 3 * channels)
        self.output = zero_init(nn.Linear(channels, channels))
        self.bias = nn.Parameter(torch.zeros(self.heads, (2 * height - 1) * (2 * width - 1)))
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        y, x = y.flatten(), x.flatten()
        index = (y[:, None] - y + height - 1) * (2 * width - 1) + x[:, None] - x + width - 1
        self.register_buffer("index", index, persistent=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        b, c, height, width = x.shape
        tokens = x.permute(0, 2, 3, 1).reshape(b, height * width, c)
        q, k, v = (
            self.qkv(F.layer_norm(tokens, tokens.shape[1:])).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )
        scores = q @ k.transpose(-1, -2) / math.sqrt(c // self.heads) + self.bias[:, self.index]
        attended = (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).reshape(tokens.shape)
        return (tokens + self.output(attended)).unflatten(1, (height, width)).permute(0, 3, 1, 2)
