import copy

import pytest
import torch
import torch.nn.functional as F

from guided_diffusion.networks import FastUNet
from guided_diffusion.networks.fast_unet import FastBlock, RelativeAttention, normalise

log_snr, y = torch.tensor([-3.0, 0.0, 3.0]), torch.tensor([0, 2, -1])


def small(channels=1, image_size=8, **settings):
    return FastUNet(channels, image_size, 3, **{"width": 8, "patch_size": 1, "head_channels": 8} | settings)


@pytest.mark.parametrize(
    ("channels", "image_size", "settings"),
    [
        (1, 8, {}),
        (3, 8, {"patch_size": 2, "combine": "concat"}),
        (1, 28, {"patch_size": 2, "blocks": 2}),
        (3, 32, {"patch_size": 2, "multipliers": (1, 2, 3)}),
        (2, [12, 20], {"multipliers": (1, 2, 2), "head_channels": 0}),
        (1, [8, 12], {"multipliers": (1, 2), "head_channels": 4, "combine": "multiply"}),
        (1, [9, 1], {"multipliers": (1,)}),
        (1, [1, 1], {"multipliers": (2,), "dropout": 0.5}),
    ],
    ids=str,
)
def test_the_output_has_the_shape_of_the_input(channels, image_size, settings, perturbed):
    network = perturbed(small(channels, image_size, **settings))
    height, width = image_size if isinstance(image_size, list) else (image_size, image_size)
    output = network(torch.randn(3, channels, height, width), log_snr, y)
    assert output.shape == (3, channels, height, width)
    assert output.isfinite().all()
    assert output.std() > 0


def test_the_output_is_exactly_zero_at_the_start():
    assert (small(3)(torch.randn(3, 3, 8, 8), log_snr, y) == 0).all()


@torch.no_grad()
def test_samples_do_not_depend_on_their_batch(perturbed):
    network, x = perturbed(small()).double(), torch.randn(3, 1, 8, 8, dtype=torch.float64)
    together = network(x, log_snr.double(), y)
    for i in range(3):
        alone = network(x[i : i + 1], log_snr[i : i + 1].double(), y[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)


@torch.no_grad()
def test_it_depends_on_the_label_the_noise_level_and_every_pixel(perturbed):
    network, x = perturbed(small()), torch.randn(3, 1, 8, 8)
    base = network(x, log_snr, y)
    assert not torch.allclose(network(x, log_snr + 1, y), base)
    assert (network(x, log_snr, (y + 1) % 3) != base).flatten(1).any(1).all()
    assert torch.equal(network(x, log_snr, None), network(x, log_snr, torch.full((3,), -1)))
    x.requires_grad_()
    with torch.enable_grad():
        (grad,) = torch.autograd.grad(network(x, log_snr, y)[:, :, 0, 0].sum(), x)
    assert (grad != 0).all()


@torch.no_grad()
def test_the_channels_are_last_throughout_whatever_the_input(perturbed):
    network, seen = perturbed(small(3, 16, patch_size=2)), []
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda _, inputs, output: seen.extend([inputs[0], output]))
    network(torch.randn(3, 3, 16, 16), log_snr, y)
    assert all(image.is_contiguous(memory_format=torch.channels_last) for image in seen)
    last = torch.randn(3, 3, 16, 16).to(memory_format=torch.channels_last)
    torch.testing.assert_close(network(last, log_snr, y), network(last.contiguous(), log_snr, y))


def test_every_parameter_has_a_gradient(perturbed):
    network = perturbed(small(blocks=2))
    network(torch.randn(3, 1, 8, 8), log_snr, y).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_dropout_acts_in_training_alone(perturbed):
    network, x = perturbed(small(dropout=0.5)), torch.randn(3, 1, 8, 8)
    assert not torch.equal(network(x, log_snr, y), network(x, log_snr, y))
    network.eval()
    assert torch.equal(network(x, log_snr, y), network(x, log_snr, y))


@torch.no_grad()
def test_in_bfloat16_it_is_nearly_the_same(perturbed):
    network, x = perturbed(small(channels=3)), torch.randn(3, 3, 8, 8)
    exact = network(x, log_snr, y)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(x, log_snr, y)
    assert (rough - exact).square().mean() < 1e-3 * exact.square().mean()


def test_a_copy_and_loaded_weights_have_their_channels_last(perturbed):
    network = perturbed(small(3))
    copied = copy.deepcopy(network)
    copied.load_state_dict({name: value.contiguous() for name, value in network.state_dict().items()})
    weight = copied.middle[0].conv_1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


@torch.no_grad()
def test_a_block_equals_its_formula(perturbed):
    """``skip(x) + conv(SiLU(conv(SiLU((1 + scale) norm(x) + shift))))``."""
    block, x = perturbed(FastBlock(2, 4, 0.0)).double(), torch.randn(3, 2, 5, 6, dtype=torch.float64)
    modulation = torch.randn(3, 4, dtype=torch.float64)
    scale, shift = modulation[:, :2, None, None], modulation[:, 2:, None, None]
    h = block.conv_1(F.silu((1 + scale) * normalise(x) + shift))
    torch.testing.assert_close(block(x, iter([modulation])), block.skip(x) + block.conv_2(F.silu(h)))


def test_normalisation_is_over_all_values_of_an_image():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    flat = x.flatten(1)
    expected = (flat - flat.mean(1, keepdim=True)) / (flat.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(normalise(x), expected.view_as(x))


@torch.no_grad()
def test_attention_equals_torch_attention_with_the_bias_of_relative_places(perturbed):
    attention = perturbed(RelativeAttention(6, (2, 3), 3)).double()
    x = torch.randn(2, 6, 2, 3, dtype=torch.float64)
    bias = torch.empty(2, 6, 6, dtype=torch.float64)
    for i in range(6):
        for j in range(6):
            below, right = i // 3 - j // 3, i % 3 - j % 3
            bias[:, i, j] = attention.bias[:, (below + 1) * 5 + right + 2]
    tokens = x.flatten(2).transpose(1, 2)
    query, key, value = (
        part.unflatten(2, (2, 3)).transpose(1, 2)
        for part in attention.qkv(F.layer_norm(tokens, (6, 6))).chunk(3, dim=2)
    )
    attended = F.scaled_dot_product_attention(query, key, value, bias).transpose(1, 2).flatten(2)
    expected = x + attention.output(attended).transpose(1, 2).view_as(x)
    torch.testing.assert_close(attention(x), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 9}, r"images of 9x9 .* need a multiple of 2: take image_size=\[10,10\], or patch_size=1"),
        ({"head_channels": -8}, "head_channels must be at least 1"),
        ({"head_channels": 3}, "attention heads"),
        ({"dropout": 1.0}, "dropout"),
        ({"blocks": 0}, "blocks"),
        ({"combine": "sum"}, "combine"),
    ],
    ids=str,
)
def test_wrong_sizes_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings)
