import math

import pytest
import torch

from guided_diffusion.denoisers import Prediction
from guided_diffusion.guidance import Clip, DynamicThreshold, NoThreshold
from guided_diffusion.schedules import Cosine, perturb

F64 = torch.float64
every_threshold = pytest.mark.parametrize("threshold", [Clip(), Clip(0.5), DynamicThreshold(), DynamicThreshold(0.5)])
t = torch.tensor([0.01, 0.5, 1.0], dtype=F64)


def thresholded(threshold, x0, schedule, x_t=None):
    """The prediction after the threshold, of a denoiser that always sees ``x0``."""
    x_t = torch.zeros_like(x0) if x_t is None else x_t
    times = t[: len(x0)].to(x0)
    denoise = threshold(lambda x_t, t, y: Prediction.from_x0(x0, x_t, t, schedule), schedule)
    return denoise(x_t, times, None)


@every_threshold
def test_the_noise_is_recomputed(threshold, schedule):
    x0, x_t = 3 * torch.randn(2, 3, 1, 4, 4, dtype=F64)
    prediction = thresholded(threshold, x0, schedule, x_t)
    torch.testing.assert_close(perturb(*prediction, t, schedule), x_t, rtol=0, atol=1e-12)
    assert not torch.equal(prediction.x0, x0)


@every_threshold
def test_a_sample_does_not_depend_on_the_others_of_its_batch(threshold, schedule):
    x0 = torch.randn(3, 1, 4, 4, dtype=F64) * torch.tensor([1, 100, 5], dtype=F64)[:, None, None, None]
    together = thresholded(threshold, x0, schedule).x0
    for i in range(3):
        assert torch.equal(together[i], thresholded(threshold, x0[i : i + 1], schedule).x0[0])


@every_threshold
def test_an_image_in_range_is_left_as_it_is(threshold, schedule):
    x0 = torch.rand(3, 1, 4, 4, dtype=F64) - 0.5
    assert torch.equal(thresholded(threshold, x0, schedule).x0, x0)


@every_threshold
def test_thresholding_twice_equals_thresholding_once(threshold, schedule):
    once = thresholded(threshold, 3 * torch.randn(3, 1, 4, 4, dtype=F64), schedule).x0
    torch.testing.assert_close(thresholded(threshold, once, schedule).x0, once, rtol=0, atol=0)


def test_clip_by_hand():
    x0 = torch.tensor([[-3.0, -1.0, -0.2, 0.7, 1.5]])
    assert thresholded(Clip(), x0, Cosine()).x0.tolist() == torch.tensor([[-1.0, -1.0, -0.2, 0.7, 1.0]]).tolist()
    assert torch.equal(thresholded(Clip(math.inf), x0, Cosine()).x0, x0)


def test_dynamic_threshold_by_hand():
    x0 = torch.tensor([[0.0, -1.0, 2.0, -3.0, 4.0]])
    assert thresholded(DynamicThreshold(0.5), x0, Cosine()).x0.tolist() == [[0.0, -0.5, 1.0, -1.0, 1.0]]
    assert thresholded(DynamicThreshold(1.0), x0, Cosine()).x0.tolist() == [[0.0, -0.25, 0.5, -0.75, 1.0]]


def test_no_threshold_returns_the_denoiser_unchanged(mixture):
    assert NoThreshold()(mixture, mixture.schedule) is mixture


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan])
def test_clip_needs_a_positive_bound(bound):
    with pytest.raises(ValueError, match="bound must be positive"):
        Clip(bound)


@pytest.mark.parametrize("quantile", [0.0, 1.1, math.nan])
def test_dynamic_threshold_needs_a_quantile(quantile):
    with pytest.raises(ValueError, match=r"quantile must be in \(0, 1\]"):
        DynamicThreshold(quantile)
