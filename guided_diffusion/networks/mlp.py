"""Multilayer perceptrons for points in a space of few dimensions: the networks of a denoiser and of a classifier."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from guided_diffusion.denoisers import Condition
from guided_diffusion.networks.layers import Conditioning, noise_embedding, zero_init
from guided_diffusion.utils.validation import check_positive


def waves(x: Float[Tensor, "b d"], harmonics: int) -> Float[Tensor, "b features"]:
    """Return the coordinates and, for i = 0, 1, ..., sine and cosine of ``2^i pi / 2`` times each of them.

    These let the network learn fine detail sooner (Tancik et al. 2020, arXiv 2006.10739).
    """
    phases = [x * (math.pi / 2 * 2**i) for i in range(harmonics)]
    return torch.cat([x, *(phase.sin() for phase in phases), *(phase.cos() for phase in phases)], dim=1)


class MLPBlock(nn.Module):
    """A layer with scale and shift from the condition: ``SiLU((1 + scale) (W h + b) + shift)``."""

    def __init__(self, in_features: int, width: int, condition_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, width)
        self.scale_shift = nn.Linear(condition_features, 2 * width)

    def forward(self, h: Float[Tensor, "b i"], condition: Float[Tensor, "b c"]) -> Float[Tensor, "b o"]:
        scale, shift = self.scale_shift(condition).chunk(2, dim=1)
        return F.silu(self.linear(h) * (1 + scale) + shift)


class MLP(nn.Module):
    """A denoiser's network for points, ``mlp(x_t, log_snr, y) -> F``, with F of the shape of ``x_t``.

    Args:
        dimensions: The number of coordinates of a point.
        num_classes: The number of classes; a label is 0 to ``num_classes - 1``, or negative for none.
        embedding: The size of the vector for noise level and label, which conditions every layer.
        harmonics: The number of frequencies at which the input has sine and cosine of each coordinate; 0 for none.
        combine: How noise level and label are combined: ``add``, ``multiply`` or ``concat``.
    """

    def __init__(
        self,
        dimensions: int,
        num_classes: int,
        width: int = 96,
        layers: int = 3,
        embedding: int = 64,
        harmonics: int = 3,
        combine: str = "add",
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.condition = Conditioning(num_classes, embedding, combine)
        self.harmonics = harmonics
        self.hidden = _hidden(dimensions * (1 + 2 * harmonics), width, layers, embedding)
        self.output = zero_init(nn.Linear(width, dimensions))

    def embed_labels(self, y: Int[Tensor, " b"]) -> Float[Tensor, "b e"]:
        """Return the embeddings of labels, which ``forward`` takes in place of them."""
        return self.condition.embed(y)

    def forward(
        self, x_t: Float[Tensor, "b d"], log_snr: Float[Tensor, " b"], y: Condition = None
    ) -> Float[Tensor, "b d"]:
        condition, h = self.condition(log_snr, y), waves(x_t, self.harmonics)
        for layer in self.hidden:
            h = layer(h, condition)
        return self.output(h)


class NoisyMLPClassifier(nn.Module):
    """A time-aware classifier's network for points, ``network(x_t, log_snr) -> logits``; arguments as for ``MLP``."""

    def __init__(
        self,
        dimensions: int,
        num_classes: int,
        width: int = 96,
        layers: int = 3,
        embedding: int = 64,
        harmonics: int = 3,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.condition = noise_embedding(embedding)
        self.harmonics = harmonics
        self.hidden = _hidden(dimensions * (1 + 2 * harmonics), width, layers, embedding)
        self.output = nn.Linear(width, num_classes)

    def forward(self, x_t: Float[Tensor, "b d"], log_snr: Float[Tensor, " b"]) -> Float[Tensor, "b classes"]:
        condition, h = self.condition(log_snr), waves(x_t, self.harmonics)
        for layer in self.hidden:
            h = layer(h, condition)
        return self.output(h)


def _hidden(features: int, width: int, layers: int, embedding: int) -> nn.ModuleList:
    check_positive(layers=layers)
    sizes = [features, *[width] * (layers - 1)]
    return nn.ModuleList(MLPBlock(size, width, embedding) for size in sizes)
