"""Samplers of populations: each sample is an island of particles, weighted and resampled among themselves.

All particles of an island begin at the noise of its sample, and the noise of the steps separates them. The network gets
one particle of each sample at a time, so never more rows than there are samples, and labels, scales and the noise of a
guidance stay those of the sample. An island depends on the random numbers of its sample alone. One particle of each
island, drawn by the weights, is the result.
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.samplers.ancestral import posterior
from guided_diffusion.samplers.base import Step, check_falling
from guided_diffusion.samplers.grids import Grid
from guided_diffusion.samplers.likelihood import with_gradient
from guided_diffusion.samplers.noise import Draw
from guided_diffusion.samplers.walk import (
    Likelihood,
    Scale,
    Walk,
    at_scale,
    begin,
    likelihood_of,
    predict,
    scale_of,
    split_guidance,
)
from guided_diffusion.schedules import Samples, Schedule, expand_as, to_device
from guided_diffusion.utils.validation import check_positive

Particles = Float[Tensor, "b particles *shape"]
PerParticle = Float[Tensor, "b particles"]
AnyPerParticle = Float[Tensor, "b particles ..."]


class Islands:
    """The log weights of the particles of each sample, with resampling and the choice of one particle."""

    def __init__(self, noise: Samples, particles: int, walk: Walk) -> None:
        precision = torch.promote_types(noise.dtype, torch.float32)
        self.log_weights: PerParticle = noise.new_zeros(len(noise), particles, dtype=precision)
        self._resampling = walk.noise("resampling")
        self._choice = self._uniform(walk.noise("choice"))

    def weigh(self, change: PerParticle, *particles: AnyPerParticle) -> list[AnyPerParticle]:
        """Add ``change`` to the log weights, and return the particles, resampled where few of them are effective.

        Resampling is systematic, in islands where ``1 / sum of squared weights`` is below half the number of particles.
        """
        self.log_weights = self.log_weights + change
        weights, count = self.log_weights.softmax(1), self.log_weights.shape[1]
        is_poor = 1 / weights.square().sum(1, keepdim=True) < count / 2
        numbers = torch.arange(count, device=weights.device)
        places = _places(weights, (numbers + self._uniform(self._resampling)) / count)
        self.log_weights = self.log_weights.masked_fill(is_poor, 0)
        return [_take(each, places.where(is_poor, numbers)) for each in particles]

    def choose(self, particles: Particles) -> Samples:
        """Return one particle of each island, drawn by the weights with the same random number in every step."""
        return _take(particles, _places(self.log_weights.softmax(1), self._choice))[:, 0]

    def _uniform(self, draw: Draw) -> Float[Tensor, "b 1"]:
        """Return a uniform number for each island: the cdf of a normal one."""
        normal = draw(torch.Size([len(self.log_weights), 1]))
        return to_device(torch.special.ndtr(normal.double()).to(self.log_weights.dtype), self.log_weights)


def _places(weights: PerParticle, shares: Float[Tensor, "b places"]) -> Int[Tensor, "b places"]:
    """Return the indices at which the cumulative weights reach these shares of the total weight."""
    sums = weights.cumsum(1)
    return torch.searchsorted(sums, shares * sums[:, -1:]).clamp(max=weights.shape[1] - 1)


def _take(particles: AnyPerParticle, places: Int[Tensor, "b places"]) -> Float[Tensor, "b places ..."]:
    return particles[torch.arange(len(particles), device=particles.device)[:, None], places]


def _per_sample(scale: Scale, like: Samples | Particles) -> Float[Tensor, "..."]:
    """Return the scale shaped to multiply samples, or their particles, sample by sample."""
    values = torch.as_tensor(scale).to(torch.promote_types(like.dtype, torch.float32))
    return expand_as(to_device(values, like).expand(len(like)), like)


def _sum(values: Particles) -> PerParticle:
    return values.to(torch.promote_types(values.dtype, torch.float32)).flatten(2).sum(2)


def _check(name: str, particles: int, times: Grid) -> None:
    check_positive(particles=particles)
    check_falling(name, times)


def feynman_kac(
    denoise: Denoise,
    schedule: Schedule,
    noise: Samples,
    times: Grid,
    labels: Labels = None,
    draw: Draw = torch.randn,
    *,
    particles: int = 8,
) -> Iterator[Step]:
    """Sample p(x) p(y|x)^w by Feynman-Kac correctors: steps of ``ddpm`` with guidance, and weights.

    A step from x to x' with ``x0 = u + w (c - u)`` adds ``w (w - 1) (1/r'^2 - 1/r^2) |c - u|^2 / 2`` to the log weight
    of a particle, with ``r = sigma / alpha``. So it has the density ``p(x'|x)^(1-w) p(x'|x,y)^w`` of steps of ``ddpm``.
    The drawn particle alone takes the step to t = 0, which adds no weight. A threshold acts on c and u, and on x0.

    It is exact as particles and steps grow, for ``ClassifierFree`` and ``ClassifierGuidance``, whose scales 1 and 0 are
    c and u (Skreta et al. 2025, arXiv 2503.02819, whose weight is the limit of small steps; their code resamples in
    each step and clamps the weights). With one particle, and at w = 0 and 1, it is ``ddpm``.

    Args:
        particles: The number of particles of a sample; each costs both predictions in each step but the last.

    Raises:
        ValueError: If ``particles`` is below 1, the times rise, or the denoiser is not guided.
    """
    _check("feynman_kac", particles, times)
    walk, w, x = Walk(times, draw), scale_of(denoise), _copies(noise, particles)
    estimates, denoise, islands = _estimates(denoise, walk, w), begin(denoise, walk), Islands(noise, particles, walk)
    for t, t_next in walk:
        of_x, of_x0, std = posterior(schedule, t, t_next)
        if t_next == 0:
            x0 = predict(denoise, walk, islands.choose(x), t, labels).x0
            yield Step(t_next, of_x * islands.choose(x) + of_x0 * x0, x0)
            return
        c, u, x0 = estimates(x, t, labels)
        change = _snr_gained(schedule, t, t_next) / 2 * _sum(_per_sample(w * (w - 1), x) * (c - u) ** 2)
        x, x0 = islands.weigh(change, x, x0)
        x = of_x * x + of_x0 * x0 + std * draw(x.shape).to(x)
        yield Step(t_next, islands.choose(x), islands.choose(x0))


def _snr_gained(schedule: Schedule, t: Float[Tensor, ""], t_next: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Return the gain of a step in the signal-to-noise ratio, alpha^2 / sigma^2."""
    return schedule.log_snr(t_next).exp() - schedule.log_snr(t).exp()


