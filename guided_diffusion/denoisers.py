r"""Denoisers: estimates of the clean sample and of the noise from a noisy sample.

A network F is trained to output one of three quantities. With ``x_t = alpha x_0 + sigma eps``:

    eps:  F = eps                      x0 = (x_t - sigma F) / alpha       eps = F
    x0:   F = x0                       x0 = F                             eps = (x_t - alpha F) / sigma
    v:    F = alpha eps - sigma x0     x0 = alpha x_t - sigma F           eps = sigma x_t + alpha F

The last line holds where ``alpha^2 + sigma^2 = 1`` (Salimans & Ho 2022, arXiv 2202.00512, appendix D).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from guided_diffusion.schedules import Samples, Schedule, Times, expand_as

UNLABELLED = -1
"""The label of a sample without one, in a batch where others have a label."""

Labels = Int[Tensor, " b"] | None
"""The class of each sample, ``UNLABELLED`` for a sample without one; ``None`` if no sample has a class."""


Condition = Labels | Float[Tensor, "b e"]
"""Labels, or in their place the label embeddings of the network, see ``Denoiser.embed_labels``."""


class Prediction(NamedTuple):
    """The estimates of clean sample and noise; ``alpha x0 + sigma eps = x_t`` unless a guidance says otherwise."""

    x0: Samples
    eps: Samples

    @classmethod
    def from_x0(cls, x0: Samples, x_t: Samples, t: Times, schedule: Schedule) -> Prediction:
        """Return the prediction with this ``x0`` and ``eps = (x_t - alpha x0) / sigma``, for t > 0."""
        alpha, sigma = schedule(t)
        return cls(x0, (x_t - expand_as(alpha, x_t) * x0) / expand_as(sigma, x_t))


Denoise = Callable[[Tensor, Tensor, Labels], Prediction]
"""A denoiser, ``denoise(x_t, t, y) -> Prediction``, with one time per sample; samplers call it, guidance wraps it."""

Coefficients = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Parameterization:
    """The quantity F that the network outputs, given by coefficients (a, b) that are functions of (alpha, sigma).

    Args:
        name: The name in configs.
        target: The coefficients of F = a x0 + b eps.
        x0: The coefficients of x0 = a x_t + b F.
        eps: The coefficients of eps = a x_t + b F.
        snr_weight: The ratio of the squared error of F to that of x0, as a function of SNR.
    """

    name: str
    target: Coefficients
    x0: Coefficients
    eps: Coefficients
    snr_weight: Callable[[Tensor], Tensor]

    def __reduce__(self) -> tuple[Callable[[str], Parameterization], tuple[str]]:
        """Pickle by name, because the coefficients are lambdas."""
        return _parameterization, (self.name,)


def _parameterization(name: str) -> Parameterization:
    return PARAMETERIZATIONS[name]


def _first(alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ones_like(alpha), torch.zeros_like(alpha)


def _second(alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(alpha), torch.ones_like(alpha)


PARAMETERIZATIONS = {
    row.name: row
    for row in (
        Parameterization("eps", _second, lambda a, s: (1 / a, -s / a), _second, lambda snr: snr),
        Parameterization("x0", _first, _second, lambda a, s: (1 / s, -a / s), torch.ones_like),
        Parameterization("v", lambda a, s: (-s, a), lambda a, s: (a, -s), lambda a, s: (s, a), lambda snr: snr + 1),
    )
}


class Denoiser(nn.Module):
    """A network with a schedule and a parameterization: ``denoiser(x_t, t, y) -> Prediction``.

    Args:
        backbone: The network ``backbone(x_t, log_snr, y) -> F``, with F of the shape of ``x_t``. It is conditioned on
            log-SNR and never on an index, so the schedule may be changed after training.
        parameterization: What F is: ``eps``, ``x0`` or ``v``.

    The methods of guidance that need more of a network than predictions find it here, ``None`` where the network does
    not offer it: ``num_classes``, ``size_multiple`` and ``embed_labels``.

    Raises:
        ValueError: If the parameterization is unknown.
    """

    def __init__(self, backbone: nn.Module, schedule: Schedule, parameterization: str = "v") -> None:
        super().__init__()
        if parameterization not in PARAMETERIZATIONS:
            names = ", ".join(PARAMETERIZATIONS)
            raise ValueError(f"parameterization must be one of {names}, got {parameterization!r}")
        self.backbone = backbone
        self.schedule = schedule
        self.parameterization = PARAMETERIZATIONS[parameterization]

    @property
    def num_classes(self) -> int | None:
        """The number of classes of the labels."""
        return getattr(self.backbone, "num_classes", None)

    @property
    def size_multiple(self) -> int | None:
        """The number of which the sides of an image must be multiples, if the network takes images of any size."""
        return getattr(self.backbone, "size_multiple", None)

    @property
    def embed_labels(self) -> Callable[[Tensor], Tensor] | None:
        """The function that turns labels (b,) into embeddings (b, e), which the denoiser takes in place of labels."""
        return getattr(self.backbone, "embed_labels", None)

    def with_identity_attention(self) -> Denoiser:
        """Return a denoiser with the same weights, not a copy of them, in which each pixel attends to itself alone.

        Raises:
            ValueError: If the network has no layer of attention with the attribute ``is_identity``.
        """
        weights = {id(tensor): tensor for tensor in (*self.parameters(), *self.buffers())}
        weak = copy.deepcopy(self, weights)
        layers = [layer for layer in weak.modules() if getattr(layer, "is_identity", None) is not None]
        if not layers:
            name = type(self.backbone).__name__
            raise ValueError(f"perturbed-attention guidance needs attention, and {name} has none: use another guidance")
        for layer in layers:
            layer.is_identity = True  # type: ignore[assignment]
        return weak

    def output(self, x_t: Samples, t: Times, y: Condition = None) -> Samples:
        """Return the network's output F, in the precision of ``x_t`` also under autocast."""
        return self.backbone(x_t, self.schedule.log_snr(t), y).to(x_t.dtype)

    def target(self, x0: Samples, eps: Samples, t: Times) -> Samples:
        """Return the value that F should have for this clean sample and this noise."""
        return self._combine(self.parameterization.target, x0, eps, t)

    def forward(self, x_t: Samples, t: Times, y: Condition = None) -> Prediction:
        output = self.output(x_t, t, y)
        return Prediction(
            x0=self._combine(self.parameterization.x0, x_t, output, t),
            eps=self._combine(self.parameterization.eps, x_t, output, t),
        )

    def _combine(self, coefficients: Coefficients, first: Tensor, second: Tensor, t: Tensor) -> Tensor:
        a, b = coefficients(*self.schedule(t))
        return expand_as(a, first) * first + expand_as(b, second) * second
