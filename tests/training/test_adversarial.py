import math

import pytest
import torch
from torch import nn

from guided_diffusion.classifiers import Classifier
from guided_diffusion.losses import classification_loss
from guided_diffusion.schedules import Cosine, perturb
from guided_diffusion.training.adversarial import ProjectedGradient


class Linear(nn.Module):
    """Logits ``W x`` at every noise level; it notes whether it was in training mode."""

    def __init__(self, weight):
        super().__init__()
        self.num_classes = len(weight)
        self.weight = nn.Parameter(torch.tensor(weight))
        self.modes = []

    def forward(self, x_t, log_snr):
        self.modes.append(self.training)
        return x_t.flatten(1) @ self.weight.T


@pytest.fixture
def linear():
    """It decides by the sign of the first of two values: class 0 if that is positive."""
    return Classifier(Linear([[3.0, 0.0], [-1.0, 0.0]]), Cosine())


half = torch.full((4,), 0.5)


def test_on_a_linear_classifier_it_goes_straight_to_the_other_class_and_stops_when_it_is_there(linear):
    """Steps of 2.5 * 0.4 / 4 = 0.25 along the first value, up to a distance of 0.4."""
    x_t = torch.tensor([[0.1, 1.0], [0.3, -1.0], [0.9, 0.0], [-0.2, 0.0]])
    y = torch.tensor([0, 0, 0, 0])
    attacked = ProjectedGradient(0.4, 4)(linear, x_t, half, y)
    expected = torch.tensor([[0.1 - 0.25, 1.0], [0.3 - 0.4, -1.0], [0.9 - 0.4, 0.0], [-0.2, 0.0]])
    torch.testing.assert_close(attacked, expected, rtol=0, atol=1e-6)


def test_it_needs_fewer_steps_for_a_sample_near_the_other_class(linear):
    x_t = torch.tensor([[0.45, 0.0]])
    attacked = ProjectedGradient(1.0, 10)(linear, x_t, half[:1], torch.tensor([0]))
    torch.testing.assert_close(attacked, torch.tensor([[-0.05, 0.0]]), rtol=0, atol=1e-6)  # two steps of 0.25


def test_the_change_has_at_most_the_length_of_the_radius_whatever_the_batch():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, 3))
    classifier = Classifier(WithoutTime(network), Cosine())
    x_t, t, y = torch.randn(6, 3, 4, 4), torch.linspace(0.1, 1, 6), torch.arange(6) % 3
    before = x_t.clone()
    attack = ProjectedGradient(0.5, 7)
    attacked = attack(classifier, x_t, t, y)
    lengths = (attacked - x_t).flatten(1).norm(dim=1)
    assert (lengths <= 0.5 + 1e-6).all()
    assert lengths.max() > 0.1
    assert torch.equal(x_t, before)
    alone = torch.cat([attack(classifier, x_t[n : n + 1], t[n : n + 1], y[n : n + 1]) for n in range(6)])
    torch.testing.assert_close(attacked, alone, rtol=0, atol=1e-5)
    assert torch.equal(ProjectedGradient(0.0, 2)(classifier, x_t, t, y), x_t)
    assert all(parameter.grad is None for parameter in classifier.parameters())


class WithoutTime(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x_t, log_snr):
        return self.network(x_t)


def test_where_the_gradient_is_zero_nothing_moves():
    classifier = Classifier(Linear([[0.0, 0.0], [0.0, 0.0]]), Cosine())
    x_t = torch.randn(4, 2)
    assert torch.equal(ProjectedGradient()(classifier, x_t, half, torch.zeros(4, dtype=torch.long)), x_t)


def test_the_classifier_is_attacked_without_dropout_and_trained_with_it(linear):
    x0, eps, y = torch.randn(4, 2), torch.randn(4, 2), torch.tensor([0, 1, 0, 1])
    linear.train()
    losses, logits = classification_loss(linear, x0, y, half, eps, ProjectedGradient(0.4, 3))
    assert linear.backbone.modes == [False, False, False, True]
    x_t = ProjectedGradient(0.4, 3)(linear, perturb(x0, eps, half, linear.schedule), half, y)
    assert torch.equal(logits, linear(x_t, half))
    assert torch.equal(losses, nn.functional.cross_entropy(logits, y, reduction="none"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": -0.1}, "epsilon must be at least 0, got -0.1"),
        ({"epsilon": math.inf}, "epsilon must be at least 0, got inf"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
    ],
)
def test_a_setting_out_of_range_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        ProjectedGradient(**settings)


def samples(count, generator):
    """One value tells the class in nine of ten samples and by far; sixty others tell it always, and by little."""
    y = torch.randint(2, (count,), generator=generator)
    sign = (2 * y - 1)[:, None]
    flipped = 1 - 2 * (torch.rand(count, 1, generator=generator) < 0.1).float()
    weak = 0.08 * sign + 0.02 * torch.randn(count, 60, generator=generator)
    return torch.cat([sign * flipped, weak], dim=1), y


def trained(attack, generator):
    torch.manual_seed(0)
    network = WithoutTime(nn.Sequential(nn.Linear(61, 16), nn.Tanh(), nn.Linear(16, 2)))
    classifier, t = Classifier(network, Cosine()), torch.full((64,), 0.01)
    parameters = list(classifier.parameters())
    for _ in range(50):
        x0, y = samples(64, generator)
        losses, _ = classification_loss(classifier, x0, y, t, torch.randn(x0.shape, generator=generator), attack)
        for parameter, grad in zip(parameters, torch.autograd.grad(losses.mean(), parameters), strict=True):
            parameter.data -= 0.5 * grad
    return classifier.eval()


def test_a_classifier_that_was_trained_on_attacked_samples_withstands_the_attack_better(generator):
    attack, t = ProjectedGradient(0.8, 4), torch.full((500,), 0.01)
    plain, robust = trained(None, generator), trained(attack, generator)
    x, y = samples(500, generator)

    def accuracy(classifier, x):
        return (classifier(x, t).argmax(1) == y).float().mean().item()

    assert accuracy(plain, x) > 0.98
    assert accuracy(plain, attack(plain, x, t, y)) < 0.5
    assert accuracy(robust, attack(robust, x, t, y)) > 0.8
