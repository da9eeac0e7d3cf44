import math

import pytest
import torch
from torch import nn

from guided_diffusion.networks import UNet
from guided_diffusion.networks.layers import Upsample

log_snr, y = torch.tensor([-3.0, 0.0, 3.0]), torch.tensor([0, 2, -1])


def small(channels=1, image_size=8, **settings):
    return UNet(channels, image_size, 3, **{"width": 8, "multipliers": (1, 2), "blocks": 1} | settings)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("patch_size", [1, 2])
@pytest.mark.parametrize("combine", ["add", "multiply", "concat"])
def test_the_output_has_the_shape_of_the_input(channels, patch_size, combine, perturbed):
    network = perturbed(small(channels, patch_size=patch_size, combine=combine))
    output = network(torch.randn(3, channels, 8, 8), log_snr, y)
    assert output.shape == (3, channels, 8, 8)
    assert output.isfinite().all()
    assert output.std() > 0


@pytest.mark.parametrize(
    ("image_size", "settings"),
    [
        (28, {"multipliers": (1, 2, 2)}),
        (32, {"multipliers": (1, 2, 2, 4), "blocks": 2, "attention_levels": (2, 3)}),
        (8, {"multipliers": (1,), "middle_attention": False}),
        (8, {"width": 24, "multipliers": (2, 1), "attention_levels": [0], "head_channels": 4}),
    ],
)
def test_levels_blocks_and_attention_fit_together(image_size, settings, perturbed):
    x = torch.randn(3, 1, image_size, image_size)
    assert perturbed(small(1, image_size, **settings))(x, log_snr, y).shape == x.shape


@pytest.mark.parametrize(
    ("image_size", "settings"),
    [
        ([12, 20], {"multipliers": (1, 2, 2), "attention_levels": (0, 1, 2)}),
        ([4, 20], {"patch_size": 2}),
        ([30, 22], {}),
        ([9, 13], {"multipliers": (1,)}),
        ([9, 1], {"multipliers": (1,), "attention_levels": [0]}),
        ([1, 1], {"multipliers": (1,)}),
    ],
    ids=str,
)
def test_images_need_not_be_square(image_size, settings, perturbed):
    x = torch.randn(3, 2, *image_size)
    output = perturbed(small(2, image_size, **settings))(x, log_snr, y)
    assert output.shape == x.shape
    assert output.isfinite().all()


def test_a_size_and_height_and_width_give_the_same_network():
    def state(size):
        torch.manual_seed(0)
        return small(image_size=size).state_dict()

    first, second = state(8), state([8, 8])
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("patch_size", [1, 2])
def test_the_output_is_exactly_zero_at_the_start(patch_size):
    assert (small(3, patch_size=patch_size)(torch.randn(3, 3, 8, 8), log_snr, y) == 0).all()


@torch.no_grad()
def test_no_labels_are_all_unlabelled(network):
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(network(x, log_snr, None), network(x, log_snr, torch.full((3,), -1)))
    assert torch.equal(network(x, log_snr), network(x, log_snr, None))


@pytest.mark.parametrize("combine", ["add", "multiply", "concat"])
def test_each_label_and_each_noise_level_changes_the_output(combine, perturbed):
    network, x = perturbed(small(combine=combine)), torch.randn(1, 1, 8, 8).expand(4, 1, 8, 8)
    of_labels = network(x, torch.zeros(4), torch.tensor([0, 1, 2, -1]))
    of_levels = network(x, torch.tensor([-3.0, -1.0, 1.0, 3.0]), torch.zeros(4, dtype=torch.long))
    assert (torch.pdist(of_labels.flatten(1)) > 1e-5).all()
    assert (torch.pdist(of_levels.flatten(1)) > 1e-5).all()


