"""The base class of the methods that guide by the gradient of a classifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from jaxtyping import Bool, Float, Int
from torch import Tensor

from guided_diffusion.classifiers import Classify, Objective, is_judge, logits_and_gradient
from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.guidance.base import Guidance, Scale, along_walk, as_scale, broadcast, check_length
from guided_diffusion.samplers.walk import Walk
from guided_diffusion.schedules import Samples, Schedule, Times, expand_as, to_device

BASES = {"unconditional": 0.0, "conditional": 1.0}
"""The exponent of p(y|x) that the denoiser has without a classifier."""

Direction = Callable[[Tensor, Prediction, Tensor, Tensor, Tensor], Tensor]
"""A function ``direction(rows, base, x_t, t, y)``: a classifier's direction for the samples ``rows``, 0 for others."""


@dataclass(frozen=True)
class ByClassifier(Guidance):
    r"""``eps - k sigma d`` and ``x0 + k sigma^2 / alpha d``, with a direction d that the classifier gives.

    ``eps`` and ``x0`` are the prediction of the denoiser, the base, and ``k`` is the part of the scale w that the base
    lacks: ``k = w`` if it is unconditional and ``k = w - 1`` if it is conditional. For samples with k = 0 or without a
    label the prediction is exactly the base's, and the classifier is not evaluated. (On a GPU it is evaluated for those
    without a label, because otherwise the host would have to wait for the labels.)

    Args:
        classifier: ``classifier(x_t, t) -> logits``.
        scale: w, a number or a tensor of shape (b,).
        base: Whether the denoiser is given the label: ``unconditional`` or ``conditional``.

    Raises:
        ValueError: If a scale is not finite or the base unknown; when called, if there is no classifier.
    """

    needs_classifier: ClassVar[bool] = True

    classifier: Classify | None = None
    scale: Scale = 1.0
    base: str = "unconditional"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.base not in BASES:
            raise ValueError(f"base must be {' or '.join(BASES)}, got {self.base!r}")

    def unguided(self) -> ByClassifier:
        return replace(self, scale=BASES[self.base])

    def with_classifier(self, classifier: Classify) -> ByClassifier:
        return replace(self, classifier=classifier)

    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        if self.classifier is None:
            raise ValueError("classifier guidance needs a classifier: add classifier=PATH, or with_classifier(...)")
        return self._guided(denoise, schedule)

    @along_walk
    def _guided(self, denoise: Denoise, schedule: Schedule, walk: Walk) -> Denoise:
        assert self.classifier
        direction, scale, base_scale = self.direction(self.classifier, walk), as_scale(self.scale), BASES[self.base]

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            check_length(scale, x_t)
            base = denoise(x_t, t, y if self.base == "conditional" else None)
            w = self.scale_at(scale, walk, schedule)
            lacking = w != base_scale
            if y is None or not lacking.any():
                return base
            rows = rows_to_guide(lacking.expand(len(y)), y)
            if not len(rows):
                return base
            d = direction(rows, base, x_t, t, y)
            k = broadcast(w, d) - base_scale
            alpha, sigma = (expand_as(value, d) for value in schedule(t))
            return Prediction(
                x0=base.x0 + (sigma**2 / alpha * (k * d)).to(base.x0.dtype),
                eps=base.eps - (sigma * (k * d)).to(base.eps.dtype),
            )

        return guided

    def direction(self, classify: Classify, walk: Walk) -> Direction:
        """Return the direction d of this method, for one walk."""
        raise NotImplementedError

    def scale_at(self, scale: Float[Tensor, "*s"], walk: Walk, schedule: Schedule) -> Float[Tensor, "*b"]:
        """Return the scale at the time of the walk, by default the same at every time."""
        return scale


def rows_to_guide(lacking: Bool[Tensor, " b"], y: Int[Tensor, " b"]) -> Int[Tensor, " r"]:
    """Return the indices of the samples that lack guidance, without the unlabelled ones if the labels are on the CPU.

    ``lacking`` is on the CPU. To leave out samples by labels on a GPU, the host would have to wait.
    """
    if y.device.type == "cpu":
        lacking = lacking & (y >= 0)
    return to_device(lacking.nonzero()[:, 0], y)


def gradient_of_rows(
    rows: Int[Tensor, " r"], objective: Objective, classify: Classify, x: Samples, t: Times, y: Int[Tensor, " b"]
) -> Samples:
    """Return the gradient of ``objective`` for the samples ``rows``; 0 for the others and for those without a label."""
    labels = y[rows]
    grad = logits_and_gradient(objective, classify, x[rows], t[rows], labels.clamp(min=0))[1]
    grad = grad.flatten(1).masked_fill((labels < 0)[:, None], 0).view_as(grad)
    return grad.new_zeros(x.shape).index_copy(0, rows, grad)


def check_takes_noise(classifier: Classify | None) -> None:
    """Raise ``ValueError`` if a classifier for noisy samples is a judge, which knows only clean images."""
    if is_judge(classifier):
        raise ValueError(
            "classifier holds a judge, which knows clean images alone: name the checkpoint of a time-aware classifier, "
            "or add guidance=joint_temperature"
        )
