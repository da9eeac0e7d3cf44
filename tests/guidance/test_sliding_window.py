import pytest
import torch
from torch import nn

from guided_diffusion.denoisers import Denoiser
from guided_diffusion.evaluation.cost import evaluations_per_sample
from guided_diffusion.guidance import SlidingWindow
from guided_diffusion.networks import MLP, FastUNet, UNet
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler
from guided_diffusion.schedules import Cosine

SCHEDULE = Cosine()


class MeanOfImage(nn.Module):
    """A network that predicts the mean of each channel of what it sees, plus the label."""

    size_multiple = 1

    def forward(self, x_t, log_snr, y):
        return x_t.mean((2, 3), keepdim=True).expand(x_t.shape) + (0 if y is None else y[:, None, None, None])


def inputs(channels=1, height=6, width=6):
    return torch.randn(3, channels, height, width), torch.tensor([0.2, 0.5, 0.9]), torch.tensor([0, 2, -1])


def test_windows_by_hand():
    """Three windows of 4 along the 6 rows and the 8 columns, of each of which the network predicts its mean."""
    denoiser, (x_t, t, y) = Denoiser(MeanOfImage(), SCHEDULE, "x0"), inputs(2, 6, 8)
    total, count = torch.zeros_like(x_t), torch.zeros(6, 8)
    for top in (0, 1, 2):
        for left in (0, 2, 4):
            crop = x_t[:, :, top : top + 4, left : left + 4]
            total[:, :, top : top + 4, left : left + 4] += crop.mean((2, 3), keepdim=True) + y[:, None, None, None]
            count[top : top + 4, left : left + 4] += 1
    weak, m = total / count, x_t.mean((2, 3), keepdim=True) + y[:, None, None, None]
    guided = SlidingWindow(3.0, window=4, windows=3)(denoiser, SCHEDULE)
    torch.testing.assert_close(guided(x_t, t, y).x0, weak + 3 * (m - weak), rtol=0, atol=1e-5)


@pytest.fixture
def unet(perturbed):
    return Denoiser(perturbed(UNet(3, (8, 12), 3, width=8, multipliers=(1, 2), blocks=1)).eval(), SCHEDULE)


@pytest.mark.parametrize("settings", [(5.0, 12), (1.0, 4)])
def test_a_window_as_large_as_the_image_is_the_model_itself(settings, unet):
    batch = inputs(3, 8, 12)
    guided, plain = SlidingWindow(*settings)(unet, SCHEDULE)(*batch), unet(*batch)
    assert torch.equal(guided.x0, plain.x0)
    assert torch.equal(guided.eps, plain.eps)


@pytest.mark.parametrize("scale", [0.0, 3.0, torch.tensor([0.0, 1.0, 2.0])])
def test_a_network_that_takes_smaller_images_is_guided(scale, unet):
    x_t, t, y = inputs(3, 8, 12)
    guided = SlidingWindow(scale, 8)(unet, SCHEDULE)(x_t, t, y)  # one window in the height, two in the width
    first, second = (unet(x_t[..., left : left + 8], t, y).x0 for left in (0, 4))
    weak = torch.cat([first[..., :4], (first[..., 4:] + second[..., :4]) / 2, second[..., 4:]], dim=3)
    w = torch.as_tensor(scale).expand(3)[:, None, None, None]
    expected = weak + w * (unet(x_t, t, y).x0 - weak)
    torch.testing.assert_close(guided.x0, expected, rtol=0, atol=1e-4)
    alpha, sigma = (value[:, None, None, None] for value in SCHEDULE(t))
    torch.testing.assert_close(alpha * guided.x0 + sigma * guided.eps, x_t, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((2.0, 5), "window must be a multiple of 2 for this network, got 5"),
        ((2.0, 6, 4), "4 windows of 6 pixels don't lie evenly over 8"),
        ((2.0, 4, 1), "1 windows of 4 pixels don't lie evenly over 8"),
        ((2.0, 2, 2), "2 windows of 2 pixels don't lie evenly over 8"),
        ((2.0, 0), "window must be at least 1"),
    ],
)
def test_windows_that_do_not_fit_raise(settings, message, unet):
    with pytest.raises(ValueError, match=message):
        SlidingWindow(*settings)(unet, SCHEDULE)(*inputs(3, 8, 12))


@pytest.mark.parametrize("network", [FastUNet(1, 8, 3, width=8), MLP(2, 3)])
def test_a_network_of_one_size_raises(network):
    name = type(network).__name__
    with pytest.raises(ValueError, match=f"sliding window guidance needs .* several sizes, and {name} does not"):
        SlidingWindow(2.0)(Denoiser(network, SCHEDULE), SCHEDULE)(*inputs(1, 8, 8))


def test_points_have_no_windows():
    denoiser = Denoiser(MeanOfImage(), SCHEDULE)
    with pytest.raises(ValueError, match="sliding window guidance is for images"):
        SlidingWindow(2.0)(denoiser, SCHEDULE)(torch.zeros(1, 2), torch.ones(1), None)


def test_the_windows_are_counted_as_one_evaluation():
    recipe = Recipe(SlidingWindow(2.0), sampler=Sampler(steps=5))
    assert evaluations_per_sample(recipe, SCHEDULE) == 10
