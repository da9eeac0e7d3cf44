import pytest
import torch

from guided_diffusion.classifiers import Classifier, gradient
from guided_diffusion.networks import NoisyCNNClassifier
from guided_diffusion.schedules import Cosine


@pytest.fixture
def small(perturbed):
    return lambda channels=1, size=8: perturbed(NoisyCNNClassifier(channels, size, 3, width=4)).eval()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (9, 20), (28, 28)])
def test_it_gives_a_logit_for_each_class_of_images_of_any_size(channels, size, small):
    logits = small(channels, list(size))(torch.randn(5, channels, *size), torch.randn(5))
    assert logits.shape == (5, 3)
    assert logits.isfinite().all()


def test_it_has_about_400_thousand_parameters_for_mnist():
    assert sum(one.numel() for one in NoisyCNNClassifier(1, 28, 10).parameters()) == 405_610


def test_the_logits_depend_on_the_noise_level(small):
    first, second = small()(torch.randn(1, 1, 8, 8).expand(2, 1, 8, 8), torch.tensor([3.0, -3.0]))
    assert not torch.allclose(first, second)


def test_every_pixel_and_every_parameter_has_a_gradient(small):
    network, x = small(), torch.randn(2, 1, 8, 8, requires_grad=True)
    network(x, torch.zeros(2))[:, 0].sum().backward()
    assert (x.grad != 0).all()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("training", [True, False])
def test_neither_logits_nor_gradient_of_an_image_depend_on_the_others_of_its_batch(training, small):
    classifier = Classifier(small(size=12).train(training), Cosine())
    x, t, y = torch.randn(4, 1, 12, 12), torch.linspace(0.1, 0.9, 4), torch.tensor([0, 1, 2, 0])
    torch.testing.assert_close(classifier(x, t)[:1], classifier(x[:1], t[:1]), rtol=1e-4, atol=1e-5)
    alone = gradient(classifier, x[:1], t[:1], y[:1])
    torch.testing.assert_close(gradient(classifier, x, t, y)[:1], alone, rtol=1e-4, atol=1e-5)


def test_a_stage_equals_its_formula_with_the_channels_first(small):
    """``SiLU((1 + scale) LayerNorm(conv(x)) + shift)``, with one mean and one variance for each image."""
    stage = small().stages[0].double()
    x, condition = torch.randn(2, 1, 8, 8, dtype=torch.float64), torch.randn(2, 16, dtype=torch.float64)
    h = stage.conv(x)
    variance, mean = torch.var_mean(h, dim=(1, 2, 3), correction=0, keepdim=True)
    scale, shift = stage.scale_shift(condition)[..., None, None].chunk(2, dim=1)
    expected = torch.nn.functional.silu((1 + scale) * (h - mean) / (variance + 1e-5).sqrt() + shift)
    torch.testing.assert_close(stage(x, condition), expected, rtol=0, atol=1e-12)


def test_images_that_are_too_small_and_a_width_of_zero_are_refused():
    with pytest.raises(
        ValueError, match="images of 7x30 are too small for 3 convolutions of stride 2: take at least 8"
    ):
        NoisyCNNClassifier(1, [7, 30], 3)
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        NoisyCNNClassifier(1, 8, 3, width=0)
