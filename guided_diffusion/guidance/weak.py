"""Guidance away from a weak model, ``b + w (m - b)``: the formula, and what its methods may ask of a network.

``m`` is the model and ``b`` a weaker prediction: w = 1 is ``m`` and w = 0 is ``b``. The methods differ in how ``b`` is
made. Classifier-free guidance has ``m = c`` and ``b = u``; only there is w the exponent of p(y|x).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from guided_diffusion.denoisers import Condition, Denoise, Prediction
from guided_diffusion.guidance.base import broadcast, combine, needed
from guided_diffusion.schedules import Samples, Times, to_device


def extrapolate(model: Prediction, weak: Prediction, scale: Float[Tensor, "*b"]) -> Prediction:
    """Return ``b + w (m - b)``, with one w, or one for each sample. Where m and b are equal it is b, bit for bit."""
    w = broadcast(scale, model.x0)
    return combine(lambda m, b: b + w * (m - b), model, weak)


def guide_away(
    model: Denoise, weak: Denoise, x_t: Samples, t: Times, y: Condition, scale: Float[Tensor, "*b"]
) -> Prediction:
    """Return ``b + w (m - b)`` with ``m = model(x_t, t, y)`` and ``b = weak(x_t, t, y)``.

    For a sample with w = 1 ``weak`` is not evaluated, and for one with w = 0 ``model`` is not.

    Raises:
        ValueError: If ``scale``, from ``as_scale``, holds neither one w nor one for each sample.
    """
    needs_m, needs_b = needed(scale, x_t)
    if not needs_b.any():
        return model(x_t, t, y)
    if not needs_m.any():
        return weak(x_t, t, y)
    m, b = _of_rows(model, x_t, t, y, needs_m), _of_rows(weak, x_t, t, y, needs_b)
    return extrapolate(select(needs_m, m, b), select(needs_b, b, m), scale)


def _of_rows(denoise: Denoise, x_t: Samples, t: Times, y: Condition, is_needed: Bool[Tensor, " b"]) -> Prediction:
    """Return the prediction of the samples that need it; the rows of the others hold no meaningful values."""
    if is_needed.all():
        return denoise(x_t, t, y)
    rows = to_device(is_needed.nonzero()[:, 0], x_t)
    evaluated = denoise(x_t[rows], t[rows], None if y is None else y[rows])
    place = to_device((is_needed.cumsum(0) - 1).clamp(min=0), x_t)
    return Prediction(evaluated.x0[place], evaluated.eps[place])


def select(mask: Bool[Tensor, " b"], prediction: Prediction, other: Prediction) -> Prediction:
    """Return ``prediction`` for the samples in the mask and ``other`` for the rest."""
    mask = to_device(mask, prediction.x0).view(-1, *[1] * (prediction.x0.ndim - 1))
    return combine(lambda value, rest: torch.where(mask, value, rest), prediction, other)


def capability(denoise: Denoise, name: str, method: str, need: str) -> Any:
    """Return the attribute ``name`` of a denoiser, by which it offers more than predictions.

    Args:
        method: The name of the guidance, for the message.
        need: What the network must do, in words that follow "a network that", for the message.

    Raises:
        ValueError: If the denoiser does not offer it.
    """
    offered = getattr(denoise, name, None)
    if offered is None:
        network = getattr(denoise, "backbone", denoise)
        network_name = getattr(network, "__name__", type(network).__name__)
        raise ValueError(f"{method} needs a network that {need}, and {network_name} does not: use another guidance")
    return offered
