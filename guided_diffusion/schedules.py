r"""Noise schedules: how much signal and noise a sample holds at each time.

    x_t = alpha(t) x_0 + sigma(t) eps,    eps ~ N(0, I),    t in [0, 1]
    log_snr(t) = log(alpha(t)^2 / sigma(t)^2)

Time runs from the data (t = 0) to the noise (t = 1). Every schedule here preserves variance,
``alpha^2 + sigma^2 = 1``, so its log-SNR determines alpha and sigma (Kingma et al. 2021, arXiv 2107.00630, section 3).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from guided_diffusion.utils.validation import check_positive

Samples = Float[Tensor, "b *shape"]
"""A batch of samples of any shape, or noise for them."""
Times = Float[Tensor, " b"]
"""The time of each sample, in [0, 1]."""


class Schedule(ABC):
    """A noise schedule ``schedule(t) -> (alpha, sigma)`` for times of any shape, with log-SNR and its inverse."""

    @abstractmethod
    def log_snr(self, t: Float[Tensor, "*times"]) -> Float[Tensor, "*times"]:
        """Return the log signal-to-noise ratio at time ``t``, strictly decreasing and infinite at t = 0."""

    @abstractmethod
    def time(self, log_snr: Float[Tensor, "*times"]) -> Float[Tensor, "*times"]:
        """Return the time at which the log signal-to-noise ratio is ``log_snr``."""

    def __call__(self, t: Float[Tensor, "*times"]) -> tuple[Float[Tensor, "*times"], Float[Tensor, "*times"]]:
        """Return ``alpha = sqrt(sigmoid(log_snr))`` and ``sigma = sqrt(sigmoid(-log_snr))``; (1, 0) at t = 0."""
        log_snr = self.log_snr(t)
        return log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()


@dataclass(frozen=True)
class Cosine(Schedule):
    """The cosine schedule ``alpha = cos(a t)``, ``sigma = sin(a t)``.

    The angle ``a`` is a little less than pi/2, so that log-SNR at t = 1 is finite: ``log_snr_min``. See Nichol &
    Dhariwal 2021 (arXiv 2102.09672), eq. 17, without their offset, and Hoogeboom et al. 2023 (arXiv 2301.11093),
    section 3.1, for the finite end.
    """

    log_snr_min: float = -15.0

    def __post_init__(self) -> None:
        if not -50 <= self.log_snr_min < 0:
            raise ValueError(f"log_snr_min must be in [-50, 0), got {self.log_snr_min}")

    @property
    def _angle(self) -> float:
        return math.atan(math.exp(-self.log_snr_min / 2))

    def log_snr(self, t: Float[Tensor, "*times"]) -> Float[Tensor, "*times"]:
        # cos(a t) as the sine of pi/2 - a t: in float32 the angle a t itself may round to more than pi/2.
        rest = math.pi / 2 * (1 - t) + math.atan(math.exp(self.log_snr_min / 2)) * t
        return 2 * (rest.sin().log() - (self._angle * t).sin().log())

    def time(self, log_snr: Float[Tensor, "*times"]) -> Float[Tensor, "*times"]:
        return (-log_snr / 2).exp().atan() / self._angle


@dataclass(frozen=True)
class LinearBeta(Schedule):
    """The DDPM schedule ``alpha(k/T)^2 = prod_{i <= k} (1 - beta_i)``, with beta linear from start to end.

    The authors' step k is our time k/T, with T = ``num_timesteps``. Between these times ``log alpha^2`` is linear in t
    (Ho et al. 2020, arXiv 2006.11239, section 4).
    """

    num_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02

    def __post_init__(self) -> None:
        check_positive(num_timesteps=self.num_timesteps)
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise ValueError(f"need 0 < beta_start <= beta_end < 1, got {self.beta_start} and {self.beta_end}")

    def _table(self, like: Tensor) -> Float[Tensor, "{self.num_timesteps}+1"]:
        return to_device(_log_alpha_squared(self.num_timesteps, self.beta_start, self.beta_end).to(like.dtype), like)

    def log_snr(self, t: Float[Tensor, "*times"]) -> Float[Tensor, "*times"]:
        table = self._table(t)
        position = t * self.num_timesteps
        k = position.floor().clamp(0, self.num_timesteps - 1).long()
        log_alpha_squared = torch.lerp(table[k], table[k + 1], position - k)
        return log_alpha_squared - (-log_alpha_squared.expm1()).log()

    def time(self, log_snr: Float[Tensor, "*times"]) -> Float[Tensor, "*times"]:
        table, log_alpha_squared = self._table(log_snr), torch.nn.functional.logsigmoid(log_snr)
        k = torch.searchsorted(-table, -log_alpha_squared.contiguous(), right=True) - 1
        k = k.clamp(0, self.num_timesteps - 1)
        return (k + (log_alpha_squared - table[k]) / (table[k + 1] - table[k])) / self.num_timesteps


@lru_cache
def _log_alpha_squared(num_timesteps: int, beta_start: float, beta_end: float) -> Float[Tensor, "{num_timesteps}+1"]:
    beta = torch.linspace(beta_start, beta_end, num_timesteps, dtype=torch.float64)
    return torch.cat([beta.new_zeros(1), torch.log1p(-beta).cumsum(0)])


def expand_as(values: Float[Tensor, "*batch"], x: Float[Tensor, "*batch_and_shape"]) -> Float[Tensor, "..."]:
    """Return ``values`` with trailing axes of size one, so that one number per sample multiplies ``x``."""
    return values.reshape(values.shape + (1,) * (x.ndim - values.ndim))


def to_device(values: Tensor, like: Tensor) -> Tensor:
    """Return ``values`` on the device of ``like``; if that is a CUDA device, the host does not wait for the copy."""
    return values.to(like.device, non_blocking=like.device.type == "cuda")


def perturb(x0: Samples, eps: Samples, t: Times, schedule: Schedule) -> Samples:
    """Return the noisy samples ``x_t = alpha x_0 + sigma eps``."""
    alpha, sigma = schedule(t)
    return expand_as(alpha, x0) * x0 + expand_as(sigma, x0) * eps
