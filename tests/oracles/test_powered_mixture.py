import jaxtyping
import pytest
import torch

from guided_diffusion.denoisers import UNLABELLED
from guided_diffusion.guidance import ClassifierFree
from guided_diffusion.oracles.gaussian_mixture import GaussianMixture
from guided_diffusion.oracles.powered_mixture import NARROW, PoweredMixture
from guided_diffusion.samplers import heun, uniform_times
from guided_diffusion.schedules import Cosine, perturb

F64 = torch.float64
identity = torch.eye(2, dtype=F64)
MEAN, VARIANCE = 0.5, 0.09


@pytest.fixture
def mixture():
    """Three classes, of which one has two Gaussians, narrow enough for a small grid."""
    return GaussianMixture(
        Cosine(),
        means=torch.tensor([[0.4, 0.3], [-0.3, 0.4], [0.0, -0.3], [0.4, -0.3]], dtype=F64),
        covariances=torch.tensor([[[0.08, 0.03], [0.03, 0.06]], [[0.05, -0.02], [-0.02, 0.05]]], dtype=F64).repeat(
            2, 1, 1
        ),
        weights=torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=F64),
        labels=torch.tensor([0, 1, 2, 2]),
    )


@pytest.fixture
def mirrored():
    """Two classes, one Gaussian each, at (+-MEAN, 0): p(y|x) is a sigmoid of the first coordinate alone."""
    means = torch.tensor([[MEAN, 0.0], [-MEAN, 0.0]], dtype=F64)
    return GaussianMixture(Cosine(), means, (VARIANCE * identity).expand(2, 2, 2))


def moments(powered, label):
    """Mean and second moments of the density on the grid."""
    points = torch.cartesian_prod(*powered.axes)
    mass = powered.density(label).flatten() * powered.spacing**2
    return torch.cat([mass @ points, torch.einsum("n,ni,nj->ij", mass, points, points).flatten()])


def sample_moments(x):
    values = torch.cat([x, (x[:, :, None] * x[:, None]).flatten(1)], dim=1)
    return values.mean(0), values.std(0) / len(x) ** 0.5


# The denoiser


@pytest.mark.parametrize("w", [0.0, 1.0])
@pytest.mark.parametrize("t", [0.0, 0.02, 0.3, 1.0])
def test_w_0_is_the_mixture_and_w_1_the_class_conditional(mixture, w, t):
    y, times = torch.arange(60) % 3, torch.full((60,), t, dtype=F64)
    x_t = perturb(mixture.sample(y), torch.randn(60, 2, dtype=F64), times, mixture.schedule)
    exact = mixture(x_t, times, y if w else None)
    prediction = PoweredMixture(mixture, w)(x_t, times, y)
    torch.testing.assert_close(prediction.x0, exact.x0, rtol=0, atol=1e-8)
    torch.testing.assert_close(prediction.eps, exact.eps, rtol=0, atol=1e-8 * float(1 + 1 / max(t, 0.01)))


@pytest.mark.parametrize("w", [0.0, 0.5, 3.0])
def test_where_there_is_one_class_its_power_changes_nothing(schedule, w):
    covariance = torch.tensor([[0.05, 0.02], [0.02, 0.03]], dtype=F64)
    gaussian = GaussianMixture.gaussian(schedule, torch.tensor([0.3, -0.2], dtype=F64), covariance)
    x_t, t, y = torch.randn(40, 2, dtype=F64), torch.linspace(0.2, 1, 40, dtype=F64), torch.zeros(40, dtype=torch.long)
    torch.testing.assert_close(PoweredMixture(gaussian, w)(x_t, t, y).x0, gaussian(x_t, t).x0, rtol=0, atol=1e-9)


@pytest.mark.parametrize("w", [0.5, 2.0, 6.0])
def test_across_mirrored_classes_the_power_acts_and_along_them_it_does_not(mirrored, w):
    """``q ~ N(x_1; 0, v) e^(w m x_1 / v) cosh(m x_1 / v)^(1 - w)  N(x_2; 0, v)``: one integral, one closed form."""
    x_t, y = torch.randn(30, 2, dtype=F64), torch.zeros(30, dtype=torch.long)
    t = torch.cat([torch.full((1,), 0.03, dtype=F64), torch.linspace(0.1, 1, 29, dtype=F64)])
    x_t[0] = torch.tensor([0.3, 0.2])
    x0 = PoweredMixture(mirrored, w)(x_t, t, y).x0
    alpha, sigma = mirrored.schedule(t)
    line = torch.linspace(-4, 4, 100_001, dtype=F64)
    slope = MEAN / VARIANCE * line
    log_cosh = torch.logaddexp(slope, -slope)
    log_q = -(line**2) / (2 * VARIANCE) + w * slope + (1 - w) * log_cosh
    log_posterior = log_q - ((line - (x_t[:, :1] / alpha[:, None])) * (alpha / sigma)[:, None]) ** 2 / 2
    torch.testing.assert_close(x0[:, 0], log_posterior.softmax(1) @ line, rtol=0, atol=1e-9)
    shrunk = alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2) * x_t[:, 1]
    torch.testing.assert_close(x0[:, 1], shrunk, rtol=0, atol=1e-9)


