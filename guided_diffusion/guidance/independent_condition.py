"""Independent condition guidance (ICG)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.guidance.base import Guidance, Scale, along_walk, as_scale, conditional_and_unconditional
from guided_diffusion.guidance.self_guidance import SelfGuidance
from guided_diffusion.guidance.weak import capability, extrapolate
from guided_diffusion.samplers.walk import OncePerStep, Walk
from guided_diffusion.schedules import Schedule, to_device


@dataclass(frozen=True)
class IndependentCondition(Guidance):
    """``b + w (c - b)`` with ``b = D(x_t, t, y^)``, where ``y^`` is a random class, drawn anew in each step.

    All classes, that of the sample too, are equally likely. The network never predicts without a label, so it need not
    be trained with label dropout. A sample without a label is not guided.

    The expectation of ``b`` is the mean over the classes with equal weights, whereas ``u`` weighs them by their
    posterior, so it is not classifier-free guidance on average. See Sadat et al. 2024, arXiv 2407.02687, who also draw
    Gaussian embeddings in place of classes.

    Args:
        scale: w, a number or a tensor of shape (b,); 1 is the conditional model.

    Raises:
        ValueError: If a scale is not finite; when called, if the network does not say its number of classes.
    """

    scale: Scale = 1.0

    def counted_as(self) -> Guidance:
        return SelfGuidance(self.scale)

    @along_walk
    def __call__(self, denoise: Denoise, schedule: Schedule, walk: Walk) -> Denoise:
        name = "independent condition guidance"
        classes = capability(denoise, "num_classes", name, "says its number of classes")
        scale, draw, drawn = as_scale(self.scale), walk.noise("icg"), OncePerStep[Tensor](walk)

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            if y is None:
                return denoise(x_t, t, y)
            random_classes = drawn(lambda _: _class_of(draw(x_t.shape[:1]), classes))
            other = torch.where(y < 0, y, to_device(random_classes, y))
            c, b = conditional_and_unconditional(denoise, x_t, t, y, scale, other)
            return extrapolate(c, b, scale)

        return guided


def _class_of(normal: Tensor, classes: int) -> Tensor:
    """Return a uniform class for each standard normal number: its cdf, cut into equal intervals."""
    return (torch.special.ndtr(normal) * classes).long().clamp(max=classes - 1)
