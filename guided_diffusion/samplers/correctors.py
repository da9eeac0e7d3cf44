"""Samplers that correct the samples of the conditional model, by Langevin steps (PCG) or by new noise (CFGiG)."""

from collections.abc import Iterator

import torch

from guided_diffusion.denoisers import Denoise, Labels
from guided_diffusion.samplers.base import Step, check_falling
from guided_diffusion.samplers.grids import Grid, times_from
from guided_diffusion.samplers.noise import Draw
from guided_diffusion.samplers.runge_kutta import heun
from guided_diffusion.samplers.walk import Scale, Walk, at_scale, begin, predict, scale_of
from guided_diffusion.schedules import Samples, Schedule, perturb
from guided_diffusion.utils.validation import check_not_negative


def pcg(
    denoise: Denoise,
    schedule: Schedule,
    noise: Samples,
    times: Grid,
    labels: Labels = None,
    draw: Draw = torch.randn,
    *,
    corrections: int = 1,
    g: float | str | None = None,
) -> Iterator[Step]:
    """Sample by predictor-corrector guidance: a DDIM step of the conditional model, then Langevin steps.

    ``x' = alpha' c.x0 + sigma' c.eps``, then ``corrections`` times ``x' += (e/2) s + sqrt(e) draw``; s is the score
    of ``p_t'(x)^(1-g) p_t'(x|y)^g``, from the guided denoiser at the scale g, and e is the small variance of ``ddpm``,
    which for small steps is the ``g_t^2 dt`` of the authors. A step to t = 0 has no corrections.

    With one correction and ``g = 2 w - 1`` the samples tend to those of ``ddpm`` with classifier-free guidance; with
    many and ``g = w``, to p(x) p(y|x)^w (Bradley & Nakkiran 2024, arXiv 2408.09000; from the abstract and derived).

    Args:
        corrections: The number of Langevin steps after each step; at 0 this is ``ddim`` with the conditional model.
        g: 2 w - 1 if ``None``, w if "w", or a number for every w. At 1 corrections keep the conditional distribution.

    Raises:
        ValueError: If ``corrections`` is negative, g another text, the times rise, or the denoiser is not guided.
    """
    check_not_negative(corrections=corrections)
    check_falling("pcg", times)
    walk, x, scales = Walk(times, draw), noise, (1.0, _exponent(g, scale_of(denoise)))
    conditional, sharpened = (begin(at_scale(denoise, scale), walk) for scale in scales)
    for t, t_next in walk:
        (alpha, sigma), (alpha_next, sigma_next) = schedule(t), schedule(t_next)
        x0, eps = predict(conditional, walk, x, t, labels)
        x = alpha_next * x0 + sigma_next * eps
        size = (sigma**2 - (alpha / alpha_next) ** 2 * sigma_next**2) * (sigma_next / sigma) ** 2
        for _ in range(corrections if t_next > 0 else 0):
            score = -predict(sharpened, walk, x, t_next, labels).eps / sigma_next
            x = x + (size / 2) * score + size.sqrt() * draw(x.shape).to(x)
        yield Step(t_next, x, x0)


def _exponent(g: float | str | None, w: Scale) -> Scale:
    """Return the exponent of p(y|x) in the corrections of ``pcg``."""
    if isinstance(g, str):
        if g != "w":
            raise ValueError(f"g must be w, a number or null, got {g}")
        return w
    return 2 * w - 1 if g is None else g


def gibbs(
    denoise: Denoise,
    schedule: Schedule,
    noise: Samples,
    times: Grid,
    labels: Labels = None,
    draw: Draw = torch.randn,
    *,
    rounds: int = 2,
    noise_level: float = 1.0,
) -> Iterator[Step]:
    """Sample by Gibbs-like guidance (CFGiG): the conditional model, then rounds of noising and guided denoising.

    The samples of the conditional model are made along the whole grid. Each round noises them to
    ``sigma / alpha = noise_level`` and denoises them with guidance, along the times of the grid below that level. All
    passes use ``heun``, as in the authors' code, and yield all of their steps, so there are more steps than the grid
    has (Janati et al. 2025, arXiv 2505.21101). A guidance with a state begins anew in each round. The guided denoising
    keeps an error that more rounds do not take away; it shrinks with ``noise_level``, where more rounds are needed.

    Args:
        rounds: The number of rounds; at 0, and in distribution at w = 1, this is ``heun`` with the conditional model.
        noise_level: The noise level to which a round noises the samples; the first of the grid if that is lower.

    Raises:
        ValueError: If a setting is out of range, the times rise, or the denoiser is not guided.
    """
    check_not_negative(rounds=rounds)
    if not 0 < noise_level < torch.inf:
        raise ValueError(f"noise_level must be positive and finite, got {noise_level}")
    check_falling("gibbs", times)
    level = torch.tensor(noise_level, dtype=torch.float64)
    start = torch.minimum(schedule.time(-2 * level.log()), times[0])
    shorter, own = times_from(start.item(), times), Walk(times, draw)
    for step in heun(at_scale(denoise, 1.0), schedule, noise, times, labels, draw):
        yield step
    for number in range(rounds):
        x, t = step.x, start.to(step.x).expand(len(step.x))
        x = perturb(x, draw(x.shape).to(x), t, schedule)
        for step in heun(denoise, schedule, x, shorter, labels, own.noise(f"round {number}")):
            yield step
