import math

import jaxtyping
import pytest
import torch

from guided_diffusion.guidance import ClassifierFree, Clip, DynamicThreshold, Guidance, NoThreshold, Wrapper
from guided_diffusion.guidance.base import check_scale


@pytest.mark.parametrize("scale", [0, 1.5, -2.0, torch.tensor(3.0), torch.tensor([0, 1, 2]), torch.tensor([])])
def test_a_number_or_one_per_sample_is_a_scale(scale):
    assert check_scale(scale) is None


@pytest.mark.parametrize("scale", [math.nan, math.inf, -math.inf, torch.tensor([1.0, math.nan])])
def test_a_scale_that_is_not_finite_raises(scale):
    with pytest.raises(ValueError, match="scale must be finite"):
        check_scale(scale)


def test_a_scale_with_two_axes_raises():
    with pytest.raises(ValueError, match=r"one value per sample, got shape \(2, 3\)"):
        check_scale(torch.ones(2, 3))


def test_a_scale_that_is_no_number_raises(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="scale must be a number, got 'strong'"):
        check_scale("strong")


def test_guidances_have_a_scale_and_thresholds_have_none():
    assert isinstance(ClassifierFree(), Guidance)
    for threshold in (Clip(), DynamicThreshold(), NoThreshold()):
        assert isinstance(threshold, Wrapper)
        assert not isinstance(threshold, Guidance)
