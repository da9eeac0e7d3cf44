import jaxtyping
import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from guided_diffusion.denoisers import UNLABELLED
from guided_diffusion.oracles.gaussian_mixture import GaussianMixture
from guided_diffusion.schedules import Cosine, perturb

F64 = torch.float64
identity = torch.eye(2, dtype=F64)


def noisy_density(mixture, t, components=slice(None)):
    """p_t as torch.distributions has it."""
    alpha, sigma = mixture.schedule(t)
    covariances = alpha**2 * mixture.covariances[components] + sigma**2 * identity
    weights = mixture.weights[components]
    return MixtureSameFamily(Categorical(weights), MultivariateNormal(alpha * mixture.means[components], covariances))


@pytest.mark.parametrize("t", [0.0, 0.05, 0.5, 1.0])
def test_log_prob_is_that_of_the_mixture(mixture, t):
    x_t, times = torch.randn(20, 2, dtype=F64), torch.full((20,), t, dtype=F64)
    expected = noisy_density(mixture, times[0]).log_prob(x_t)
    torch.testing.assert_close(mixture.log_prob(x_t, times), expected, rtol=1e-12, atol=1e-12)


def test_log_prob_with_a_label_is_that_of_image_and_label_together(mixture):
    x_t, t = torch.randn(20, 2, dtype=F64), torch.full((20,), 0.3, dtype=F64)
    of_class_2 = noisy_density(mixture, t[0], torch.tensor([2, 3])).log_prob(x_t)
    expected = of_class_2 + mixture.weights[2:].sum().log()
    torch.testing.assert_close(mixture.log_prob(x_t, t, torch.full((20,), 2)), expected, rtol=1e-12, atol=1e-12)


def test_the_classes_together_are_the_mixture(mixture, noisy):
    x_t, t, _ = noisy
    classes = torch.stack([mixture.log_prob(x_t, t, torch.full((9,), k)) for k in range(3)])
    torch.testing.assert_close(classes.logsumexp(0), mixture.log_prob(x_t, t), rtol=1e-12, atol=1e-12)


def test_the_posterior_is_that_of_bayes(mixture, noisy):
    x_t, t, y = noisy
    posterior = mixture.log_posterior(x_t, t)
    torch.testing.assert_close(posterior.exp().sum(1), torch.ones(9, dtype=F64), rtol=0, atol=1e-12)
    expected = mixture.log_prob(x_t, t, y) - mixture.log_prob(x_t, t)
    torch.testing.assert_close(posterior.gather(1, y[:, None])[:, 0], expected, rtol=0, atol=1e-12)


def test_a_class_without_components_has_no_share_and_leaves_the_gradient_finite(schedule):
    oracle = GaussianMixture(schedule, identity, identity.expand(2, 2, 2), labels=torch.tensor([0, 2]))
    x = torch.randn(3, 2, dtype=F64, requires_grad=True)
    posterior = oracle.log_posterior(x, torch.full((3,), 0.5, dtype=F64))
    assert (posterior[:, 1] == -torch.inf).all()
    posterior[:, 0].sum().backward()
    assert (x.grad.isfinite() & (x.grad != 0)).all()


@pytest.mark.parametrize("labelled", [True, False])
def test_the_noise_is_the_gradient_of_log_prob(mixture, noisy, labelled):
    """Tweedie: ``eps = -sigma grad log p_t(x_t)``."""
    x_t, t, y = noisy
    y, x = y if labelled else None, x_t.clone().requires_grad_()
    (score,) = torch.autograd.grad(mixture.log_prob(x, t, y).sum(), x)
    torch.testing.assert_close(mixture(x_t, t, y).eps, -mixture.schedule(t)[1][:, None] * score, rtol=0, atol=1e-12)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_prediction_adds_up_to_the_input(mixture, noisy, labelled):
    x_t, t, y = noisy
    prediction = mixture(x_t, t, y if labelled else None)
    torch.testing.assert_close(perturb(*prediction, t, mixture.schedule), x_t, rtol=0, atol=1e-12)


def test_no_image_estimate_has_a_smaller_error(mixture, generator):
    """The conditional mean beats its own neighbours on samples: errors are orthogonal to any function of x_t."""
    labels = torch.arange(20_000) % 3
    x0, t = mixture.sample(labels, generator), torch.full((20_000,), 0.4, dtype=F64)
    x_t = perturb(x0, torch.randn(20_000, 2, generator=generator, dtype=F64), t, mixture.schedule)
    error = mixture(x_t, t, labels).x0 - x0
    products = error[:, :, None] * torch.cat([x_t, x_t.square(), torch.ones_like(x_t)], dim=1)[:, None]
    assert (products.mean(0).abs() < 5 * products.std(0) / 20_000**0.5).all()


@pytest.fixture
def correlated():
    """Mean and covariance in three dimensions, where a matrix of eigenvectors is not its own transpose."""
    factor = torch.randn(3, 3, dtype=F64)
    return torch.tensor([1.0, -2.0, 0.5], dtype=F64), factor @ factor.T


