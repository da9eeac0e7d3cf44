"""Training losses, their weightings, and the random times and dropped labels that they need."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from guided_diffusion.classifiers import Classifier
from guided_diffusion.denoisers import UNLABELLED, Denoiser, Labels, Parameterization
from guided_diffusion.schedules import Samples, Schedule, Times, perturb

Weighting = Callable[[Tensor, Parameterization], Tensor]
"""The weight of each sample's squared error of the network's output: ``weighting(log_snr, parameterization)``."""


TimeSampling = Callable[[int, Schedule, torch.Generator], Tensor]
"""The random times of a batch, in (0, 1]: ``time_sampling(batch_size, schedule, generator)``."""

Attack = Callable[[Classifier, Tensor, Tensor, Tensor], Tensor]
"""A function ``attack(classifier, x_t, t, y)`` that returns noisy samples which mislead the classifier."""

SMALLEST_TIME = 1e-12
"""The smallest time of ``LogNormalTimes``: at t = 0 the log-SNR is infinite."""


@dataclass(frozen=True)
class Uniform:
    """A weight of 1: the plain squared error of the output (Ho et al. 2020, arXiv 2006.11239, eq. 14, for eps)."""

    def __call__(self, log_snr: Float[Tensor, " b"], parameterization: Parameterization) -> Float[Tensor, " b"]:
        return torch.ones_like(log_snr)


@dataclass(frozen=True)
class MinSNR:
    """A weight of ``min(SNR, gamma)`` on the squared error of x0, whatever the network outputs.

    On the network's output this is ``min(SNR, gamma) / SNR`` for eps and ``min(SNR, gamma) / (SNR + 1)`` for v
    (Hang et al. 2023, arXiv 2303.09556, section 3.4). An infinite ``gamma`` gives the uniform loss of eps.
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise ValueError(f"gamma must be positive, got {self.gamma}")

    def __call__(self, log_snr: Float[Tensor, " b"], parameterization: Parameterization) -> Float[Tensor, " b"]:
        snr = log_snr.exp()
        return snr.clamp(max=self.gamma) / parameterization.snr_weight(snr)


def denoising_loss(
    denoiser: Denoiser, x0: Samples, y: Labels, t: Times, eps: Samples, weighting: Weighting
) -> Float[Tensor, " b"]:
    """Return the weighted mean squared error of the network's output for each sample; t in (0, 1]."""
    error = denoiser.output(perturb(x0, eps, t, denoiser.schedule), t, y) - denoiser.target(x0, eps, t)
    return weighting(denoiser.schedule.log_snr(t), denoiser.parameterization) * error.square().flatten(1).mean(1)


def classification_loss(
    classifier: Classifier,
    x0: Samples,
    y: Int[Tensor, " b"],
    t: Times,
    eps: Samples,
    attack: Attack | None = None,
) -> tuple[Float[Tensor, " b"], Float[Tensor, "b classes"]]:
    """Return the cross-entropy ``-log p(y | x_t)`` of each sample, and the logits; t in (0, 1].

    The classifier is trained on noisy samples because it will guide noisy samples (Dhariwal & Nichol 2021,
    arXiv 2105.05233, section 4). With an ``attack`` both are of the samples after it.
    """
    x_t = perturb(x0, eps, t, classifier.schedule)
    logits = classifier(attack(classifier, x_t, t, y) if attack else x_t, t)
    return F.cross_entropy(logits, y, reduction="none"), logits


def stratified_times(batch_size: int, generator: torch.Generator) -> Float[Tensor, " b"]:
    """Draw times uniform in (0, 1], one in each of ``batch_size`` equal parts, to lower the variance of the loss.

    This follows Kingma et al. 2021 (arXiv 2107.00630), appendix I.1, but with an independent draw in each part.
    """
    u = torch.rand(batch_size, generator=generator, device=generator.device)
    return (torch.arange(batch_size, device=generator.device) + 1 - u) / batch_size


def check_times(time_sampling: TimeSampling, schedule: Schedule, batch_size: int = 64) -> None:
    """Raise ``ValueError`` unless ``time_sampling`` draws one time in (0, 1] for each sample of a batch."""
    times = time_sampling(batch_size, schedule, torch.Generator().manual_seed(0))
    if times.shape != (batch_size,):
        raise ValueError(f"{batch_size} samples need as many times, got the shape {tuple(times.shape)}")
    if not ((times > 0) & (times <= 1)).all():
        raise ValueError(f"times must be in (0, 1], got {times.min():g} to {times.max():g}")


@dataclass(frozen=True)
class UniformTimes:
    """Times uniform in (0, 1], one in each of ``batch_size`` equal parts."""

    def __call__(self, batch_size: int, schedule: Schedule, generator: torch.Generator) -> Float[Tensor, " b"]:
        return stratified_times(batch_size, generator)


@dataclass(frozen=True)
class LogNormalTimes:
    """Times whose noise level ``sigma / alpha`` is log-normal, one in each of ``batch_size`` equally likely parts.

    A loss averaged over them weighs every noise level by its density here (Karras et al. 2022, arXiv 2206.00364,
    table 1, with mean -1.2 and standard deviation 1.2 for their loss).

    Args:
        mean: The mean of ``log(sigma / alpha)``.
        std: Its standard deviation.

    Raises:
        ValueError: If the mean is not finite, or the standard deviation not positive and finite; when called, if nearly
            all of the density lies above the highest noise level of the schedule, that of t = 1.
    """

    mean: float = 0.3
    std: float = 1.1

    def __post_init__(self) -> None:
        if not math.isfinite(self.mean):
            raise ValueError(f"mean must be finite, got {self.mean}")
        if not 0 < self.std < math.inf:
            raise ValueError(f"std must be positive and finite, got {self.std}")

    def __call__(self, batch_size: int, schedule: Schedule, generator: torch.Generator) -> Float[Tensor, " b"]:
        highest = -schedule.log_snr(torch.ones(())) / 2  # on the CPU, so that the host does not wait for a device
        share = torch.special.ndtr((highest - self.mean) / self.std).item()
        if share < 1e-3:
            raise ValueError(
                f"log(sigma / alpha) is at most {highest:.3g} in this schedule, and so is nearly none of a normal "
                f"density with mean {self.mean:g} and std {self.std:g}: lower the mean"
            )
        probability = share * stratified_times(batch_size, generator)
        log_noise = self.mean + self.std * torch.special.ndtri(probability)
        return schedule.time(-2 * log_noise).clamp(SMALLEST_TIME, 1)


def drop_labels(y: Int[Tensor, " b"], probability: float, generator: torch.Generator) -> Int[Tensor, " b"]:
    """Replace each label, independently, by ``UNLABELLED`` with this probability (Ho & Salimans 2022, algorithm 1)."""
    dropped = torch.rand(len(y), generator=generator, device=generator.device) < probability
    return torch.where(dropped, UNLABELLED, y)
