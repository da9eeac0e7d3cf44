"""CFG-Zero*: classifier-free guidance with an optimized scale of the unconditional velocity."""

from dataclasses import dataclass

from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.guidance.base import (
    Guidance,
    Scale,
    as_scale,
    broadcast,
    conditional_and_unconditional,
    per_evaluation,
)
from guided_diffusion.guidance.geometry import flow_velocity, project, shift_velocity
from guided_diffusion.guidance.weak import extrapolate
from guided_diffusion.schedules import Schedule


@dataclass(frozen=True)
class ZeroStar(Guidance):
    """``f = k f_u + w (f_c - k f_u)`` on the flow velocity ``f = eps - x0``, with ``k = <f_c, f_u> / |f_u|^2``.

    ``k f_u`` is the projection of ``f_c`` onto ``f_u``, so in one dimension this is the conditional model. The authors
    add 1e-8 to ``|f_u|^2``. They also set the prediction to 0 in the first steps, which is left out here, because then
    no scale would leave the model as it is. See Fan et al. 2025 (arXiv 2503.18886).

    Args:
        scale: w, a number or a tensor of shape (b,). At 0 it is exactly the unconditional model, with a jump, and at 1
            the conditional one.

    Raises:
        ValueError: If a scale is not finite.
    """

    scale: Scale = 1.0

    @per_evaluation
    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        scale = as_scale(self.scale)

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            c, u = conditional_and_unconditional(denoise, x_t, t, y, scale)
            w, f_c, f_u = broadcast(scale, x_t), flow_velocity(c), flow_velocity(u)
            scaling = project(f_c - f_u, f_u)  # (k - 1) f_u, exactly 0 where c is u
            return shift_velocity(extrapolate(c, u, scale), (1 - w) * scaling, t, schedule)

        return guided
