"""The type of guidance methods, the meaning of their scale, and both predictions of a model in one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from typing import ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from guided_diffusion.classifiers import Classify
from guided_diffusion.denoisers import UNLABELLED, Condition, Denoise, Prediction
from guided_diffusion.samplers.walk import Scale, Walk, Wrapped
from guided_diffusion.schedules import Samples, Schedule, Times, expand_as, to_device

W = TypeVar("W")

EDGE = 1e-5
"""The relative tolerance at the ends of an interval, because times are rounded to float32."""


@runtime_checkable
class Wrapper(Protocol):
    """A guidance or a threshold: anything that turns one denoiser into another."""

    def __call__(self, denoise: Denoise, schedule: Schedule, /) -> Denoise: ...


def along_walk(call: Callable[[W, Denoise, Schedule, Walk], Denoise]) -> Callable[[W, Denoise, Schedule], Denoise]:
    """Decorate a ``__call__`` that follows a walk and takes it as its last argument, after denoiser and schedule."""

    @wraps(call)
    def wrapped(self: W, denoise: Denoise, schedule: Schedule) -> Denoise:
        def follow(begun: Denoise, walk: Walk) -> Denoise:
            return call(self, begun, schedule, walk)

        def rescale(scale: Scale) -> Denoise:
            return replace(self, scale=scale)(denoise, schedule)  # type: ignore[type-var, operator]

        scale = getattr(self, "scale", None)
        return Wrapped(
            denoise, follow, None if scale is None else rescale, scale, getattr(self, "log_likelihood", None)
        )

    return wrapped


def per_evaluation(call: Callable[[W, Denoise, Schedule], Denoise]) -> Callable[[W, Denoise, Schedule], Denoise]:
    """Decorate a ``__call__`` that needs no walk, because each evaluation is independent of the others."""

    @along_walk
    @wraps(call)
    def wrapped(self: W, denoise: Denoise, schedule: Schedule, walk: Walk) -> Denoise:
        return call(self, denoise, schedule)

    return wrapped


@runtime_checkable
class Guidance(Wrapper, Protocol):
    """The base of guidance methods: frozen dataclasses whose ``scale`` is set by ``dataclasses.replace``.

    A scale of 1 is the conditional model and more than 1 guides it, unless a method says otherwise.
    """

    needs_classifier: ClassVar[bool] = False
    """Whether the method guides by the gradient of a classifier."""
    needs_weak: ClassVar[bool] = False
    """Whether the method guides away from a second, weaker model."""
    as_classifier_free: ClassVar[Mapping[str, object] | None] = None
    """The settings at which the samples are those of ``ClassifierFree`` of the same scale, bit for bit."""
    keeps_identity: ClassVar[bool] = True
    """Whether ``alpha x0 + sigma eps`` is ``x_t``."""

    @property
    def scale(self) -> Scale: ...

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def unguided(self) -> Guidance:
        """Return this method with the settings at which it leaves the denoiser as it is."""
        return replace(self, scale=1.0)  # type: ignore[type-var]

    def with_classifier(self, classifier: Classify) -> Guidance:
        """Return this method guided by ``classifier``, if it needs one."""
        return self

    def with_weak(self, weak: Denoise) -> Guidance:
        """Return this method guided away from the model ``weak``, if it needs one."""
        return self

    def counted_as(self) -> Guidance:
        """Return a method that takes as many evaluations of the network, but works without a walk on any network."""
        return self


def needs_classifier(method: object) -> bool:
    """Return ``needs_classifier`` of a guidance or its class, ``False`` if it has no such attribute."""
    return bool(getattr(method, "needs_classifier", False))


def needs_weak(method: object) -> bool:
    """Return ``needs_weak`` of a guidance or its class, ``False`` if it has no such attribute."""
    return bool(getattr(method, "needs_weak", False))


def check_scale(scale: Scale) -> None:
    """Raise ``ValueError`` unless ``scale`` is a finite number or a vector of them."""
    try:
        values = torch.as_tensor(scale)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"scale must be a number, got {scale!r}") from error
    if values.ndim > 1:
        raise ValueError(f"scale must be a number or have one value per sample, got shape {tuple(values.shape)}")
    if not values.isfinite().all():
        raise ValueError(f"scale must be finite, got {scale}")


def check_length(scale: Tensor, x: Tensor) -> None:
    """Raise ``ValueError`` unless ``scale`` is one number or has one for each sample of the batch ``x``."""
    if scale.ndim and len(scale) != len(x):
        raise ValueError(f"scale has {len(scale)} values for {len(x)} samples")


def as_scale(scale: Scale) -> Float[Tensor, "*b"]:
    """Return ``scale`` as a float64 tensor on the CPU, where its values can be compared without a transfer."""
    return torch.as_tensor(scale, dtype=torch.float64, device="cpu")


def check_interval(sigma_lo: float, sigma_hi: float, prefix: str = "") -> None:
    """Raise ``ValueError`` unless ``0 <= sigma_lo < sigma_hi``.

    The message puts ``prefix`` before the names of both settings.
    """
    if not 0 <= sigma_lo < sigma_hi:
        raise ValueError(f"0 <= {prefix}sigma_lo < {prefix}sigma_hi must hold, got {sigma_lo} and {sigma_hi}")


def in_interval(walk: Walk, schedule: Schedule, sigma_lo: float, sigma_hi: float) -> Bool[Tensor, "*b"]:
    """Return whether ``sigma_lo < sigma / alpha <= sigma_hi`` at the time of the walk.

    A noise level up to ``1 + EDGE`` times an end counts as that end.
    """
    noise = (-schedule.log_snr(walk.t) / 2).exp() / (1 + EDGE)
    return (sigma_lo < noise) & (noise <= sigma_hi)


def scale_in_interval(
    scale: Float[Tensor, "*s"], walk: Walk, schedule: Schedule, sigma_lo: float, sigma_hi: float
) -> Float[Tensor, "*b"]:
    """Return ``scale`` where ``sigma_lo < sigma / alpha <= sigma_hi`` at the time of the walk, and 1 elsewhere.

    ``scale``, from ``as_scale``, holds one w or one for each sample.
    """
    return scale.where(in_interval(walk, schedule, sigma_lo, sigma_hi), 1.0)


def broadcast(scale: Float[Tensor, "*b"], x: Samples) -> Float[Tensor, "b ..."]:
    """Return ``scale`` in the precision and on the device of ``x``, shaped to multiply it sample by sample."""
    check_length(scale, x)
    return expand_as(to_device(scale.to(x.dtype), x).expand(len(x)), x)


def needed(scale: Float[Tensor, "*b"], x: Samples) -> tuple[Bool[Tensor, " b"], Bool[Tensor, " b"]]:
    """Return which samples of the batch need the first prediction and which the second one of ``u + w (c - u)``.

    Raises:
        ValueError: If ``scale``, from ``as_scale``, holds neither one w nor one for each sample.
    """
    check_length(scale, x)
    return (scale != 0).expand(len(x)), (scale != 1).expand(len(x))


def shaped(scale: Float[Tensor, "*b"], shape: Float[Tensor, "*s"]) -> Float[Tensor, "*r"]:
    """Return ``1 + (w - 1) shape`` of scale w: exactly w where the shape is 1, and exactly 1 where w is."""
    return scale + (scale - 1) * (shape - 1)


def unless_conditional(scale: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Return a scale at which ``conditional_and_unconditional`` evaluates only c where w = 1, and both elsewhere.

    It is for methods that need c at w = 0 too.
    """
    return scale.where(scale == 1, 2.0)


