"""Temporal score rescaling: the temperature of the conditional model."""

from dataclasses import dataclass

import torch
from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.guidance.base import Guidance, Scale, as_scale, broadcast, per_evaluation, shift_x0
from guided_diffusion.schedules import Schedule, expand_as


@dataclass(frozen=True)
class ScoreRescaling(Guidance):
    """``eps = rho eps_c``, with ``rho = (sigma^2 + alpha^2 s^2) / (sigma^2 + alpha^2 s^2 / k)`` and ``k = scale``.

    It is exact for an isotropic Gaussian of variance ``s^2``, which becomes one of variance ``s^2 / k``: then k is the
    exponent of ``p(x|y)``. For other distributions it sharpens each mode and keeps the weights of the modes. It needs
    no unconditional model: the network is evaluated once (Xu et al. 2025, arXiv 2510.01184).

    Args:
        scale: k, at least 0, a number or a tensor of shape (b,). Above 1 it sharpens, below 1 it flattens, and at 1 it
            is the conditional model; at 0 the target is flat everywhere and eps is 0.
        data_std: s, the standard deviation of the modes, in units of x0. The authors' code uses 1 for diffusion.

    Raises:
        ValueError: If a scale is negative or not finite, or data_std not positive.
    """

    scale: Scale = 1.0
    data_std: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if (as_scale(self.scale) < 0).any():
            raise ValueError(f"scale must be at least 0, got {self.scale}")
        if not 0 < self.data_std < torch.inf:
            raise ValueError(f"data_std must be positive, got {self.data_std}")

    @per_evaluation
    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        scale = as_scale(self.scale)

        def rescaled(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            k, prediction = broadcast(scale, x_t), denoise(x_t, t, y)
            alpha, sigma = (expand_as(value, x_t) for value in schedule(t))
            variance = self.data_std**2
            change = (1 - k) * alpha * sigma * variance / (k * sigma**2 + alpha**2 * variance) * prediction.eps
            return shift_x0(prediction, change, t, schedule)

        return rescaled
