import pytest
import torch
from torch import nn

from guided_diffusion.classifiers import Classifier, gradient
from guided_diffusion.networks import NoisyClassifier
from guided_diffusion.schedules import Cosine

F64 = torch.float64


def by_autograd(mixture, x_t, t, y):
    x = x_t.clone().requires_grad_()
    (expected,) = torch.autograd.grad((mixture.log_prob(x, t, y) - mixture.log_prob(x, t)).sum(), x)
    return expected


def test_the_gradient_is_that_of_the_log_posterior(mixture, noisy):
    x_t, t, y = noisy
    expected = by_autograd(mixture, x_t, t, y)
    torch.testing.assert_close(gradient(mixture.log_posterior, x_t, t, y), expected, rtol=0, atol=1e-12)


def test_the_gradient_points_to_where_the_class_is_likelier(mixture, noisy):
    x_t, t, y = noisy
    step = 1e-6 * gradient(mixture.log_posterior, x_t, t, y)
    before, after = (mixture.log_posterior(x, t).gather(1, y[:, None])[:, 0] for x in (x_t, x_t + step))
    assert (after > before).all()


def test_the_gradient_has_the_size_of_a_finite_difference(mixture, noisy):
    x_t, t, y = noisy
    h = 1e-5 * torch.eye(2, dtype=F64)
    sides = [
        torch.stack([mixture.log_posterior(x_t + sign * h[i], t).gather(1, y[:, None])[:, 0] for i in range(2)], 1)
        for sign in (1, -1)
    ]
    grad = gradient(mixture.log_posterior, x_t, t, y)
    torch.testing.assert_close(grad, (sides[0] - sides[1]) / 2e-5, rtol=1e-5, atol=1e-7)


def test_a_temperature_divides_the_logits(mixture, noisy):
    x_t, t, y = noisy
    halved = gradient(lambda x, t: mixture.log_posterior(x, t) / 0.5, x_t, t, y)
    torch.testing.assert_close(gradient(mixture.log_posterior, x_t, t, y, 0.5), halved, rtol=0, atol=1e-12)


@pytest.fixture
def network(perturbed):
    return perturbed(NoisyClassifier(1, 8, 3, width=8, multipliers=(1, 2)))


@pytest.fixture
def images():
    return torch.randn(4, 1, 8, 8), torch.linspace(0.1, 1, 4), torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_switched_off(mode, network, images):
    classify = Classifier(network, Cosine())
    expected = gradient(classify, *images)
    with mode():
        x_t, t, y = (value.clone() for value in images)
        assert torch.equal(gradient(classify, x_t, t, y), expected)
    assert expected.abs().sum() > 0


def test_under_autocast_it_stays_in_single_precision(network, images):
    seen = []
    network.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    classify = Classifier(network, Cosine())
    expected = gradient(classify, *images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(gradient(classify, *images), expected)
    assert seen == [torch.float32] * 2


def test_for_half_precision_inputs_it_is_in_single_precision(network, images):
    x_t, t, y = images
    half = gradient(Classifier(network, Cosine()), x_t.bfloat16(), t, y)
    assert half.dtype == torch.float32
    assert torch.equal(half, gradient(Classifier(network, Cosine()), x_t.bfloat16().float(), t, y))


def test_the_input_and_the_weights_are_left_alone(network, images):
    before = [value.clone() for value in images]
    gradient(Classifier(network, Cosine()), *images)
    assert all(map(torch.equal, images, before))
    assert not images[0].requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_sample_has_the_gradient_that_it_has_alone(network, images):
    classify = Classifier(network, Cosine())
    together = gradient(classify, *images)
    for i in range(4):
        alone = gradient(classify, *(value[i : i + 1] for value in images))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-6)


def test_a_classifier_passes_the_log_snr_to_its_network():
    class Echo(nn.Module):
        def forward(self, x_t, log_snr):
            return log_snr[:, None].expand(-1, 3)

    t = torch.tensor([0.2, 0.9])
    logits = Classifier(Echo(), Cosine())(torch.zeros(2, 1, 8, 8), t)
    torch.testing.assert_close(logits, Cosine().log_snr(t)[:, None].expand(-1, 3))
