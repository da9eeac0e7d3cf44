"""What holds for every option in ``conf/sampler``. The options are found by listing: a new one needs no line here."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from guided_diffusion.cli.config import CONFIG_PATH
from guided_diffusion.evaluation.cost import evaluations_per_sample
from guided_diffusion.guidance import ClassifierFree, Clip, NoThreshold, Reconstruction
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import SampleNoise, Sampler, uniform_times
from guided_diffusion.schedules import Cosine
from guided_diffusion.utils.instantiate import build

STEPS, NO_THRESHOLD = 5, NoThreshold()
NAMES = sorted(path.stem for path in Path(CONFIG_PATH, "sampler").glob("*.yaml"))
every_sampler = pytest.mark.parametrize("name", NAMES)
cosine = pytest.mark.parametrize("schedule", [Cosine()], ids=["Cosine"])
LABELS = torch.tensor([0, 1, 2, 1])


def method(name):
    node = OmegaConf.to_container(OmegaConf.load(Path(CONFIG_PATH, "sampler", f"{name}.yaml")))
    return build(node["method"])


def guidance_for(name, scale, mixture):
    """Return a guidance that the sampler can use."""
    return Reconstruction(mixture.log_posterior, scale, clean_t=0.0) if name == "twisted" else ClassifierFree(scale)


def sampled(name, mixture, scale, rows=slice(None), threshold=NO_THRESHOLD, seed=0):
    schedule, indices = mixture.schedule, torch.arange(4)[rows].tolist()
    draw = SampleNoise(seed, indices)
    denoise = threshold(guidance_for(name, scale, mixture)(mixture, schedule), schedule)
    noise = draw((len(indices), 2)).double()
    *_, last = method(name)(denoise, schedule, noise, uniform_times(schedule, STEPS), LABELS[rows], draw)
    assert last.t == 0
    return last.x


@cosine
@every_sampler
@pytest.mark.parametrize("threshold", [NoThreshold(), Clip()])
def test_a_sample_depends_on_its_seed_its_index_and_its_scale_alone(name, threshold, mixture):
    scales = torch.tensor([2.5, 0.0, 1.0, 3.0], dtype=torch.float64)
    whole = sampled(name, mixture, scales, threshold=threshold)
    assert whole.shape == (4, 2)
    assert whole.isfinite().all()
    rows = [3, 0]
    torch.testing.assert_close(
        sampled(name, mixture, scales[rows], rows, threshold), whole[rows], atol=1e-10, rtol=1e-10
    )
    torch.testing.assert_close(sampled(name, mixture, 3.0, [3], threshold), whole[[3]], atol=1e-10, rtol=1e-10)
    assert torch.equal(sampled(name, mixture, scales, threshold=threshold), whole)
    assert not torch.equal(sampled(name, mixture, scales, threshold=threshold, seed=1), whole)


@cosine
@every_sampler
@pytest.mark.parametrize("scale", [2.0, 1.0, 0.0])
def test_the_evaluations_are_as_many_as_declared(name, scale, mixture):
    count = []

    def counting(x_t, t, y):
        count.append(len(x_t))
        return mixture(x_t, t, y)

    schedule, draw = mixture.schedule, SampleNoise(0, range(4))
    noise = draw((4, 2)).double()
    guidance = guidance_for(name, scale, mixture)
    recipe = Recipe(guidance, NoThreshold(), Sampler(method(name), STEPS))
    *_, _ = recipe.sampler(guidance(counting, schedule), schedule, noise, LABELS, draw)
    assert sum(count) / 4 == evaluations_per_sample(recipe, schedule)