def rows(x: Samples) -> Float[Tensor, "b d"]:
    """Return each sample as a row, in float32 or better, for sums and norms over all its dimensions."""
    return x.flatten(1).to(torch.promote_types(x.dtype, torch.float32))


def combine(rule: Callable[..., Tensor], *predictions: Prediction) -> Prediction:
    """Return ``rule`` applied to x0 and to eps; it must be a sum with coefficients that add up to 1."""
    return Prediction(*(rule(*values) for values in zip(*predictions, strict=True)))


def shift_x0(prediction: Prediction, change: Samples, t: Times, schedule: Schedule) -> Prediction:
    """Return a prediction with ``x0 + change``, and ``eps`` changed so that ``alpha x0 + sigma eps`` stays the same.

    A ``change`` of exactly 0 leaves the prediction as it is, bit for bit.
    """
    alpha, sigma = (expand_as(value, change) for value in schedule(t))
    return Prediction(prediction.x0 + change, prediction.eps - (alpha / sigma) * change)


def conditional_and_unconditional(
    denoise: Denoise, x_t: Samples, t: Times, y: Condition, scale: Float[Tensor, "*b"], other: Condition = None
) -> tuple[Prediction, Prediction]:
    """Return ``c = D(x_t, t, y)`` and ``u = D(x_t, t, None)``, both of the whole batch, from one call of ``denoise``.

    A sample with w = 1 needs only ``c`` and one with w = 0 only ``u``. The other prediction is not evaluated but set
    equal to it, so that ``c - u`` is exactly 0. If ``y`` is ``None``, both are ``u`` for all samples.

    Args:
        scale: One w or one for each sample, from ``as_scale``.
        other: The labels for ``u``; ``None`` for no labels.

    Raises:
        ValueError: If ``scale`` is a vector of another length than the batch.
    """
    needs_c, needs_u = needed(scale, x_t)
    return predictions_of_rows(denoise, x_t, t, y, needs_c, needs_u, other)


def predictions_of_rows(
    denoise: Denoise,
    x_t: Samples,
    t: Times,
    y: Condition,
    needs_c: Bool[Tensor, " b"],
    needs_u: Bool[Tensor, " b"],
    other: Condition = None,
) -> tuple[Prediction, Prediction]:
    """Return ``c`` and ``u``, evaluated for the samples of each mask; one that is not needed is set equal to the other.

    The masks are on the CPU, and every sample needs ``c`` or ``u``. The other arguments are those of
    ``conditional_and_unconditional``.
    """
    if y is None or not needs_c.any():
        u = denoise(x_t, t, y.new_full((len(y),), UNLABELLED) if y is not None and other is None else other)
        return u, u
    if not needs_u.any():
        c = denoise(x_t, t, y)
        return c, c
    c_rows, u_rows = needs_c.nonzero()[:, 0], needs_u.nonzero()[:, 0]
    rows = to_device(torch.cat([c_rows, u_rows]), x_t)
    others = y.new_full((len(u_rows),), UNLABELLED) if other is None else other[rows[len(c_rows) :]]
    labels = torch.cat([y[rows[: len(c_rows)]], others])
    both = denoise(x_t[rows], t[rows], labels)
    if len(rows) == 2 * len(x_t):
        x0, eps = (values.chunk(2) for values in both)
        return Prediction(x0[0], eps[0]), Prediction(x0[1], eps[1])
    c_place, u_place = needs_c.cumsum(0) - 1, needs_u.cumsum(0) - 1 + len(c_rows)
    places = torch.stack([c_place.where(needs_c, u_place), u_place.where(needs_u, c_place)])
    c, u = (Prediction(both.x0[place], both.eps[place]) for place in to_device(places, x_t))
    return c, u
