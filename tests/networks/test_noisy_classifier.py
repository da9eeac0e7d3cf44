import pytest
import torch
from torch import nn

from guided_diffusion.networks import NoisyClassifier
from guided_diffusion.networks.layers import AttentionPooling


@pytest.fixture
def small(perturbed):
    def made(channels=1, **arguments):
        arguments = {"width": 8, "multipliers": (1, 2)} | arguments
        return perturbed(NoisyClassifier(channels, 8, 3, **arguments)).eval()

    return made


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("settings", [{}, {"patch_size": 2}, {"attention_levels": (0, 1), "blocks": 2}], ids=str)
def test_it_gives_a_logit_for_each_class(channels, settings, small):
    logits = small(channels, **settings)(torch.randn(5, channels, 8, 8), torch.randn(5))
    assert logits.shape == (5, 3)
    assert logits.isfinite().all()


@pytest.mark.parametrize("size", [(12, 20), (2, 6), (4, 2)])
def test_images_need_not_be_square(size, perturbed):
    network = perturbed(NoisyClassifier(2, list(size), 3, width=8, multipliers=(1, 2), attention_levels=[1]))
    assert network(torch.randn(5, 2, *size), torch.randn(5)).shape == (5, 3)


def test_the_error_for_images_that_cannot_be_halved_names_a_size_that_can():
    with pytest.raises(ValueError, match=r"images of 9x12 .* can't be halved.*take image_size=\[10,12\]"):
        NoisyClassifier(2, [9, 12], 3, width=8, multipliers=(1, 2))


def test_the_logits_depend_on_the_noise_level(small):
    network, x = small(), torch.randn(1, 1, 8, 8).expand(2, 1, 8, 8)
    first, second = network(x, torch.tensor([3.0, -3.0]))
    assert not torch.allclose(first, second)


def test_every_pixel_and_every_parameter_has_a_gradient(small):
    network = small(attention_levels=(1,))
    x = torch.randn(2, 1, 8, 8, requires_grad=True)
    network(x, torch.zeros(2))[:, 0].sum().backward()
    assert (x.grad != 0).all()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("training", [True, False])
def test_an_image_does_not_see_the_others_of_its_batch(training, small):
    network = small().train(training)
    x, log_snr = torch.randn(4, 1, 8, 8), torch.randn(4)
    alone = network(x[:1], log_snr[:1])
    torch.testing.assert_close(network(x, log_snr)[:1], alone, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in network.modules())


def test_attention_pooling_equals_attention_written_out():
    pool = AttentionPooling(6, 4, 3, 2).double()
    x = torch.randn(2, 6, 2, 2, dtype=torch.float64)
    for image, pooled in zip(x, pool(x), strict=True):
        pixels = image.flatten(1).T
        tokens = torch.cat([pixels.mean(0, keepdim=True), pixels]) + pool.places
        query, (key, value) = pool.query(tokens[0]), pool.key_value(tokens).split(6, dim=1)
        heads = [torch.softmax(key[:, h : h + 3] @ query[h : h + 3] / 3**0.5, 0) @ value[:, h : h + 3] for h in (0, 3)]
        torch.testing.assert_close(pooled, pool.output(torch.cat(heads)), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"multipliers": (1, 2, 2, 2, 2)}, "need a multiple of 16"),
        ({"patch_size": 3}, "need a multiple of 6"),
        ({"attention_levels": (2,)}, r"attention_levels must be among 0 to 1, got \[2\]"),
        ({"width": 4}, "multiple of 8"),
        ({"head_channels": 5}, "can't be divided into 3 attention heads"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(arguments, message, small):
    with pytest.raises(ValueError, match=message):
        small(**arguments)
