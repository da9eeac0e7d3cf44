"""The distance of corrected samples to p(x) p(y|x)^2 on ``data=mixture``, as experiments/ground_truth measures it."""

import importlib.util
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from guided_diffusion.data import Patterns
from guided_diffusion.guidance import ClassifierFree, Reconstruction
from guided_diffusion.oracles.powered_mixture import PoweredMixture
from guided_diffusion.samplers import ddpm, feynman_kac, heun, pcg, twisted, uniform_times
from guided_diffusion.schedules import Cosine

COUNT = 2048
SCRIPT = Path(__file__).parents[2] / "experiments" / "ground_truth" / "ground_truth.py"


@pytest.fixture(scope="module")
def experiment():
    """Return the mixture, the script's measure of distance at w = 2, and the noise of its runs."""
    spec = importlib.util.spec_from_file_location("ground_truth", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "ground_truth", script)  # its dataclasses look there
        spec.loader.exec_module(script)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(COUNT, 2, generator=generator, dtype=torch.float64)
    data = Patterns(["mixture_a", "mixture_b", "mixture_c"], 1, 1, noise=0.015, batch_size=1, validation_size=0)
    mixture = data.oracle(Cosine())
    return mixture, script.Distance(PoweredMixture(mixture, 2.0, script.FINENESS), COUNT, generator), noise


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "steps", "expected"),
    [
        (heun, 50, 0.376),
        (ddpm, 50, 0.289),
        (pcg, 50, 0.184),
        (partial(pcg, corrections=5, g=2.0), 50, 0.106),
        (partial(feynman_kac, particles=4), 50, 0.242),
        (partial(feynman_kac, particles=4), 200, 0.155),
        (partial(twisted, particles=4), 50, 0.222),
    ],
)
def test_total_variation_to_the_powered_density(method, steps, expected, experiment):
    """Different seeds of the steps' noise move it by about 0.01; exact samples have 0.09."""
    mixture, distance, noise = experiment
    by_twisted = getattr(method, "func", method) is twisted
    guidance = Reconstruction(mixture.log_posterior, 2.0, clean_t=0.0) if by_twisted else ClassifierFree(2.0)
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    times, labels = uniform_times(mixture.schedule, steps), torch.zeros(COUNT, dtype=torch.long)
    with torch.no_grad():
        *_, last = method(guidance(mixture, mixture.schedule), mixture.schedule, noise, times, labels, draw)
    assert distance(last.x)[0] == pytest.approx(expected, abs=0.03)
