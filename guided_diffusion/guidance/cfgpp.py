"""CFG++, as classifier-free guidance whose scale follows the steps of the sampler."""

from dataclasses import dataclass

from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.guidance.base import (
    Guidance,
    Scale,
    along_walk,
    as_scale,
    check_length,
    conditional_and_unconditional,
)
from guided_diffusion.guidance.classifier_free import ClassifierFree
from guided_diffusion.guidance.weak import extrapolate
from guided_diffusion.samplers.walk import Walk
from guided_diffusion.schedules import Schedule


@dataclass(frozen=True)
class CFGPlusPlus(Guidance):
    """``u + w_k (c - u)`` with ``w_k = lambda / (1 - exp(-h))``, where h is the step in half the log-SNR.

    CFG++ takes ``x0 = u + lambda (c - u)`` and adds the unconditional noise, ``x' = alpha' x0 + sigma' eps_u``. In
    ``ddim`` without noise that is exactly this schedule: ``w_k`` is large where the step is small, and lambda in the
    step to t = 0. As a schedule it keeps ``alpha x0 + sigma eps = x_t`` and works with every sampler.

    The scale is lambda, not an exponent of p(y|x): 0 is the unconditional model, and no value is the conditional one.
    The effective scale is ``w_k``, about lambda / h, which grows with the number of steps. See Chung et al. 2024
    (arXiv 2406.08070) and the authors' code, from which the equivalence is derived.

    Args:
        scale: lambda, a number or a tensor of shape (b,); the authors' range is [0, 1].

    Raises:
        ValueError: If a scale is not finite; when called, outside of a sampler.
    """

    scale: Scale = 0.6

    def unguided(self) -> Guidance:
        """Return classifier-free guidance at w = 1, because no lambda leaves the denoiser as it is."""
        return ClassifierFree()

    def counted_as(self) -> Guidance:
        return ClassifierFree(_evaluated(as_scale(self.scale)))

    @along_walk
    def __call__(self, denoise: Denoise, schedule: Schedule, walk: Walk) -> Denoise:
        strength = as_scale(self.scale)

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            check_length(strength, x_t)
            now, after = (schedule.log_snr(time.double()) for time in walk.ends)
            w = strength / -((now - after) / 2).expm1()
            c, u = conditional_and_unconditional(denoise, x_t, t, y, _evaluated(strength))
            return extrapolate(c, u, w)

        return guided


def _evaluated(strength: Tensor) -> Tensor:
    """Return a scale at which only u is evaluated where lambda is 0, and both predictions elsewhere."""
    return strength.where(strength == 0, 2.0)
