"""Condition-annealed sampling (CADS)."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from guided_diffusion.denoisers import UNLABELLED, Denoise, Labels, Prediction
from guided_diffusion.guidance.base import Guidance, Scale, along_walk, as_scale, conditional_and_unconditional
from guided_diffusion.guidance.classifier_free import ClassifierFree
from guided_diffusion.guidance.weak import capability, extrapolate
from guided_diffusion.samplers.walk import OncePerStep, Walk
from guided_diffusion.schedules import Schedule, to_device


@dataclass(frozen=True)
class ConditionAnnealed(Guidance):
    """``u + w (c - u)``, with noise on the embeddings of the label and of "no label" early in sampling.

    ``e^ = sqrt(g) e + s sqrt(1 - g) n``, where g(t) is 1 for t <= tau1, 0 for t >= tau2 and linear between, and n is
    drawn anew for both embeddings in each step. The network gets ``psi r + (1 - psi) e^``, where r is ``e^`` rescaled
    to the mean and std of e. Samples of a class become more diverse. See Sadat et al. 2023, arXiv 2310.17347; the rule
    is that of public ports, but with the mean and std of each sample. The paper was not read.

    Args:
        scale: w, a number or a tensor of shape (b,).
        tau1: The time up to which there is no noise; with ``tau1 = tau2 = 1`` it is ``ClassifierFree``.
        tau2: The time from which the label counts for nothing.
        noise_scale: s, the std of the noise at g = 0. With s = 0 labels still fade, or vanish at tau2 if psi = 1.
        psi: The weight of the rescaled embedding, in [0, 1].

    Raises:
        ValueError: If a setting is out of range; when called, if the network has no label embeddings.
    """

    as_classifier_free: ClassVar[dict[str, object]] = {"tau1": 1.0, "tau2": 1.0}

    scale: Scale = 1.0
    tau1: float = 0.6
    tau2: float = 0.9
    noise_scale: float = 0.25
    psi: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.tau1 <= self.tau2 <= 1:
            raise ValueError(f"0 <= tau1 <= tau2 <= 1 must hold, got {self.tau1} and {self.tau2}")
        if not 0 <= self.noise_scale < math.inf:
            raise ValueError(f"noise_scale must be at least 0 and finite, got {self.noise_scale}")
        if not 0 <= self.psi <= 1:
            raise ValueError(f"psi must be in [0, 1], got {self.psi}")

    def unguided(self) -> Guidance:
        return replace(self, scale=1.0, tau1=1.0, tau2=1.0)

    def counted_as(self) -> Guidance:
        return ClassifierFree(self.scale)

    @along_walk
    def __call__(self, denoise: Denoise, schedule: Schedule, walk: Walk) -> Denoise:
        embed = capability(denoise, "embed_labels", "condition-annealed sampling", "has label embeddings")
        scale, draw, noise = as_scale(self.scale), walk.noise("cads"), OncePerStep[Tensor](walk)

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            labels = torch.full_like(t, UNLABELLED, dtype=torch.long) if y is None else y
            both = torch.stack([embed(labels), embed(torch.full_like(labels, UNLABELLED))], dim=1)
            drawn = to_device(noise(lambda _: draw(both.shape)), both)
            drawn = torch.where((labels < 0)[:, None, None], drawn[:, 1:], drawn)  # c is u without a label
            g = self.share(walk.t).expand(len(t))[:, None, None]
            wide = torch.promote_types(both.dtype, torch.float32)
            noisy = self.annealed(both.to(wide), to_device(g.to(wide), both), drawn.to(wide)).to(both.dtype)
            c, u = conditional_and_unconditional(denoise, x_t, t, noisy[:, 0], scale, noisy[:, 1])
            return extrapolate(c, u, scale)

        return guided

    def share(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Return g, the share of the variance that the embedding keeps at each time."""
        slope = (self.tau2 - t) / max(self.tau2 - self.tau1, torch.finfo(torch.float64).tiny)
        return torch.where(t <= self.tau1, 1.0, slope.clamp(0, 1))

    def annealed(self, e: Tensor, g: Tensor, noise: Tensor) -> Tensor:
        """Return the noisy embeddings, rescaled by the mean and standard deviation over the last axis."""
        noisy = g.sqrt() * e + self.noise_scale * (1 - g).sqrt() * noise
        std, mean = torch.std_mean(e, dim=-1, keepdim=True)
        noisy_std, noisy_mean = torch.std_mean(noisy, dim=-1, keepdim=True)
        ratio = torch.where(noisy_std > 0, std / noisy_std, 1)
        rescaled = (noisy - noisy_mean) * ratio + mean
        return torch.where(g == 1, e, self.psi * rescaled + (1 - self.psi) * noisy)