def test_the_two_quadratures_agree_where_one_takes_over(mixture):
    powered, y = PoweredMixture(mixture, 3.0), torch.arange(30) % 3
    width = torch.full((30, 1), NARROW * powered.spacing, dtype=F64)
    centre = powered.sample(y)
    on_grid = torch.stack([powered._on_grid(centre[[i]], width[[i]], int(y[i]))[0] for i in range(30)])
    around = centre + width * powered._around(centre, width, y)
    torch.testing.assert_close(on_grid, around, rtol=0, atol=1e-10)


def test_a_finer_grid_changes_nothing(mixture, noisy):
    x_t, t, y = noisy
    coarse, fine = (PoweredMixture(mixture, 4.0, fineness)(x_t, t, y).x0 for fineness in (6, 10))
    torch.testing.assert_close(coarse, fine, rtol=0, atol=1e-7)


def test_no_image_estimate_of_the_powered_density_has_a_smaller_error(mixture, generator):
    """Errors on its own samples are orthogonal to any function of x_t."""
    powered, count = PoweredMixture(mixture, 3.0), 6000
    y, t = torch.arange(count) % 3, torch.full((count,), 0.3, dtype=F64)
    x0 = powered.sample(y, generator)
    x_t = perturb(x0, torch.randn(count, 2, generator=generator, dtype=F64), t, mixture.schedule)
    error = powered(x_t, t, y).x0 - x0
    products = error[:, :, None] * torch.cat([x_t, x_t.square(), torch.ones_like(x_t)], dim=1)[:, None]
    assert (products.mean(0).abs() < 5 * products.std(0) / count**0.5).all()


def test_where_all_products_of_kernel_and_density_vanish_the_estimate_stays_on_the_side_of_the_kernel():
    """Midway between narrow classes: x0 is at the edge of what the grid holds of its class, towards x_t."""
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=F64)
    narrow = GaussianMixture(Cosine(), means, (0.02**2 * identity).expand(2, 2, 2))
    powered, y = PoweredMixture(narrow), torch.tensor([0])
    t = narrow.schedule.time(torch.full((1,), -2 * torch.tensor(0.01).log().item(), dtype=F64))
    x0 = powered(torch.zeros(1, 2, dtype=F64), t, y).x0
    torch.testing.assert_close(x0[0], torch.tensor([1 - 0.02 * 2**0.5 * 10, 0.0], dtype=F64), rtol=0, atol=0.005)


def test_guidance_is_not_the_ideal_but_becomes_it_as_noise_vanishes(mirrored):
    y, x_t = torch.zeros(20, dtype=torch.long), torch.randn(20, 2, dtype=F64) / 3
    ideal, guided = PoweredMixture(mirrored, 3.0), ClassifierFree(3.0)(mirrored, mirrored.schedule)

    def apart(t):
        times = torch.full((20,), t, dtype=F64)
        return (ideal(x_t, times, y).x0 - guided(x_t, times, y).x0).abs().max()

    assert apart(0.5) > 0.05
    assert apart(0.001) < 1e-5


@pytest.mark.slow
def test_a_sampler_with_the_ideal_denoiser_samples_the_powered_density_and_with_guidance_it_does_not(mirrored):
    powered, y = PoweredMixture(mirrored, 3.0), torch.zeros(3000, dtype=torch.long)
    expected = moments(powered, 0)
    for denoise, reached in ((powered, True), (ClassifierFree(3.0)(mirrored, mirrored.schedule), False)):
        noise = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
        *_, last = heun(denoise, mirrored.schedule, noise, uniform_times(mirrored.schedule, 30), y)
        mean, error = sample_moments(last.x)
        assert ((mean - expected).abs() < 5 * error).all() == reached


def test_a_prediction_adds_up_to_the_input_and_labels_may_be_missing(mixture, noisy):
    x_t, t, y = noisy
    powered = PoweredMixture(mixture, 2.0)
    mixed = torch.where(y == 0, UNLABELLED, y)
    prediction = powered(x_t, t, mixed)
    torch.testing.assert_close(perturb(*prediction, t, mixture.schedule), x_t, rtol=0, atol=1e-12)
    torch.testing.assert_close(prediction.x0[y > 0], powered(x_t, t, y).x0[y > 0], rtol=0, atol=1e-12)
    torch.testing.assert_close(prediction.x0[y == 0], mixture(x_t, t).x0[y == 0], rtol=0, atol=1e-8)
    torch.testing.assert_close(powered(x_t, t).x0, mixture(x_t, t).x0, rtol=0, atol=1e-8)


