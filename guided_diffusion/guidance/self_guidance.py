"""Self-guidance, away from the prediction of the same network at a later time."""

from dataclasses import dataclass

from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.guidance.base import Guidance, Scale, as_scale, per_evaluation
from guided_diffusion.guidance.weak import guide_away, select
from guided_diffusion.schedules import Schedule, expand_as


@dataclass(frozen=True)
class SelfGuidance(Guidance):
    """``b + w (m - b)``, with ``m = D(x_t, t, y)`` and a ``b`` that has the eps of the network at a later time.

    ``eps_b = eps(x_t, min(t + shift, 1), y)`` at the same x_t, and ``x0_b = (x_t - sigma(t) eps_b) / alpha(t)``: the
    network takes the sample for noisier than it is. It works without labels too. At t = 1, b is m. See Li et al.
    2024, arXiv 2412.05827, whose strength is our w - 1; the rule is that of their code.

    Args:
        scale: w, a number or a tensor of shape (b,); 1 is the model itself.
        shift: The distance to the later time in units of t, at least 0; 0 is the model itself at every scale. The
            authors' 10 of 1000 steps is 0.01.

    Raises:
        ValueError: If a scale is not finite or ``shift`` is not in [0, 1].
    """

    scale: Scale = 1.0
    shift: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.shift <= 1:
            raise ValueError(f"shift must be in [0, 1], got {self.shift}")

    @per_evaluation
    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        scale = as_scale(self.scale)

        def later(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            later_t = (t + self.shift).clamp(max=1)
            prediction = denoise(x_t, later_t, y)
            alpha, sigma = (expand_as(value, x_t) for value in schedule(t))
            x0 = (x_t - sigma * prediction.eps) / alpha
            return select(later_t == t, prediction, Prediction(x0, prediction.eps))

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            return guide_away(denoise, later, x_t, t, y, scale)

        return guided
