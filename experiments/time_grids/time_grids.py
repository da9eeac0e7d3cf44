"""Measure how the grid of times and the sampler change the error of few steps, with exact denoisers.

    python experiments/time_grids/time_grids.py mixture|digits|mnist [--num-samples 8000] [--output-dir FOLDER]

Each denoiser is the exact one of its target, so all of the error is that of the steps: for ``mixture``, in the plane,
p(x) p(y|x)^w with w = 1 and 2; for ``digits`` (8x8) and ``mnist`` (28x28), training images of each class with a little
noise. All runs use the same noise. Writes ``mixture.csv``, ``digits.csv`` or ``mnist.csv``.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from guided_diffusion.data import MNIST, Digits, Patterns
from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.evaluation.metrics.features import Gaussian, frechet_distance
from guided_diffusion.evaluation.metrics.points import sliced_wasserstein, sorted_projections
from guided_diffusion.evaluation.results import write_csv
from guided_diffusion.guidance import ClassifierFree
from guided_diffusion.oracles.powered_mixture import PoweredMixture
from guided_diffusion.samplers import (
    SampleNoise,
    Sampler,
    ddim,
    ddpm,
    dpmpp_2m,
    karras_times,
    log_snr_times,
    sde_dpmpp_2m,
    shifted_times,
    uniform_times,
)
from guided_diffusion.schedules import Cosine, expand_as

SCHEDULE = Cosine()
METHODS = {"ddim": ddim, "ddpm": ddpm, "dpmpp_2m": dpmpp_2m, "sde_dpmpp_2m": sde_dpmpp_2m}
GRIDS = {
    "uniform": uniform_times,
    "shifted, 1/2": partial(shifted_times, shift=0.5),
    "shifted, 2": partial(shifted_times, shift=2.0),
    "shifted, 3": partial(shifted_times, shift=3.0),
    "shifted, 5": partial(shifted_times, shift=5.0),
    "log_snr": log_snr_times,
    "karras": karras_times,
}
LABEL = 0
"""The class of the samples of the mixture."""
FINENESS = 6.0
"""Grid points of the denoiser of p(x) p(y|x)^2 per standard deviation of the mixture."""
MAX_IMAGES = 2000
"""The largest number of training images, the first ones."""
WIDTH = 0.1
"""The standard deviation of the noise that is added to the images, whose pixels are in [-1, 1]."""
COMPONENTS = 64
"""The principal components of the images in which the Fréchet distance is taken."""


class Target(NamedTuple):
    """A distribution with its exact denoiser."""

    scale: float
    denoise: Denoise
    labels: Tensor
    shape: tuple[int, ...]
    exact: Tensor
    """Samples of the distribution."""
    measure: Callable[[Tensor], dict[str, float]]
    """The distances of samples from the distribution."""


def mixtures(count: int) -> Iterator[Target]:
    """Yield p(x) p(y|x)^w of the mixture in the plane."""
    data = Patterns(["mixture_a", "mixture_b", "mixture_c"], 1, 1, noise=0.015, batch_size=1, validation_size=0)
    mixture, labels = data.oracle(SCHEDULE), torch.full((count,), LABEL)
    for scale in (1.0, 2.0):
        target = PoweredMixture(mixture, scale, FINENESS)
        generator = torch.Generator().manual_seed(1)
        exact, other = (target.sample(labels, generator) for _ in range(2))
        denoise = ClassifierFree(1.0)(mixture, SCHEDULE) if scale == 1 else target
        yield Target(scale, denoise, labels, (2,), other, partial(_from_points, exact=exact))


def _from_points(found: Tensor, exact: Tensor) -> dict[str, float]:
    mean = (found.mean(0) - exact.mean(0)).norm()
    covariance = torch.linalg.matrix_norm(found.T.cov() - exact.T.cov())
    distance = sliced_wasserstein(sorted_projections(found), sorted_projections(exact))
    return {"sliced_wasserstein": float(distance), "mean": float(mean), "covariance": float(covariance)}


def images(pixels: Tensor, classes: Tensor, count: int) -> Iterator[Target]:
    """Yield the distribution of the images of each class with noise of the standard deviation ``WIDTH``."""
    means, classes = pixels[:MAX_IMAGES].flatten(1) / 127.5 - 1, classes[:MAX_IMAGES]
    size, generator = means.shape[1], torch.Generator().manual_seed(1)
    rows, own = torch.randint(len(means), (2, count), generator=generator)
    variances, axes = torch.linalg.eigh(means.double().T.cov(correction=0))
    variances, axes = variances[-COMPONENTS:], axes[:, -COMPONENTS:]
    truth = Gaussian(means.double().mean(0) @ axes, (variances + WIDTH**2).diag())

    def denoise(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
        alpha, sigma = (expand_as(value, x_t) for value in SCHEDULE(t))
        variance, mean = alpha**2 * WIDTH**2 + sigma**2, torch.empty_like(x_t)
        for label in classes.unique():
            of_class, centres = y == label, means[classes == label]
            logits = -torch.cdist(x_t[of_class], alpha[:1] * centres).square() / (2 * variance[of_class])
            mean[of_class] = logits.softmax(1) @ centres
        return Prediction.from_x0(mean + alpha * WIDTH**2 / variance * (x_t - alpha * mean), x_t, t, SCHEDULE)

    def measure(found: Tensor) -> dict[str, float]:
        projected = found.double() @ axes
        return {"frechet": frechet_distance(truth, Gaussian(projected.mean(0), projected.T.cov()))}

    exact = means[rows] + WIDTH * torch.randn(count, size, generator=generator)
    yield Target(1.0, denoise, classes[own], (size,), exact, measure)


def targets(data: str, count: int) -> Iterator[Target]:
    """Yield the targets of the data of this name."""
    if data == "mixture":
        return mixtures(count)
    root = os.environ.get("GUIDED_DIFFUSION_DATA", "data")
    module = MNIST(root, 1, 0) if data == "mnist" else Digits(batch_size=1, validation_size=0)
    return images(*module.load(train=True), count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("mixture", "digits", "mnist"))
    parser.add_argument("--num-samples", type=int, default=8000, help="samples in every run")
    parser.add_argument("--steps", type=int, nargs="+", default=(10, 25))
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/time_grids"))
    arguments = parser.parse_args()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    count, rows = arguments.num_samples, []
    for target in targets(arguments.data, count):
        floor = target.measure(target.exact)
        rows.append({"scale": target.scale, "sampler": "exact samples", "times": "", "steps": 0, **floor})
        for steps, (name, method), (grid, times) in product(arguments.steps, METHODS.items(), GRIDS.items()):
            draw = SampleNoise(0, range(count))
            noise = draw((count, *target.shape)).to(target.exact)
            with torch.no_grad():
                *_, last = Sampler(method, steps, times)(target.denoise, SCHEDULE, noise, target.labels, draw)
            run = {"scale": target.scale, "sampler": name, "times": grid, "steps": steps}
            rows.append({**run, **target.measure(last.x)})
            print(*rows[-1].values(), sep="  ", flush=True)
            write_csv(arguments.output_dir / f"{arguments.data}.csv", rows)


if __name__ == "__main__":
    main()
