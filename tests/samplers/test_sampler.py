import importlib
import pkgutil

import pytest
import torch

from guided_diffusion import samplers
from guided_diffusion.samplers import Sampler, ddpm, log_snr_times

F64 = torch.float64


def test_a_configured_sampler_runs_its_method_on_its_time_grid(mixture, normal):
    schedule, noise, y = mixture.schedule, torch.randn(3, 2, dtype=F64), torch.tensor([0, 1, 2])
    draws = [normal(2) for _ in range(2)]
    steps = list(Sampler(ddpm, 6, log_snr_times)(mixture, schedule, noise, y, draws[0]))
    assert len(steps) == 6
    *_, last = ddpm(mixture, schedule, noise, log_snr_times(schedule, 6), y, draws[1])
    assert torch.equal(steps[-1].x, last.x)


def test_a_configured_sampler_with_fewer_than_one_step_raises():
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        Sampler(steps=0)


def test_no_module_hides_a_sampler_of_its_name():
    """Configs and checkpoints name samplers as ``guided_diffusion.samplers.ddim``."""
    before = {name: getattr(samplers, name) for name in samplers.__all__}
    for module in pkgutil.iter_modules(samplers.__path__, "guided_diffusion.samplers."):
        importlib.import_module(module.name)
    assert all(getattr(samplers, name) is value for name, value in before.items())
