"""Perturbed-attention guidance."""

from dataclasses import dataclass

from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.guidance.base import Guidance, Scale, along_walk, as_scale
from guided_diffusion.guidance.self_guidance import SelfGuidance
from guided_diffusion.guidance.weak import capability, guide_away
from guided_diffusion.samplers.walk import Walk
from guided_diffusion.schedules import Schedule


@dataclass(frozen=True)
class PerturbedAttention(Guidance):
    """``b + w (m - b)``, with ``m = D(x_t, t, y)`` and ``b`` from the same network with the identity for attention.

    In ``b`` the map of self-attention, ``softmax(Q K^T / sqrt(d))``, is replaced by the identity, so that the output of
    the layer is V: each pixel attends only to itself. Here every layer is replaced; the authors choose some. It works
    without labels too. See Ahn et al. 2024, arXiv 2403.17377, whose strength is our w - 1.

    Args:
        scale: w, a number or a tensor of shape (b,); 1 is the model itself.

    Raises:
        ValueError: If a scale is not finite; when a walk begins, if the network has no attention.
    """

    scale: Scale = 1.0

    def counted_as(self) -> Guidance:
        return SelfGuidance(self.scale)

    @along_walk
    def __call__(self, denoise: Denoise, schedule: Schedule, walk: Walk) -> Denoise:
        name = "perturbed-attention guidance"
        weak = capability(denoise, "with_identity_attention", name, "has attention")()
        scale = as_scale(self.scale)

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            return guide_away(denoise, weak, x_t, t, y, scale)

        return guided
