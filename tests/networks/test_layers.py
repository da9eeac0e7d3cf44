import math

import pytest
import torch
from torch import nn

from guided_diffusion.networks.layers import (
    Attention,
    Conditioning,
    LogSNREmbedding,
    ResidualBlock,
    group_norm,
    zero_init,
)


def test_zero_init_puts_every_parameter_at_zero():
    assert all((parameter == 0).all() for parameter in zero_init(nn.Linear(3, 4)).parameters())


@pytest.mark.parametrize(("channels", "groups"), [(8, 1), (64, 8), (96, 12), (256, 32), (512, 32)])
def test_groups_have_at_least_eight_channels(channels, groups):
    assert group_norm(channels).num_groups == groups


@pytest.mark.parametrize("channels", [4, 44, 264])
def test_channels_that_make_no_groups_raise(channels):
    with pytest.raises(ValueError, match=f"{channels} channels can't be divided into groups.*multiple of 8"):
        group_norm(channels)


def test_the_embedding_has_the_sines_and_cosines_of_the_noise_angle():
    log_snr = torch.tensor([-15.0, 0.0, 3.0])
    embedding = LogSNREmbedding(8)(log_snr)
    angle = torch.atan(torch.exp(-log_snr / 2)) / (math.pi / 2) * 1000
    torch.testing.assert_close(embedding[:, 0], angle.cos(), rtol=0, atol=1e-4)
    torch.testing.assert_close(embedding[:, 4], angle.sin(), rtol=0, atol=1e-4)
    torch.testing.assert_close(embedding[:, 7], (angle * 1e4**-0.75).sin(), rtol=0, atol=1e-4)


def test_the_embedding_of_infinite_log_snr_is_finite():
    embedding = LogSNREmbedding(8)(torch.tensor([math.inf, -math.inf]))
    assert embedding.isfinite().all()
    torch.testing.assert_close(embedding[0], torch.tensor([1.0] * 4 + [0.0] * 4))


@pytest.mark.parametrize("combine", ["add", "multiply", "concat"])
def test_every_label_and_no_label_have_a_condition_of_their_own(combine):
    condition = Conditioning(3, 16, combine)
    rows = condition(torch.zeros(4), torch.tensor([0, 1, 2, -1]))
    assert rows.shape == (4, 16)
    assert (torch.pdist(rows) > 1e-3).all()
    assert torch.equal(condition(torch.zeros(4), None), condition(torch.zeros(4), torch.full((4,), -1)))


def test_the_label_table_has_one_row_more_than_there_are_classes():
    condition = Conditioning(3, 16)
    condition(torch.zeros(2), torch.tensor([0, -1])).sum().backward()
    assert (condition.label.weight.grad != 0).any(1).tolist() == [True, False, False, True]


@pytest.mark.parametrize("label", [3, 4])
def test_a_label_that_is_not_a_class_raises(label):
    with pytest.raises(IndexError):
        Conditioning(3, 16)(torch.zeros(1), torch.tensor([label]))


def test_unknown_combination_raises():
    with pytest.raises(ValueError, match="combine must be one of add, multiply, concat, got 'mean'"):
        Conditioning(3, 16, "mean")


def test_residual_branches_add_zero_at_initialisation():
    x, condition = torch.randn(2, 16, 4, 4), torch.randn(2, 8)
    assert torch.equal(ResidualBlock(16, 16, 8, 0.0)(x, condition), x)
    assert torch.equal(Attention(16, 8)(x), x)


def test_a_residual_block_is_scaled_and_shifted_by_the_condition(perturbed):
    x, condition = torch.randn(1, 8, 4, 4).expand(2, 8, 4, 4), torch.randn(2, 8)
    only_shift, only_scale = perturbed(ResidualBlock(8, 8, 8, 0.0)), perturbed(ResidualBlock(8, 8, 8, 0.0))
    zero_init(only_shift.norm_2)
    nn.init.zeros_(only_scale.scale_shift.weight[8:])
    for block in (only_shift, only_scale):
        first, second = block(x, condition)
        assert (first - second).abs().max() > 1e-4


def test_attention_sees_every_pixel_and_no_other_sample(perturbed):
    attention = perturbed(Attention(16, 8))
    x = torch.randn(2, 16, 4, 4)
    changed = x.clone()
    changed[1, :, 0, 0] += 1
    difference = (attention(changed) - attention(x)).abs().amax(1)
    assert (difference[0] == 0).all()
    assert (difference[1] > 0).all()


def test_attention_does_not_depend_on_the_order_of_the_pixels(perturbed):
    attention = perturbed(Attention(16, 8))
    x = torch.randn(2, 16, 4, 4)
    torch.testing.assert_close(attention(x.flip(2, 3)), attention(x).flip(2, 3), rtol=1e-4, atol=1e-5)


def test_heads_that_do_not_divide_the_channels_raise():
    with pytest.raises(ValueError, match="40 channels can't be divided into 3 attention heads"):
        Attention(40, 12)