def _copies(noise: Samples, particles: int) -> Particles:
    return noise[:, None].expand(len(noise), particles, *noise.shape[1:])


def _estimates(
    denoise: Denoise, walk: Walk, scale: Scale
) -> Callable[[Particles, Float[Tensor, ""], Labels], Iterator[Particles]]:
    """Return a function that yields x0 of c, of u, and of ``u + w (c - u)`` with the scale w, for all particles.

    What is around the guidance, such as a threshold, is around each of the three. It may change x_t, as inpainting
    does. So c and u are noted inside of it, and the third, evaluated last, is made of them.
    """
    guidance, around = split_guidance(denoise)
    inside = dict[float, Prediction]()

    def at_end(end: float) -> Denoise:
        begun = begin(at_scale(guidance, end), walk)

        def noted(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            inside[end] = begun(x_t, t, y)
            return inside[end]

        return begin(around(noted), walk)

    def extrapolated(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
        w = _per_sample(scale, x_t).to(x_t)
        return Prediction(*(torch.lerp(u, c, w) for c, u in zip(inside[1.0], inside[0.0], strict=True)))

    parts = at_end(1.0), at_end(0.0), begin(around(extrapolated), walk)

    def estimates(x: Particles, t: Float[Tensor, ""], labels: Labels) -> Iterator[Particles]:
        found = ([predict(part, walk, each, t, labels).x0 for part in parts] for each in x.unbind(1))
        return (torch.stack(of_particles, dim=1) for of_particles in zip(*found, strict=True))

    return estimates


def _with_gradients(
    denoise: Denoise, walk: Walk, likelihood: Likelihood, x: Particles, t: Float[Tensor, ""], labels: Labels
) -> tuple[Particles, PerParticle, Particles]:
    """Return x0, ``log p(y | x0)`` and its gradient with respect to x, of all particles, evaluated in turn."""

    def at_t(x: Samples) -> Prediction:
        return predict(denoise, walk, x, t.clone(), labels)

    found = [with_gradient(at_t, likelihood, each, labels) for each in x.unbind(1)]
    x0, log_p, grad = zip(*((prediction.x0, log_p, grad) for prediction, log_p, grad in found), strict=True)
    return torch.stack(x0, dim=1), torch.stack(log_p, dim=1), torch.stack(grad, dim=1)


def _moved(x: Particles, move: Particles, std: Tensor, draw: Draw) -> tuple[Particles, PerParticle]:
    """Return the particles after noise and a ``move`` in units of its std, and the log weight for the move."""
    drawn = draw(x.shape).to(x)
    return x + std * (move + drawn).to(x), -_sum(move * drawn + move**2 / 2)


def twisted(
    denoise: Denoise,
    schedule: Schedule,
    noise: Samples,
    times: Grid,
    labels: Labels = None,
    draw: Draw = torch.randn,
    *,
    particles: int = 8,
) -> Iterator[Step]:
    """Sample p(x) p(y|x)^w by the twisted diffusion sampler (TDS): unconditional steps, moved by a likelihood.

    ``x' = m + std^2 w grad log p(y | x0(x)) + std draw``, where ``m`` and ``std`` are those of a step of ``ddpm`` with
    the unconditional estimate x0, and the gradient goes through the network. The weights

        N(x'; m, std^2) / N(x'; m + std^2 w grad, std^2)  p(y | x0'(x'))^w / p(y | x0(x))^w

    correct for the move. It is exact as particles grow (Wu et al. 2023, arXiv 2306.17775, algorithm 1). With one
    particle it is ``ddpm`` with ``Reconstruction``, to first order in the step.

    Args:
        particles: The number of particles of a sample; each costs one prediction and its gradient in each step.

    Raises:
        ValueError: If ``particles`` is below 1, the times rise, or the guidance has no likelihood.
    """
    _check("twisted", particles, times)
    walk, likelihood, x = Walk(times, draw), likelihood_of(denoise), _copies(noise, particles)
    base, islands = begin(at_scale(denoise, 0.0), walk), Islands(noise, particles, walk)
    w, change, log_p = _per_sample(scale_of(denoise), x), islands.log_weights, None
    for t, t_next in walk:
        of_x, of_x0, std = posterior(schedule, t, t_next)

        x0, reached, grad = _with_gradients(base, walk, likelihood, x, t, labels)
        change = change + (0 if log_p is None else w.flatten(1) * (reached - log_p))
        x, x0, log_p, grad = islands.weigh(change, x, x0, reached, grad)
        x = of_x * x + of_x0 * x0
        if t_next > 0:
            x, change = _moved(x, std * w * grad, std, draw)
        yield Step(t_next, islands.choose(x), islands.choose(x0))
