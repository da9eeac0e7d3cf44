import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader

from guided_diffusion.classifiers import Classifier
from guided_diffusion.denoisers import UNLABELLED, Denoiser
from guided_diffusion.guidance import ClassifierFree, ClassifierGuidance, Combined
from guided_diffusion.networks import NoisyClassifier, UNet
from guided_diffusion.oracles.gaussian_mixture import GaussianMixture
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler, ddim, ddpm, dpmpp_2m, heun, sde_dpmpp_2m, uniform_times
from guided_diffusion.schedules import Cosine, perturb

F64 = torch.float64
per_sample = torch.tensor([0.0, 0.5, 1.0, 2.0, 5.0, -1.0, 1.0, 0.0, 3.0], dtype=F64)
every_scale = pytest.mark.parametrize("scale", [0.0, 0.3, 1.0, 2.0, 5.0, per_sample], ids=str)
every_base = pytest.mark.parametrize("base", ["unconditional", "conditional"])


def never(x_t, t):
    raise AssertionError("the classifier was asked")


def guided_by(mixture, scale, base, temperature=1.0):
    return ClassifierGuidance(mixture.log_posterior, scale, base, temperature)(mixture, mixture.schedule)


@every_scale
@every_base
def test_both_families_are_the_same_function_of_the_scale(mixture, noisy, scale, base):
    """With exact posteriors: classifier-free = classifier on either base."""
    expected = ClassifierFree(scale)(mixture, mixture.schedule)(*noisy)
    guided = guided_by(mixture, scale, base)(*noisy)
    torch.testing.assert_close(guided.eps, expected.eps, rtol=0, atol=1e-12)
    sizes = 1 / mixture.schedule(noisy[1])[0][:, None]  # x0 is the noise over alpha, which is 5e-4 at t = 1
    torch.testing.assert_close(guided.x0 / sizes, expected.x0 / sizes, rtol=0, atol=1e-12)


@every_scale
@every_base
def test_it_shifts_the_noise_as_ddim_does_in_the_paper(mixture, noisy, scale, base):
    """Dhariwal & Nichol 2021, eq. 14: ``eps - sqrt(1 - abar) grad log p(y|x_t)``, the gradient times k, to rounding."""
    x_t, t, y = noisy
    x = x_t.clone().requires_grad_()
    (grad,) = torch.autograd.grad((mixture.log_prob(x, t, y) - mixture.log_prob(x, t)).sum(), x)
    abar = mixture.schedule(t)[0][:, None] ** 2
    s = torch.as_tensor(scale, dtype=F64).expand(9)[:, None] - int(base == "conditional")
    expected = mixture(x_t, t, y if base == "conditional" else None).eps - (1 - abar).sqrt() * s * grad
    torch.testing.assert_close(guided_by(mixture, scale, base)(*noisy).eps, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 3.0])
@every_base
def test_an_ancestral_step_moves_the_mean_as_the_seed_equation_does(mixture, scale, base):
    """Dhariwal & Nichol 2021, eq. 10 and algorithm 1: ``mu + s Sigma grad log p(y|x_t)``, to first order in the step.

    Ours moves it by more by the factor ``alpha' s^2 / (alpha Sigma)`` with Sigma the small variance: 1 + O(step).
    """
    schedule, x_t, y = mixture.schedule, torch.randn(3, 2, dtype=F64), torch.arange(3)
    errors, moves = [], []
    for step in (0.02, 0.01, 0.005):
        t, t_next = times = torch.tensor([0.5, 0.5 - step], dtype=F64)

        def mean(denoise, times=times):
            (one,) = ddpm(denoise, schedule, x_t, times, y, draw=lambda shape: torch.zeros(shape, dtype=F64))
            return one.x

        plain = mixture if base == "conditional" else lambda x, t, y: mixture(x, t, None)
        (alpha, sigma), (alpha_next, sigma_next) = schedule(t), schedule(t_next)
        variance = (sigma**2 - (alpha / alpha_next) ** 2 * sigma_next**2) * (sigma_next / sigma) ** 2
        x, at = x_t.clone().requires_grad_(), t.expand(3)
        (grad,) = torch.autograd.grad((mixture.log_prob(x, at, y) - mixture.log_prob(x, at)).sum(), x)
        s = scale - (base == "conditional")
        seed_equation = mean(plain) + s * variance * grad
        errors.append((mean(guided_by(mixture, scale, base)) - seed_equation).abs().max())
        moves.append((s * variance * grad).abs().max())
    if scale == 1 and base == "conditional":
        assert errors == [0, 0, 0]
        return
    assert moves[0] / moves[1] == pytest.approx(2, rel=0.1)  # the shift itself is of first order
    for larger, smaller in ((0, 1), (1, 2)):  # and what it differs by of second
        assert errors[larger] / errors[smaller] == pytest.approx(4, rel=0.15)