@pytest.mark.parametrize("training", [True, False])
def test_a_sample_does_not_depend_on_the_others_of_its_batch(training, perturbed):
    network, x = perturbed(small(attention_levels=(0, 1))).train(training), torch.randn(3, 1, 8, 8)
    together = network(x, log_snr, y)
    for i in range(3):
        alone = network(x[i : i + 1], log_snr[i : i + 1], y[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-5)


def test_there_is_no_batch_norm_and_dropout_is_off_in_eval_mode(perturbed):
    network, x = perturbed(small(dropout=0.5)), torch.randn(3, 1, 8, 8)
    assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in network.modules())
    assert not torch.equal(network(x, log_snr, y), network(x, log_snr, y))
    network.eval()
    assert torch.equal(network(x, log_snr, y), network(x, log_snr, y))


def test_every_parameter_is_trained(perturbed):
    network = perturbed(small(3, attention_levels=(1,), patch_size=2))
    network(torch.randn(4, 3, 8, 8), torch.zeros(4), torch.tensor([0, 1, 2, -1])).square().sum().backward()
    assert [name for name, value in network.named_parameters() if value.grad is None or (value.grad == 0).all()] == []


def test_a_clean_image_is_a_noise_level_like_any_other(network):
    assert network(torch.randn(1, 1, 8, 8), torch.tensor([math.inf]), None).isfinite().all()


@pytest.mark.parametrize("size", [1, 5])
def test_upsampling_is_a_convolution_of_the_doubled_image(size):
    upsample, x = Upsample(3).double(), torch.randn(2, 3, size, size, dtype=torch.float64)
    expected = upsample.conv(nn.functional.interpolate(x, scale_factor=2, mode="nearest"))
    torch.testing.assert_close(upsample(x), expected, rtol=0, atol=1e-12)


def test_skip_connections_carry_the_image_past_the_bottom(network):
    network.middle[-1].register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
    first, second = network(torch.randn(2, 1, 8, 8), torch.zeros(2), None)
    assert (first - second).abs().max() > 1e-3


def test_with_patches_every_pixel_is_read_and_has_its_own_output(perturbed):
    network = perturbed(small(patch_size=2, multipliers=(1,), middle_attention=False))
    x = torch.zeros(1, 1, 8, 8, requires_grad=True)
    output = network(x, log_snr[:1], y[:1])
    output.sum().backward()
    assert len(output[0, 0, 2:4, 2:4].flatten().unique()) == len(x.grad[0, 0, 2:4, 2:4].flatten().unique()) == 4
    assert (x.grad != 0).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"image_size": 7}, r"images of 7x7 \(height x width\) can't be halved.*multiple of 2"),
        ({"image_size": 28, "multipliers": (1, 2, 2, 2)}, "images of 28x28.*4 levels need a multiple of 8"),
        (
            {"image_size": 10, "patch_size": 2},
            "images of 10x10.*patch_size 2.* 2 levels need a multiple of 4",
        ),
        (
            {"image_size": [30, 22], "multipliers": (1, 2, 2)},
            r"images of 30x22.*multiple of 4: take image_size=\[32,24\], or patch_size=1 multipliers=\[1,2\]$",
        ),
        ({"image_size": [9, 13]}, r"images of 9x13.*take image_size=\[10,14\], or patch_size=1 multipliers=\[1\]$"),
        ({"image_size": [8, 8, 8]}, "image_size must be one number, or height and width, got"),
        ({"image_size": [8, 0]}, "image_size must be at least 1, got"),
        ({"width": 4}, "4 channels can't be divided into groups: take a multiple of 8"),
        ({"attention_levels": (2,)}, r"attention_levels must be among 0 to 1, got \[2\]"),
        ({"width": 40, "head_channels": 12}, "80 channels can't be divided into 6 attention heads"),
        ({"combine": "mean"}, "combine must be one of"),
    ],
)
def test_impossible_sizes_raise_and_name_the_sizes(settings, words):
    with pytest.raises(ValueError, match=words):
        small(**settings)
