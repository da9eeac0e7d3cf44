"""Classifier-free guidance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from guided_diffusion.denoisers import UNLABELLED, Denoise, Labels, Prediction
from guided_diffusion.guidance.base import Scale, check_length, check_scale
from guided_diffusion.schedules import Schedule, expand_as


@dataclass(frozen=True)
class ClassifierFree:
    """``u + w (c - u)``, with ``c = D(x_t, t, y)`` and ``u = D(x_t, t, None)``.

    Ho & Salimans 2022 (arXiv 2207.12598, eq. 6, with their w + 1 as our w). It holds for x0 and for
    eps alike, so a prediction stays one. Both evaluations are one batch of the network; where
    w = 0 or w = 1 one of them is enough and the other is not made, so that 0 is the unconditional
    and 1 the conditional model to the bit.

    Args:
        scale: w, a number or a tensor of shape (b,).

    Raises:
        ValueError: for a scale that is not finite.
    """

    scale: Scale = 1.0

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def unguided(self) -> ClassifierFree:
        return replace(self, scale=1.0)

    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        scale = torch.as_tensor(self.scale, dtype=torch.float64, device="cpu")
        with_label, without_label = scale != 0, scale != 1

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            if y is None:
                return denoise(x_t, t, None)
            check_length(scale, x_t)
            c_rows, u_rows = (
                rows.expand(len(x_t)).nonzero()[:, 0].to(x_t.device) for rows in (with_label, without_label)
            )
            rows = torch.cat([c_rows, u_rows])
            both = denoise(x_t[rows], t[rows], torch.cat([y[c_rows], torch.full_like(u_rows, UNLABELLED)]))
            w = expand_as(scale.to(x_t).expand(len(x_t)), x_t)

            def combine(values: Tensor) -> Tensor:  # a row that was not evaluated is 0 and drops out, exactly
                c = torch.zeros_like(values[:1]).expand_as(x_t).index_copy(0, c_rows, values[: len(c_rows)])
                u = torch.zeros_like(values[:1]).expand_as(x_t).index_copy(0, u_rows, values[len(c_rows) :])
                return u + w * (c - u)

            return Prediction(combine(both.x0), combine(both.eps))

        return guided