def test_a_single_gaussian_shrinks_towards_its_mean(schedule, correlated):
    """``x0 = mean + alpha cov (alpha^2 cov + sigma^2 I)^-1 (x_t - alpha mean)``."""
    (mean, covariance), x_t, t = correlated, torch.randn(5, 3, dtype=F64), torch.rand(5, dtype=F64)
    oracle = GaussianMixture.gaussian(schedule, mean, covariance)
    alpha, sigma = (value[:, None, None] for value in schedule(t))
    noisy_covariance = alpha**2 * covariance + sigma**2 * torch.eye(3, dtype=F64)
    shift = alpha * covariance @ torch.linalg.solve(noisy_covariance, x_t[..., None] - alpha * mean[:, None])
    torch.testing.assert_close(oracle(x_t, t).x0, mean + shift[..., 0], rtol=0, atol=1e-10)
    torch.testing.assert_close(perturb(*oracle(x_t, t), t, schedule), x_t, rtol=0, atol=1e-12)


def test_samples_of_a_single_gaussian_have_its_mean_and_covariance(correlated, generator):
    (mean, covariance), count = correlated, 4000
    x = GaussianMixture.gaussian(Cosine(), mean, covariance).sample(torch.zeros(count, dtype=torch.long), generator)
    variances = covariance.diagonal()
    assert ((x.mean(0) - mean).abs() < 5 * (variances / count).sqrt()).all()
    tolerance = 5 * ((variances[:, None] * variances + covariance**2) / count).sqrt()
    assert ((x.T.cov() - covariance).abs() < tolerance).all()


def test_points_are_gaussians_of_no_width(schedule):
    points = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=F64)
    oracle = GaussianMixture(schedule, points, torch.zeros(2, 2, 2, dtype=F64))
    y = torch.tensor([0, 1, 1])
    x0 = oracle(torch.randn(3, 2, dtype=F64), torch.tensor([0.1, 0.5, 1.0], dtype=F64), y).x0
    torch.testing.assert_close(x0, points[y], rtol=0, atol=1e-12)


def test_unlabelled_samples_among_labelled_ones_see_the_whole_mixture(mixture, noisy):
    x_t, t, y = noisy
    mixed = torch.where(y == 0, UNLABELLED, y)
    expected = torch.where((y == 0)[:, None], mixture(x_t, t, None).x0, mixture(x_t, t, y).x0)
    torch.testing.assert_close(mixture(x_t, t, mixed).x0, expected, rtol=0, atol=1e-12)


def test_weights_and_labels_have_defaults(schedule):
    plain = GaussianMixture(schedule, identity, identity.expand(2, 2, 2))
    spelt = GaussianMixture(
        schedule, identity, identity.expand(2, 2, 2), torch.tensor([3.0, 3.0], dtype=F64), torch.tensor([0, 1])
    )
    inputs = torch.randn(4, 2, dtype=F64), torch.rand(4, dtype=F64), torch.tensor([0, 1, 1, -1])
    torch.testing.assert_close(plain.log_prob(*inputs), spelt.log_prob(*inputs), rtol=0, atol=1e-14)


def test_default_weights_are_as_precise_as_the_means(schedule):
    thirds = GaussianMixture(schedule, torch.zeros(3, 2, dtype=F64), identity.expand(3, 2, 2))
    one = GaussianMixture.gaussian(schedule, torch.zeros(2, dtype=F64), identity)
    inputs = torch.randn(4, 2, dtype=F64), torch.rand(4, dtype=F64)
    torch.testing.assert_close(thirds.log_prob(*inputs), one.log_prob(*inputs), rtol=0, atol=1e-14)


def test_images_are_flattened_and_come_back_in_their_shape(schedule):
    mean = torch.randn(12, dtype=F64)
    oracle = GaussianMixture.gaussian(schedule, mean, torch.eye(12, dtype=F64))
    x_t, t = torch.randn(5, 3, 2, 2, dtype=F64), torch.rand(5, dtype=F64)
    assert oracle(x_t, t).x0.shape == (5, 3, 2, 2)
    torch.testing.assert_close(oracle(x_t, t).eps.flatten(1), oracle(x_t.flatten(1), t).eps, rtol=0, atol=0)


def test_samples_are_of_the_class_asked_for(mixture, generator):
    x = mixture.sample(torch.arange(3).repeat(1000), generator).unflatten(0, (1000, 3))
    means = torch.stack([*mixture.means[:2], (2 * mixture.means[2] + mixture.means[3]) / 3])
    assert ((x.mean(0) - means).abs() < 5 * x.std(0) / 1000**0.5).all()


def test_samples_of_any_class_come_in_proportion_to_the_weights(mixture, generator):
    count = 4000
    x = mixture.sample(torch.full((count,), UNLABELLED), generator)
    mean = mixture.weights @ mixture.means
    second = torch.einsum(
        "k,kij->ij", mixture.weights, mixture.covariances + mixture.means[:, :, None] * mixture.means[:, None]
    )
    assert ((x.mean(0) - mean).abs() < 5 * ((second.diagonal() - mean**2) / count).sqrt()).all()


def test_samples_come_from_the_generator_alone(mixture):
    y, before = torch.zeros(5, dtype=torch.long), torch.random.get_rng_state()
    first, second = (mixture.sample(y, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_covariances_of_another_shape_raise(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=r"covariances must have shape \(3, 2, 2\), got \(2, 2\)"):
        GaussianMixture(Cosine(), torch.zeros(3, 2, dtype=F64), identity)


def test_a_covariance_with_a_negative_eigenvalue_raises():
    with pytest.raises(ValueError, match="positive semi-definite"):
        GaussianMixture.gaussian(Cosine(), torch.zeros(2, dtype=F64), torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=F64))


def test_a_label_that_no_component_has_raises(mixture):
    with pytest.raises(ValueError, match="no component has the label 99"):
        mixture(torch.zeros(1, 2), torch.full((1,), 0.5), torch.tensor([99]))
