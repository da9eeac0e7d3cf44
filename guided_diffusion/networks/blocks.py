"""Both halves of a U-Net, of which the time-aware classifier shares the first, and the check of their sizes."""

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from guided_diffusion.networks.layers import Attention, ResidualBlock, Upsample, group_norm
from guided_diffusion.utils.validation import check_positive, height_and_width


def check_sizes(
    image_size: int | Sequence[int],
    width: int,
    multipliers: Sequence[int],
    blocks: int,
    attention_levels: Sequence[int],
    head_channels: int,
    dropout: float,
    patch_size: int,
) -> None:
    """Raise ``ValueError`` unless the sizes are in range and images can be divided into patches and halved."""
    check_positive(width=width, blocks=blocks, head_channels=head_channels, patch_size=patch_size)
    if not multipliers or min(multipliers) < 1:
        raise ValueError(f"multipliers must hold numbers of at least 1, got {list(multipliers)}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}")
    levels = len(multipliers)
    sides = height_and_width(image_size)
    factor = patch_size * 2 ** (levels - 1)
    if any(side % factor for side in sides):
        larger = ",".join(str(math.ceil(side / factor) * factor) for side in sides)
        raise ValueError(
            f"images of {sides[0]}x{sides[1]} (height x width) can't be halved for each level: patch_size {patch_size} "
            f"and multipliers for {levels} levels need a multiple of {factor}: take image_size=[{larger}], or "
            f"{_settings_for(sides)}"
        )
    if not set(attention_levels) <= set(range(levels)):
        raise ValueError(f"attention_levels must be among 0 to {levels - 1}, got {list(attention_levels)}")


def check_groups(width: int, multipliers: Sequence[int]) -> None:
    """Raise ``ValueError`` unless the channels of each level can be divided into the groups of ``group_norm``."""
    for multiplier in multipliers:
        try:
            group_norm(width * multiplier)
        except ValueError as error:
            raise ValueError(f"width {width} times one of multipliers, {multiplier}: {error}") from error


def _settings_for(sides: tuple[int, int]) -> str:
    """Return settings with which a network takes images of this size, as text for an error message."""
    halvings = max(n for n in range(4) if all(side % 2**n == 0 for side in sides))
    return f"patch_size=1 multipliers={[1, 2, 2, 2][: halvings + 1]}".replace(", ", ",")


def contracting_half(
    in_channels: int,
    widths: Sequence[int],
    blocks: int,
    attention_levels: Sequence[int],
    block: Callable[[int, int, bool], nn.Module],
    halving: Callable[[int], nn.Module] | None = None,
) -> tuple[nn.ModuleList, list[int]]:
    """Return the layers on the way down, and the channels before the first and after each of them.

    ``widths`` holds the channels of each level; the resolution is halved between levels. Each level has ``blocks``
    layers ``block(in_channels, out_channels, attention)``. ``halving(channels)`` is by default ``Downsample``.
    """
    halve = halving or Downsample
    layers, channels = nn.ModuleList(), [in_channels]
    for level, out_channels in enumerate(widths):
        if level > 0:
            layers.append(halve(channels[-1]))
            channels.append(channels[-1])
        for _ in range(blocks):
            layers.append(block(channels[-1], out_channels, level in attention_levels))
            channels.append(out_channels)
    return layers, channels


def expanding_half(
    skips: Sequence[int],
    widths: Sequence[int],
    blocks: int,
    attention_levels: Sequence[int],
    block: Callable[[int, int, bool, bool], nn.Module],
) -> nn.ModuleList:
    """Return the layers on the way up, one for each skip connection, which is concatenated to the layer's input.

    ``skips`` is the list that ``contracting_half`` returns; the other arguments are as there. Each level has one block
    more than on the way down, ``block(in_channels, out_channels, attention, upsample)``.
    """
    layers, skips, current = nn.ModuleList(), list(skips), skips[-1]
    for level, out_channels in reversed(list(enumerate(widths))):
        for remaining in reversed(range(blocks + 1)):
            upsample = level > 0 and remaining == 0
            layers.append(block(current + skips.pop(), out_channels, level in attention_levels, upsample))
            current = out_channels
    return layers


class Block(nn.Module):
    """A residual block, then attention, then upsampling; the last two are optional."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        attention: bool,
        upsample: bool = False,
        *,
        condition_channels: int,
        head_channels: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.residual = ResidualBlock(in_channels, out_channels, condition_channels, dropout)
        self.attention = Attention(out_channels, head_channels) if attention else nn.Identity()
        self.resize = Upsample(out_channels) if upsample else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.resize(self.attention(self.residual(x, condition)))


class Downsample(nn.Module):
    """A convolution with stride 2, which halves the resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.conv(x)
