r"""The exact denoiser and the exact time-aware classifier of a labelled Gaussian mixture.

The noisy density of ``p(x, y) = sum_k weight_k N(x; mean_k, cov_k) [label_k = y]`` is a mixture as well,
``p_t(x_t) = sum_k weight_k N(x_t; alpha mean_k, S_k)`` with ``S_k = alpha^2 cov_k + sigma^2 I``. With r_k the posterior
weight of component k,

    x0  = E[x_0 | x_t, y] = sum_k r_k (mean_k + alpha cov_k S_k^-1 (x_t - alpha mean_k))
    eps = E[eps | x_t, y] = sum_k r_k sigma S_k^-1 (x_t - alpha mean_k)

``log_posterior`` is the exact classifier of noisy samples, so it serves classifier guidance:

    ClassifierGuidance(mixture.log_posterior, scale=2.0)(mixture, mixture.schedule)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from guided_diffusion.denoisers import Labels, Prediction
from guided_diffusion.schedules import Samples, Schedule, Times, expand_as


@dataclass(frozen=True)
class GaussianMixture:
    """The exact denoiser of a labelled Gaussian mixture: ``mixture(x_t, t, y) -> Prediction``.

    A label restricts the mixture to the components of its class; without a label it has all of them. It computes in
    the precision of ``x_t``.

    Args:
        means: The means of the components, shape (k, d). A sample is flattened to d numbers.
        covariances: The covariances of the components, shape (k, d, d).
        weights: The weights of the components, shape (k,), normalised here; equal by default.
        labels: The class of each component, shape (k,); 0, 1, 2, ... by default.

    Raises:
        ValueError: If the shapes don't fit or a covariance has a negative eigenvalue.
    """

    schedule: Schedule
    means: Float[Tensor, "k d"]
    covariances: Float[Tensor, "k d d"]
    weights: Float[Tensor, " k"] | None = None
    labels: Int[Tensor, " k"] | None = None

    def __post_init__(self) -> None:
        k, d = self.means.shape
        if self.covariances.shape != (k, d, d):
            raise ValueError(f"covariances must have shape {(k, d, d)}, got {tuple(self.covariances.shape)}")
        if self._eigen[0].min() < 0:
            raise ValueError("covariances must be positive semi-definite")

    @classmethod
    def gaussian(
        cls, schedule: Schedule, mean: Float[Tensor, " d"], covariance: Float[Tensor, "d d"]
    ) -> GaussianMixture:
        """Return a mixture of one Gaussian, of class 0."""
        return cls(schedule, mean[None], covariance[None])

    @cached_property
    def _eigen(self) -> tuple[Tensor, Tensor]:
        """The eigenvalues (k, d) and eigenvectors (k, d, d) of the covariances."""
        values, vectors = torch.linalg.eigh(self.covariances)
        return values.where(values.abs() > 1e-12 * values.abs().amax(), 0), vectors

    @cached_property
    def _log_weights(self) -> Tensor:
        weights = torch.ones_like(self.means[:, 0]) if self.weights is None else self.weights
        return (weights / weights.sum()).log().to(self.means)

    @cached_property
    def _labels(self) -> Tensor:
        return torch.arange(len(self.means)) if self.labels is None else self.labels

    @property
    def num_classes(self) -> int:
        """The number of classes, up to the largest label."""
        return int(self._labels.max()) + 1

    def __call__(self, x_t: Samples, t: Times, y: Labels = None) -> Prediction:
        alpha, sigma = (expand_as(value, x_t[:, None].flatten(2)) for value in self.schedule(t))
        whitened, log_joint = self._components(x_t, t, y)
        posterior = log_joint.softmax(1)[..., None]
        values, vectors = (part.to(x_t) for part in self._eigen)
        in_eigenbasis = torch.stack([alpha * values * whitened, sigma * whitened])
        shift, eps = torch.einsum("kij,sbkj->sbki", vectors, in_eigenbasis)
        x0 = (posterior * (self.means.to(x_t) + shift)).sum(1)
        return Prediction(x0.reshape(x_t.shape), (posterior * eps).sum(1).reshape(x_t.shape))

    def log_prob(self, x_t: Samples, t: Times, y: Labels = None) -> Float[Tensor, " b"]:
        """Return ``log p_t(x_t, y)``, or ``log p_t(x_t)`` for samples without a label."""
        return self._components(x_t, t, y)[1].logsumexp(1)

    def log_posterior(self, x_t: Samples, t: Times) -> Float[Tensor, "b classes"]:
        """Return the exact ``log p(y | x_t)`` of the classes 0, 1, ...; -infinity for a class without components."""
        log_joint = self._components(x_t, t, None)[1]
        classes = torch.arange(int(self._labels.max()) + 1, device=x_t.device)
        of_class = self._labels.to(x_t.device) == classes[:, None]
        return log_joint[:, None].masked_fill(~of_class, -torch.inf).logsumexp(2).log_softmax(1)

    def _components(self, x_t: Tensor, t: Tensor, y: Labels) -> tuple[Tensor, Tensor]:
        """Return ``S_k^-1 (x_t - alpha mean_k)`` in the eigenbasis, (b, k, d), and ``log p_t(x_t, k, y)``, (b, k)."""
        x = x_t[:, None].flatten(2)
        alpha, sigma = (expand_as(value, x) for value in self.schedule(t))
        values, vectors = (part.to(x) for part in self._eigen)
        offset = torch.einsum("kij,bki->bkj", vectors, x - alpha * self.means.to(x))
        variance = alpha**2 * values + sigma**2
        log_normal = -(offset**2 / variance + (2 * torch.pi * variance).log()).sum(2) / 2
        log_joint = log_normal + self._log_weights.to(x)
        if y is not None:
            allowed = (self._labels.to(y) == y[:, None]) | (y[:, None] < 0)
            if not allowed.any(1).all():
                raise ValueError(f"no component has the label {y[~allowed.any(1)][0].item()}")
            log_joint = log_joint.masked_fill(~allowed, -torch.inf)
        return offset / variance, log_joint

    def sample(self, labels: Int[Tensor, " n"], generator: torch.Generator | None = None) -> Float[Tensor, "n d"]:
        """Return clean samples of these classes; a sample with ``UNLABELLED`` is of any class."""
        allowed = (self._labels == labels[:, None]) | (labels[:, None] < 0)
        k = torch.multinomial(self._log_weights.exp() * allowed, 1, generator=generator)[:, 0]
        values, vectors = self._eigen
        normal = torch.randn(len(labels), self.means.shape[1], generator=generator, dtype=self.means.dtype)
        return self.means[k] + torch.einsum("nij,nj->ni", vectors[k], values[k].sqrt() * normal)
