"""Layers of the networks: normalisation, conditioning on noise level and label, residual blocks, attention."""

import math
import operator
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from guided_diffusion.denoisers import UNLABELLED, Condition

Module = TypeVar("Module", bound=nn.Module)


def zero_init(module: Module) -> Module:
    """Set all parameters of a module to zero, so that a residual branch adds nothing at first; return the module."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a GroupNorm with up to 32 groups of at least 8 channels; unlike BatchNorm it never mixes samples.

    Raises:
        ValueError: If the channels can't be divided into groups.
    """
    groups = min(32, channels // 8)
    if groups < 1 or channels % groups:
        raise ValueError(f"{channels} channels can't be divided into groups: take a multiple of 8, of 32 from 256 on")
    return nn.GroupNorm(groups, channels)


class LogSNREmbedding(nn.Module):
    """Sinusoids of the noise angle ``atan(exp(-log_snr / 2))``, which is bounded where log-SNR is not.

    The angle, from 0 to pi/2, is scaled to the range of DDPM's steps, 0 to 1000, for which these frequencies are used
    (Vaswani et al. 2017, arXiv 1706.03762, section 3.5).
    """

    frequencies: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        frequencies = torch.exp(-math.log(10_000) * torch.arange(channels // 2) / (channels // 2))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, log_snr: Float[Tensor, " b"]) -> Float[Tensor, "b c"]:
        angle = (-log_snr.float() / 2).exp().atan() * (2000 / math.pi)
        phase = angle[:, None] * self.frequencies
        return torch.cat([phase.cos(), phase.sin()], dim=1)


def noise_embedding(channels: int) -> nn.Sequential:
    """Return a module that embeds log-SNR, shape (b,), in a learned vector, shape (b, channels)."""
    return nn.Sequential(LogSNREmbedding(channels), nn.Linear(channels, channels), nn.SiLU())


def _concat(time: Tensor, label: Tensor) -> Tensor:
    return torch.cat([time, label], dim=1)


COMBINATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": operator.add,
    "multiply": operator.mul,
    "concat": _concat,
}


class Conditioning(nn.Module):
    """An embedding of the noise level and the label of each sample in one vector.

    The label table has ``num_classes + 1`` rows. The last stands for "no label" and is used for negative labels only:
    the label ``num_classes`` is out of range. Embeddings from ``embed``, also changed ones, may stand in for labels.

    Args:
        num_classes: The number of classes; a label is 0 to ``num_classes - 1``, or negative for none.
        combine: How noise level and label are combined: ``add``, ``multiply`` or ``concat``.

    Raises:
        ValueError: If ``combine`` is unknown.
    """

    def __init__(self, num_classes: int, channels: int, combine: str = "add") -> None:
        super().__init__()
        if combine not in COMBINATIONS:
            raise ValueError(f"combine must be one of {', '.join(COMBINATIONS)}, got {combine!r}")
        self.num_classes = num_classes
        self.combine = COMBINATIONS[combine]
        self.time = noise_embedding(channels)
        self.label = nn.Embedding(num_classes + 1, channels)
        self.output = nn.Linear(2 * channels if combine == "concat" else channels, channels)

    def embed(self, y: Int[Tensor, " b"]) -> Float[Tensor, "b c"]:
        """Return the embeddings of labels."""
        return self.label(torch.where(y < 0, self.num_classes, y + (y >= self.num_classes)))

    def forward(self, log_snr: Float[Tensor, " b"], y: Condition) -> Float[Tensor, "b c"]:
        if y is None:
            y = torch.full_like(log_snr, UNLABELLED, dtype=torch.long)
        label = y if y.is_floating_point() else self.embed(y)
        return F.silu(self.output(self.combine(self.time(log_snr), label)))


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU and convolution, twice, with the condition as scale and shift after the second GroupNorm.

    See "adaptive group normalization" in section 3 of Dhariwal & Nichol 2021 (arXiv 2105.05233).
    """

    def __init__(self, in_channels: int, out_channels: int, condition_channels: int, dropout: float) -> None:
        super().__init__()
        self.norm_1 = group_norm(in_channels)
        self.conv_1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.scale_shift = nn.Linear(condition_channels, 2 * out_channels)
        self.norm_2 = group_norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv_2 = zero_init(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Float[Tensor, "b i h w"], condition: Float[Tensor, "b c"]) -> Float[Tensor, "b o h w"]:
        h = self.conv_1(F.silu(self.norm_1(x)))
        scale, shift = self.scale_shift(condition)[..., None, None].chunk(2, dim=1)
        h = self.norm_2(h) * (1 + scale) + shift
        return self.skip(x) + self.conv_2(self.dropout(F.silu(h)))


class Upsample(nn.Module):
    """Nearest-neighbour upsampling to twice the resolution and a convolution, as one transposed convolution.

    In the upsampled image each original pixel is a 2x2 patch of equal values. Adding up the 3x3 weights over such
    patches gives an equivalent 4x4 kernel for the original image, with 4/9 of the multiplications.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        kernel = F.pad(self.conv.weight.flip(2, 3).transpose(0, 1), (1, 1, 1, 1))
        kernel = kernel[:, :, 1:] + kernel[:, :, :-1]
        kernel = kernel[..., 1:] + kernel[..., :-1]
        return F.conv_transpose2d(x, kernel, self.conv.bias, stride=2, padding=1)


def attention_heads(channels: int, head_channels: int) -> int:
    """Return the number of attention heads, at least one, of about ``head_channels`` channels each.

    Raises:
        ValueError: If the channels can't be divided evenly.
    """
    heads = max(1, channels // head_channels)
    if channels % heads:
        raise ValueError(f"{channels} channels can't be divided into {heads} attention heads: change head_channels")
    return heads


class Attention(nn.Module):
    """Self-attention over the pixels, added to the input; with ``is_identity`` each pixel attends to itself alone."""

    is_identity: bool = False

    def __init__(self, channels: int, head_channels: int) -> None:
        super().__init__()
        self.heads = attention_heads(channels, head_channels)
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.output = zero_init(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        qkv = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1)).transpose(-1, -2)
        query, key, value = qkv.unbind(1)
        attended = value if self.is_identity else F.scaled_dot_product_attention(query, key, value)
        return x + self.output(attended.transpose(-1, -2).reshape(x.shape))


class AttentionPooling(nn.Module):
    """Attention over the pixels of an image with their mean as the query, which gives one vector.

    The mean is also put before the pixels as a token, and every token gets a learned embedding of its place
    (Dhariwal & Nichol 2021, arXiv 2105.05233, section 4; CLIP, arXiv 2103.00020, section 2.4).
    """

    def __init__(self, channels: int, num_pixels: int, head_channels: int, out_channels: int) -> None:
        super().__init__()
        self.heads = attention_heads(channels, head_channels)
        self.places = nn.Parameter(torch.randn(num_pixels + 1, channels) / channels**0.5)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.output = nn.Linear(channels, out_channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o"]:
        pixels = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([pixels.mean(1, keepdim=True), pixels], dim=1) + self.places
        query = self.query(tokens[:, :1]).unflatten(2, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(tokens).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.output(F.scaled_dot_product_attention(query, key, value).flatten(1))