@every_scale
@every_base
def test_the_guided_image_and_noise_add_up_to_the_input(mixture, noisy, scale, base):
    guided = guided_by(mixture, scale, base)(*noisy)
    torch.testing.assert_close(perturb(*guided, noisy[1], mixture.schedule), noisy[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("w", [-1.0, 0.5, 2.0, 4.0])
@every_base
def test_on_gaussians_it_has_its_closed_form(schedule, w, base):
    """Means m and -m, covariance c^2 I: ``grad log p(0|x) = (1 - tanh(alpha m x / s^2)) alpha m / s^2``."""
    mean, c = torch.tensor([0.6, -0.8], dtype=F64), 0.5
    oracle = GaussianMixture(schedule, torch.stack([mean, -mean]), c**2 * torch.eye(2, dtype=F64).expand(2, 2, 2))
    x_t, t = torch.randn(9, 2, dtype=F64), torch.linspace(0.05, 1, 9, dtype=F64)
    alpha, sigma = (value[:, None] for value in schedule(t))
    s_squared = alpha**2 * c**2 + sigma**2
    grad = (1 - torch.tanh(alpha * (x_t @ mean)[:, None] / s_squared)) * alpha * mean / s_squared
    y = torch.zeros(9, dtype=torch.long)
    k, plain = (w, oracle(x_t, t, None)) if base == "unconditional" else (w - 1, oracle(x_t, t, y))
    guided = guided_by(oracle, w, base)(x_t, t, y)
    torch.testing.assert_close(guided.eps, plain.eps - k * sigma * grad, rtol=0, atol=1e-12)
    towards = (guided.x0 - plain.x0) @ mean
    assert (towards.sign() == math.copysign(1, k)).all()


@pytest.mark.one_schedule
@pytest.mark.parametrize("method", [ddim, ddpm, partial(ddim, eta=0.5), heun, dpmpp_2m, sde_dpmpp_2m])
@every_base
def test_with_every_sampler_both_families_give_the_same_samples(mixture, method, base):
    noise, y = torch.randn(30, 2, dtype=F64), torch.arange(30) % 3
    samples = []
    for denoise in (ClassifierFree(2.0)(mixture, mixture.schedule), guided_by(mixture, 2.0, base)):
        generator = torch.Generator().manual_seed(1)
        draw = partial(torch.randn, generator=generator, dtype=F64)
        *_, last = method(denoise, mixture.schedule, noise, uniform_times(mixture.schedule, 20), y, draw)
        samples.append(last.x)
    torch.testing.assert_close(*samples, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("base", "scale", "labels"), [("unconditional", 0.0, None), ("conditional", 1.0, [0, 1, 2])])
@pytest.mark.parametrize("as_scale", [float, lambda w: torch.full((3,), float(w))], ids=["number", "per sample"])
def test_at_the_scale_of_the_base_it_equals_it_and_calls_no_classifier(base, scale, labels, as_scale, network, counted):
    x_t, t, y = torch.randn(3, 1, 8, 8), torch.linspace(0.1, 1, 3), torch.arange(3)
    denoiser = Denoiser(network, Cosine())
    denoise = counted(denoiser)
    guided = ClassifierGuidance(never, as_scale(scale), base)(denoise, Cosine())(x_t, t, y)
    plain = denoiser(x_t, t, y if labels else None)
    assert torch.equal(guided.x0, plain.x0)
    assert torch.equal(guided.eps, plain.eps)
    assert denoise.calls == [labels]


@every_base
def test_the_classifier_is_called_only_for_labelled_samples_whose_scale_is_not_that_of_the_base(mixture, base):
    asked = []

    def classify(x_t, t):
        asked.append(len(x_t))
        return mixture.log_posterior(x_t, t)

    y, scale = torch.tensor([0, 1, UNLABELLED, 2]), torch.tensor([0.0, 1.0, 3.0, 3.0])
    x_t, t = torch.randn(4, 2, dtype=F64), torch.full((4,), 0.5, dtype=F64)
    guided = ClassifierGuidance(classify, scale, base)(mixture, mixture.schedule)(x_t, t, y)
    assert asked == [2]
    torch.testing.assert_close(guided.x0[2], mixture(x_t, t, None).x0[2], rtol=0, atol=1e-12)


@every_base
def test_without_labels_it_is_the_unconditional_model(mixture, noisy, base):
    x_t, t, _ = noisy
    guided = ClassifierGuidance(never, 3.0, base)(mixture, mixture.schedule)(x_t, t, None)
    assert torch.equal(guided.x0, mixture(x_t, t, None).x0)


@every_base
def test_a_temperature_divides_the_logits_of_the_classifier(mixture, noisy, base):
    x_t, t, y = noisy
    sharp = GaussianMixture.log_posterior
    surer = ClassifierGuidance(lambda x, t: sharp(mixture, x, t) / 0.5, 2.0, base)(mixture, mixture.schedule)
    guided = guided_by(mixture, 2.0, base, temperature=0.5)(x_t, t, y)
    torch.testing.assert_close(guided.eps, surer(x_t, t, y).eps, rtol=0, atol=1e-12)
    assert not torch.allclose(guided.eps, guided_by(mixture, 2.0, base)(x_t, t, y).eps)


def test_unguided_is_the_base(mixture, noisy):
    x_t, t, y = noisy
    for base, labels in (("unconditional", None), ("conditional", y)):
        unguided = ClassifierGuidance(never, 3.0, base).unguided()(mixture, mixture.schedule)
        assert torch.equal(unguided(x_t, t, y).x0, mixture(x_t, t, labels).x0)
    for guidance in (ClassifierFree(3.0), Combined(never, 3.0, 2.0)):
        plain = guidance.unguided()(mixture, mixture.schedule)(x_t, t, y)
        assert torch.equal(plain.x0, mixture(x_t, t, y).x0)


# Both families together


@every_scale
def test_combined_scales_add_up(mixture, noisy, scale):
    """With exact posteriors w and w' make the exponent w + w' - 1."""
    combined = Combined(mixture.log_posterior, scale, 2.5)(mixture, mixture.schedule)(*noisy)
    expected = ClassifierFree(scale + 1.5)(mixture, mixture.schedule)(*noisy)
    torch.testing.assert_close(combined.eps, expected.eps, rtol=0, atol=1e-12)


def test_each_scale_of_combined_is_neutral_at_one(mixture, noisy):
    free, by_classifier = Combined(never, 3.0, 1.0), Combined(mixture.log_posterior, 1.0, 3.0)
    for guidance, alone in (
        (free, ClassifierFree(3.0)),
        (by_classifier, ClassifierGuidance(mixture.log_posterior, 3.0, "conditional")),
    ):
        both = [one(mixture, mixture.schedule)(*noisy) for one in (guidance, alone)]
        assert torch.equal(both[0].x0, both[1].x0)


# What is refused


@pytest.mark.parametrize("scale", [math.nan, math.inf, torch.ones(2, 2)], ids=str)
@pytest.mark.parametrize("guidance", [ClassifierGuidance, Combined])
def test_an_impossible_scale_raises(guidance, scale):
    with pytest.raises(ValueError, match="scale must"):
        guidance(never, scale)


def test_another_base_raises():
    with pytest.raises(ValueError, match="base must be unconditional or conditional, got 'none'"):
        ClassifierGuidance(never, 1.0, "none")


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("guidance", [ClassifierGuidance, Combined])
def test_a_temperature_that_is_not_positive_raises(guidance, temperature):
    with pytest.raises(ValueError, match=f"temperature must be positive, got {temperature}"):
        guidance(never, temperature=temperature)


def test_scales_for_another_number_of_samples_raise(mixture):
    denoise = guided_by(mixture, torch.tensor([1.0, 2.0]), "unconditional")
    with pytest.raises(ValueError, match="scale has 2 values for 3 samples"):
        denoise(torch.zeros(3, 2), torch.full((3,), 0.5), torch.zeros(3, dtype=torch.long))


def test_without_a_classifier_it_can_not_be_used(mixture):
    with pytest.raises(ValueError, match="needs a classifier: add classifier=PATH"):
        ClassifierGuidance()(mixture, mixture.schedule)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("loop", ["validate", "test", "predict"])
def test_it_guides_in_every_loop_of_a_trainer(loop, channels, perturbed):
    """Validation, test and prediction run in inference mode, where nothing has a gradient."""
    denoiser = Denoiser(perturbed(UNet(channels, 8, 3, width=8, multipliers=(1, 2), blocks=1)), Cosine())
    network = perturbed(NoisyClassifier(channels, 8, 3, width=8, multipliers=(1, 2)))
    recipe = Recipe(ClassifierGuidance(Classifier(network, Cosine()), 3.0), sampler=Sampler(steps=2))
    labels, shape, sampled = torch.arange(3), (channels, 8, 8), []

    class Sampling(LightningModule):
        def validation_step(self, batch, batch_idx):
            assert torch.is_inference_mode_enabled()
            sampled.append(recipe.sample(denoiser, labels, shape))

        test_step = predict_step = validation_step

    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    getattr(trainer, loop)(Sampling(), DataLoader([0]), **({} if loop == "predict" else {"verbose": False}))
    torch.testing.assert_close(sampled[0], recipe.sample(denoiser, labels, shape), rtol=0, atol=1e-5)
    plain = replace(recipe, guidance=recipe.guidance.unguided()).sample(denoiser, labels, shape)
    assert not torch.allclose(sampled[0], plain, atol=1e-3)