def test_it_keeps_the_shape_and_the_precision_of_its_input(mixture, noisy):
    x_t, t, y = noisy
    powered = PoweredMixture(mixture, 2.0)
    single = powered(x_t.float().reshape(-1, 1, 1, 2), t.float(), y)
    assert single.x0.shape == (9, 1, 1, 2)
    assert single.x0.dtype == single.eps.dtype == torch.float32
    torch.testing.assert_close(single.x0.flatten(1), powered(x_t, t, y).x0.float(), rtol=0, atol=1e-5)


# The density and its samples


def test_a_device_without_float64_gets_the_prediction_of_the_cpu(mirrored, on_device):
    inputs = torch.randn(4, 2), torch.tensor([0.01, 0.3, 0.6, 1.0]), torch.tensor([0, 1, UNLABELLED, 0])
    powered = PoweredMixture(mirrored, 2.0)
    for on_cpu, there in zip(powered(*inputs), powered(*map(on_device, inputs)), strict=True):
        assert torch.equal(there.cpu(), on_cpu)
        assert type(there) is type(on_device(on_cpu))


@pytest.mark.parametrize("w", [0.0, 0.5, 1.0, 4.0])
def test_the_density_integrates_to_one_and_is_the_log_density_up_to_a_constant(mixture, w):
    powered = PoweredMixture(mixture, w)
    density = powered.density(2)
    assert density.sum().item() * powered.spacing**2 == pytest.approx(1, abs=1e-12)
    points = torch.cartesian_prod(*powered.axes)
    constants = (density.flatten().log() - powered.log_density(points, torch.full((len(points),), 2)))[
        density.flatten() > 0
    ]
    assert constants.std() < 1e-10


def test_with_w_1_it_is_the_density_of_the_class(mixture):
    powered = PoweredMixture(mixture)
    points = torch.cartesian_prod(*powered.axes)
    y, t = torch.full((len(points),), 2), torch.zeros(len(points), dtype=F64)
    expected = (mixture.log_prob(points, t, y) - mixture.weights[2:].sum().log()).exp()
    torch.testing.assert_close(powered.density(2).flatten(), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("w", [0.0, 0.5, 1.0, 4.0])
def test_samples_have_the_moments_of_the_density(mixture, generator, w):
    powered = PoweredMixture(mixture, w)
    for label in (0, 2, UNLABELLED):
        mean, error = sample_moments(powered.sample(torch.full((6000,), label), generator))
        assert ((mean - moments(powered, label)).abs() < 5 * error).all()


def test_samples_come_in_the_order_of_their_labels_from_the_generator_alone(mixture):
    powered, before = PoweredMixture(mixture, 4.0), torch.random.get_rng_state()
    y = torch.arange(3).repeat_interleave(500)
    first, second = (powered.sample(y, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), before)
    for label in range(3):
        mean, error = sample_moments(first[y == label])
        assert ((mean - moments(powered, label)).abs() < 5 * error).all()


# Wrong input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": -0.5}, "scale must be finite and at least 0, got -0.5"),
        ({"scale": float("inf")}, "scale must be finite and at least 0, got inf"),
        ({"fineness": 2.0}, "fineness must be at least 4, got 2.0"),
    ],
)
def test_settings_that_make_no_density_or_no_grid_raise(mirrored, arguments, message):
    with pytest.raises(ValueError, match=message):
        PoweredMixture(mirrored, **arguments)


def test_another_dimension_raises(monkeypatch):
    gaussian = GaussianMixture.gaussian(Cosine(), torch.zeros(3, dtype=F64), torch.eye(3, dtype=F64))
    with pytest.raises(ValueError, match="must be in 2 dimensions, got 3"):
        PoweredMixture(gaussian)


@pytest.mark.parametrize("variance", [0.0, 1e-8])
def test_a_mixture_too_narrow_for_a_grid_raises(variance):
    points = GaussianMixture(Cosine(), identity, (variance * identity).expand(2, 2, 2))
    with pytest.raises(ValueError, match="too narrow for a grid of 4096 points a side"):
        PoweredMixture(points)


@pytest.mark.parametrize("t", [0.001, 0.5])
def test_a_label_that_no_component_has_raises(mirrored, monkeypatch, t):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="no component has the label 7"):
        PoweredMixture(mirrored)(torch.zeros(1, 2), torch.full((1,), t), torch.tensor([7]))
