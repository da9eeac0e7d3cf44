import pytest
import torch
import torch.nn.functional as F
from torch import nn

from guided_diffusion.denoisers import Denoiser
from guided_diffusion.evaluation.cost import evaluations_per_sample
from guided_diffusion.guidance import PerturbedAttention
from guided_diffusion.networks import MLP, FastUNet, UNet
from guided_diffusion.networks.fast_unet import RelativeAttention, normalise
from guided_diffusion.networks.layers import Attention
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler
from guided_diffusion.schedules import Cosine

SCHEDULE = Cosine()


class OneLayer(nn.Module):
    """A network of one layer of attention."""

    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, x_t, log_snr, y):
        return self.attention(x_t)


def inputs(channels, *sides):
    return torch.randn(3, channels, *sides), torch.tensor([0.2, 0.5, 0.9]), torch.tensor([0, 2, -1])


def test_attention_by_hand(perturbed):
    """V, the last third of the channels, goes through the output layer and is added to the input."""
    layer = perturbed(Attention(16, 8))
    x_t, t, y = inputs(16, 4, 6)
    denoiser = Denoiser(OneLayer(layer), SCHEDULE)
    weight, bias = layer.qkv.weight[32:], layer.qkv.bias[32:]
    by_hand = x_t + layer.output(F.conv2d(layer.norm(x_t), weight, bias))
    torch.testing.assert_close(denoiser.with_identity_attention().output(x_t, t, y), by_hand, rtol=0, atol=1e-6)
    guided = PerturbedAttention(3.0)(denoiser, SCHEDULE)(x_t, t, y)
    m, (alpha, sigma) = layer(x_t), (value[:, None, None, None] for value in SCHEDULE(t))
    torch.testing.assert_close(alpha * guided.eps - sigma * guided.x0, by_hand + 3 * (m - by_hand), rtol=0, atol=1e-5)
    assert (m - by_hand).abs().max() > 1e-3


def test_relative_attention_by_hand(perturbed):
    layer = perturbed(RelativeAttention(16, (4, 6), 8))
    x_t, t, y = inputs(16, 4, 6)
    tokens = normalise(x_t).flatten(2).transpose(1, 2)
    value = layer.output(F.linear(tokens, layer.qkv.weight[32:], layer.qkv.bias[32:]))
    weak = Denoiser(OneLayer(layer), SCHEDULE).with_identity_attention().output(x_t, t, y)
    torch.testing.assert_close(weak, x_t + value.transpose(1, 2).reshape(x_t.shape), rtol=0, atol=1e-6)


def networks():
    return [
        UNet(3, (8, 12), 3, width=8, multipliers=(1, 2), blocks=1, attention_levels=(0,)),
        FastUNet(3, (8, 12), 3, width=8),
    ]


@pytest.mark.parametrize("number", [0, 1])
def test_the_weak_network_has_the_same_weights_and_leaves_the_network_as_it_is(number, perturbed):
    denoiser = Denoiser(perturbed(networks()[number]), SCHEDULE).eval()
    x_t, t, y = inputs(3, 8, 12)
    before, weak = denoiser(x_t, t, y), denoiser.with_identity_attention()
    assert not torch.equal(weak(x_t, t, y).x0, before.x0)
    assert torch.equal(denoiser(x_t, t, y).x0, before.x0)
    assert all(one is other for one, other in zip(weak.parameters(), denoiser.parameters(), strict=True))
    assert not weak.training
    for attention in (module for module in denoiser.modules() if hasattr(module, "qkv")):
        nn.init.zeros_(attention.output.weight)
        nn.init.zeros_(attention.output.bias)
    assert torch.equal(weak(x_t, t, y).x0, denoiser(x_t, t, y).x0)  # without attention there is no difference


@pytest.mark.parametrize("number", [0, 1])
def test_at_scale_1_it_is_the_model_itself_and_it_samples(number, perturbed):
    denoiser = Denoiser(perturbed(networks()[number]).eval(), SCHEDULE)
    plain, same, guided = (
        Recipe(guidance, sampler=Sampler(steps=2)).sample(denoiser, torch.tensor([0, 1]), (3, 8, 12))
        for guidance in (PerturbedAttention().unguided(), PerturbedAttention(1.0), PerturbedAttention(4.0))
    )
    assert torch.equal(plain, same)
    assert not torch.equal(plain, guided)
    assert guided.isfinite().all()


def test_it_takes_two_evaluations():
    recipe = Recipe(PerturbedAttention(2.0), sampler=Sampler(steps=5))
    assert evaluations_per_sample(recipe, SCHEDULE) == 10


@pytest.mark.parametrize(
    ("denoise", "message"),
    [
        (Denoiser(UNet(1, 8, 3, width=8, multipliers=(1,), middle_attention=False), SCHEDULE), "UNet has none"),
        (Denoiser(FastUNet(1, 8, 3, width=8, head_channels=0), SCHEDULE), "FastUNet has none"),
        (Denoiser(MLP(2, 3), SCHEDULE), "MLP has none"),
        (lambda x_t, t, y: None, "has attention, and <lambda> does not"),
    ],
)
def test_a_network_without_attention_raises(denoise, message):
    with pytest.raises(ValueError, match=f"perturbed-attention guidance needs.*{message}"):
        PerturbedAttention(2.0)(denoise, SCHEDULE)(*inputs(1, 8, 8))
