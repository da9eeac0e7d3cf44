import pytest
import torch

from guided_diffusion.denoisers import Denoiser
from guided_diffusion.evaluation.cost import evaluations_per_sample
from guided_diffusion.guidance import ClassifierFree, ConditionAnnealed
from guided_diffusion.networks import MLP, FastUNet, UNet
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import SampleNoise, Sampler, ddim, heun, uniform_times
from guided_diffusion.schedules import Cosine

F64 = torch.float64
SCHEDULE = Cosine()
OFF = {"tau1": 1.0, "tau2": 1.0}


def test_the_share_of_the_label_by_hand():
    t = torch.tensor([0.0, 0.6, 0.675, 0.75, 0.9, 1.0], dtype=F64)
    expected = torch.tensor([1, 1, 0.75, 0.5, 0, 0], dtype=F64)
    torch.testing.assert_close(ConditionAnnealed().share(t), expected, rtol=0, atol=1e-12)
    sharp = ConditionAnnealed(tau1=0.7, tau2=0.7).share(t)
    assert sharp.tolist() == [1, 1, 1, 0, 0, 0]
    assert ConditionAnnealed(**OFF).share(t).tolist() == [1] * 6


def test_the_embedding_by_hand():
    e, n = torch.tensor([[1.0, 3.0]], dtype=F64), torch.tensor([[2.0, -1.0]], dtype=F64)
    g = torch.tensor([[0.64]], dtype=F64)
    noisy = 0.8 * e + 0.5 * 0.6 * n
    assert torch.equal(ConditionAnnealed(noise_scale=0.5, psi=0.0).annealed(e, g, n), noisy)
    rescaled = ConditionAnnealed(noise_scale=0.5, psi=1.0).annealed(e, g, n)
    torch.testing.assert_close(rescaled, e, rtol=0, atol=1e-12)  # in two dimensions mean and std leave only the order
    half = ConditionAnnealed(noise_scale=0.5, psi=0.5).annealed(e, g, n)
    torch.testing.assert_close(half, (e + noisy) / 2, rtol=0, atol=1e-12)


def test_a_rescaled_embedding_keeps_mean_and_standard_deviation_of_each_sample():
    e, g = torch.randn(4, 2, 16, dtype=F64), torch.tensor([0.0, 0.3, 0.9, 1.0], dtype=F64)[:, None, None]
    found = ConditionAnnealed().annealed(e, g, torch.randn_like(e))
    for one, other in zip(torch.std_mean(found, dim=-1), torch.std_mean(e, dim=-1), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert torch.equal(found[3], e[3])
    assert not torch.isclose(found[:3], e[:3]).any()


@pytest.mark.parametrize("psi", [0.0, 1.0])
def test_an_embedding_without_variance_stays_finite(psi):
    method = ConditionAnnealed(noise_scale=0.0, psi=psi)
    for e in (torch.zeros(1, 4), torch.ones(1, 4)):
        assert method.annealed(e, torch.zeros(1, 1), torch.randn(1, 4)).isfinite().all()


def networks():
    return {
        "unet": (UNet(1, 8, 3, width=8, multipliers=(1, 2), blocks=1), (1, 8, 8)),
        "fast": (FastUNet(3, (8, 12), 3, width=8), (3, 8, 12)),
        "mlp": (MLP(2, 3, width=16, embedding=8, combine="concat"), (2,)),
    }


@pytest.fixture(params=["unet", "fast", "mlp"])
def model(request, perturbed):
    network, shape = networks()[request.param]
    return Denoiser(perturbed(network).eval(), SCHEDULE), shape


def sampled(guidance, model, method=ddim, indices=range(4), labels=(0, 1, 2, -1), steps=3):
    denoiser, shape = model
    draw, y = SampleNoise(0, indices), torch.tensor(labels)
    denoise = guidance(denoiser, SCHEDULE)
    with torch.no_grad():
        *_, last = method(denoise, SCHEDULE, draw((len(y), *shape)), uniform_times(SCHEDULE, steps), y, draw)
    return last.x


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0, torch.tensor([0.0, 1.0, 2.0, 3.0])])
def test_without_noise_it_is_classifier_free_guidance(scale, model):
    neutral = ConditionAnnealed(scale, **OFF)
    assert torch.equal(sampled(neutral, model), sampled(ClassifierFree(scale), model))
    assert torch.equal(sampled(ConditionAnnealed(scale).unguided(), model), sampled(ClassifierFree(1.0), model))


def test_embeddings_may_stand_in_for_labels(model):
    denoiser, shape = model
    x_t, t, y = torch.randn(3, *shape), torch.full((3,), 0.4), torch.tensor([0, 2, -1])
    assert torch.equal(denoiser(x_t, t, denoiser.embed_labels(y)).x0, denoiser(x_t, t, y).x0)
    assert denoiser.num_classes == 3


@pytest.mark.parametrize("method", [ddim, heun])
def test_samples_depend_on_their_own_noise_alone(method, model):
    whole = sampled(ConditionAnnealed(3.0), model, method)
    assert torch.equal(sampled(ConditionAnnealed(3.0), model, method), whole)
    part = sampled(ConditionAnnealed(3.0), model, method, [2, 0], (2, 0))
    torch.testing.assert_close(part, whole[[2, 0]], rtol=0, atol=1e-4)
    assert not torch.isclose(whole[:3], sampled(ClassifierFree(3.0), model, method)[:3]).all()
    assert whole.isfinite().all()


@pytest.mark.parametrize("labels", [None, torch.full((3,), -1)], ids=["None", "-1"])
def test_without_a_label_the_scale_changes_nothing(labels, model):
    denoiser, shape = model

    def sample(scale):
        draw = SampleNoise(0, range(3))
        guided = ConditionAnnealed(scale)(denoiser, SCHEDULE)
        with torch.no_grad():
            *_, end = ddim(guided, SCHEDULE, draw((3, *shape)), uniform_times(SCHEDULE, 4), labels, draw)
        return end.x

    torch.testing.assert_close(sample(6.0), sample(1.0), rtol=0, atol=1e-4)


def test_it_is_counted_as_classifier_free_guidance():
    for scale, count in ((0.0, 5), (1.0, 5), (2.0, 10)):
        assert evaluations_per_sample(Recipe(ConditionAnnealed(scale), sampler=Sampler(steps=5)), SCHEDULE) == count


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tau1": 0.9, "tau2": 0.6}, "0 <= tau1 <= tau2 <= 1 must hold, got 0.9 and 0.6"),
        ({"noise_scale": -1.0}, "noise_scale must be at least 0"),
        ({"psi": 1.5}, r"psi must be in \[0, 1\], got 1.5"),
    ],
)
def test_settings_out_of_range_raise(settings, message):
    with pytest.raises(ValueError, match=message):
        ConditionAnnealed(**settings)


def test_a_network_without_label_embeddings_raises(exact):
    with pytest.raises(ValueError, match="condition-annealed sampling needs a network that has label embeddings, and"):
        ConditionAnnealed(2.0)(exact, SCHEDULE)(torch.zeros(1, 2), torch.ones(1), torch.tensor([0]))
