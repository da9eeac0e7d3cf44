import math

import pytest
import torch

from guided_diffusion.networks import MLP, NoisyMLPClassifier
from guided_diffusion.networks.mlp import waves


@pytest.fixture
def mlp(perturbed):
    return perturbed(MLP(2, 3, width=16, embedding=8)).eval()


@pytest.fixture
def classifier(perturbed):
    return perturbed(NoisyMLPClassifier(2, 3, width=16, embedding=8)).eval()


def inputs(count=6):
    return torch.randn(count, 2), torch.linspace(-5, 5, count), torch.arange(count) % 3


def test_the_output_has_the_shape_of_the_points_and_starts_at_zero():
    for dimensions in (1, 2, 5):
        output = MLP(dimensions, 3)(torch.randn(4, dimensions), torch.zeros(4), torch.zeros(4, dtype=torch.long))
        assert torch.equal(output, torch.zeros(4, dimensions))


@pytest.mark.parametrize("combine", ["add", "multiply", "concat"])
def test_noise_level_and_label_change_the_output(combine, perturbed):
    mlp = perturbed(MLP(2, 3, width=16, embedding=8, combine=combine))
    x, log_snr, y = inputs()
    output = mlp(x, log_snr, y)
    assert not torch.allclose(output, mlp(x, log_snr + 1, y))
    assert not torch.allclose(output, mlp(x, log_snr, (y + 1) % 3))
    assert not torch.allclose(output, mlp(x, log_snr, None))


def test_no_label_is_none_or_below_zero(mlp):
    x, log_snr, y = inputs()
    assert torch.equal(mlp(x, log_snr), mlp(x, log_snr, torch.full_like(y, -1)))


def test_a_label_that_is_no_class_is_refused(mlp):
    x, log_snr, y = inputs()
    with pytest.raises(IndexError):
        mlp(x, log_snr, y + 1)


@pytest.mark.parametrize("layers", [1, 3])
def test_the_condition_reaches_every_layer(layers):
    mlp = MLP(2, 3, layers=layers)
    torch.nn.init.normal_(mlp.output.weight)
    x, log_snr, y = inputs()
    mlp(x, log_snr, y).sum().backward()
    assert len(mlp.hidden) == layers
    assert all(layer.scale_shift.weight.grad.abs().max() > 0 for layer in mlp.hidden)


def test_the_result_for_a_point_does_not_depend_on_its_batch(mlp, classifier):
    x, log_snr, y = inputs()
    torch.testing.assert_close(mlp(x, log_snr, y)[2:3], mlp(x[2:3], log_snr[2:3], y[2:3]))
    torch.testing.assert_close(classifier(x, log_snr)[2:3], classifier(x[2:3], log_snr[2:3]))


def test_a_classifier_has_a_logit_for_each_class_that_depends_on_the_noise_level(classifier):
    x, log_snr, _ = inputs()
    assert classifier(x, log_snr).shape == (6, 3)
    assert classifier.num_classes == 3
    assert not torch.allclose(classifier(x, log_snr), classifier(x, log_snr + 1))


def test_fourier_features_are_the_coordinates_and_their_sines_and_cosines():
    x = torch.tensor([[0.5, -1.0]])
    expected = [
        *(0.5, -1.0),
        *(math.sin(math.pi / 4), -1.0, 1.0, 0.0),  # pi/2 x, then pi x
        *(math.cos(math.pi / 4), 0.0, 0.0, -1.0),
    ]
    torch.testing.assert_close(waves(x, 2), torch.tensor([expected]), atol=1e-6, rtol=0)
    assert torch.equal(waves(x, 0), x)


@pytest.mark.parametrize("network", [MLP, NoisyMLPClassifier])
def test_a_network_without_layers_is_refused(network):
    with pytest.raises(ValueError, match="layers must be at least 1, got 0"):
        network(2, 3, layers=0)
