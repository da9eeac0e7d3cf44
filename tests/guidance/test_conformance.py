"""What holds for every option in ``conf/guidance``. The options are found by listing: a new one needs no line here."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra.utils import get_object
from omegaconf import OmegaConf

from guided_diffusion.classifiers import Classifier
from guided_diffusion.cli.config import CONFIG_PATH
from guided_diffusion.denoisers import Denoiser
from guided_diffusion.evaluation.cost import evaluations_per_sample
from guided_diffusion.guidance import ClassifierFree, NoThreshold
from guided_diffusion.networks import MLP, NoisyClassifier, NoisyMLPClassifier, UNet
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import SampleNoise, Sampler, Walk, begin, ddim, ddpm, heun, uniform_times
from guided_diffusion.schedules import Cosine, expand_as
from guided_diffusion.utils.instantiate import build

SCHEDULE, STEPS, SCALE, CLASSES = Cosine(), 3, 2.5, 3
LABELS = torch.tensor([0, 1, 2, 1])

SETTINGS = {"swg": {"window": 4}, "composition": {"classes": [2], "scales": [-0.5]}}
"""Settings for options whose defaults are for large images, or leave samples as they are."""
AT_MOST = ("adaptive",)
"""The options whose evaluations depend on the samples, and whose declared number is the largest."""

NODES = {path.stem: OmegaConf.load(path) for path in sorted(Path(CONFIG_PATH, "guidance").glob("*.yaml"))}
CLASSES_OF = {name: get_object(node._target_) for name, node in NODES.items()}
every_option = pytest.mark.parametrize("name", NODES)


def denoiser_of(network):
    """Return a denoiser with random weights in float64, the same for the same network."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return Denoiser(network.double(), SCHEDULE).eval().requires_grad_(False)


def small(shape):
    """Return two denoisers and a classifier of samples of this shape."""
    if len(shape) == 1:
        networks = [MLP(*shape, CLASSES, width=8) for _ in range(2)]
        classifier = NoisyMLPClassifier(*shape, CLASSES, width=8)
    else:
        sizes = {"width": 8, "multipliers": (1, 2), "blocks": 1}
        networks = [UNet(shape[0], shape[1:], CLASSES, **sizes) for _ in range(2)]
        classifier = NoisyClassifier(shape[0], shape[1:], CLASSES, width=8, multipliers=(1, 2))
    torch.manual_seed(1)
    for parameter in classifier.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model, weak = (denoiser_of(network) for network in networks)
    for parameter in weak.parameters():
        parameter *= 0.9
    return model, weak, Classifier(classifier.double(), SCHEDULE).requires_grad_(False)


@pytest.fixture(scope="module")
def models():
    return small((1, 8, 8))


def method(name, models, scale=SCALE, **settings):
    """Return an option's guidance with the models that it needs."""
    node = OmegaConf.to_container(NODES[name]) | SETTINGS.get(name, {}) | {"scale": 1.0} | settings
    _, weak, classifier = models
    if "classifier" in node:
        node["classifier"] = None
    if "weak" in node:
        node["weak"] = None
    guidance = build(node)
    if guidance.needs_classifier:
        guidance = guidance.with_classifier(classifier)
    if "weak" in node:
        guidance = guidance.with_weak(weak)
    return replace(guidance, scale=scale)


def sampled(denoise, shape=(1, 8, 8), rows=slice(None), sampler=heun):
    """Return samples; sample i has the label i and the noise i whatever the others are."""
    indices = torch.arange(len(LABELS))[rows].tolist()
    draw = SampleNoise(0, indices)
    noise = draw((len(indices), *shape)).double()
    *_, last = sampler(denoise, SCHEDULE, noise, uniform_times(SCHEDULE, STEPS), LABELS[rows], draw)
    return last.x


@pytest.mark.parametrize("name", [name for name, one in CLASSES_OF.items() if one.as_classifier_free is not None])
@pytest.mark.parametrize("sampler", [ddim, heun])
def test_with_neutral_settings_it_is_classifier_free_guidance_bit_for_bit(name, sampler, models):
    scale = torch.tensor([2.5, 1.0, 0.7, 1.3], dtype=torch.float64)
    guidance = method(name, models, scale, **CLASSES_OF[name].as_classifier_free)
    found, expected = (sampled(one(models[0], SCHEDULE), sampler=sampler) for one in (guidance, ClassifierFree(scale)))
    assert torch.equal(found, expected)


@every_option
def test_without_guidance_it_is_the_model_with_or_without_label_bit_for_bit(name, models):
    def unconditional(x_t, t, y):
        return models[0](x_t, t, None)

    found = sampled(method(name, models).unguided()(models[0], SCHEDULE))
    assert torch.equal(found, sampled(models[0])) or torch.equal(found, sampled(unconditional))


@every_option
def test_it_guides(name, models):
    assert not torch.equal(sampled(method(name, models)(models[0], SCHEDULE)), sampled(models[0]))


@every_option
@pytest.mark.parametrize("sampler", [heun, pytest.param(ddpm, marks=pytest.mark.slow)])
def test_a_sample_depends_on_no_other(name, sampler, models):
    """In a part of the batch, in another order, with other scales beside it, and with its scale as a number."""
    scales = torch.tensor([2.5, 0.5, 1.0, 3.0], dtype=torch.float64)
    whole = sampled(method(name, models, scales)(models[0], SCHEDULE), sampler=sampler)
    rows = [3, 0]
    part = sampled(method(name, models, scales[rows])(models[0], SCHEDULE), rows=rows, sampler=sampler)
    torch.testing.assert_close(part, whole[rows], atol=1e-9, rtol=1e-9)
    others = torch.where(torch.arange(4) == 3, scales, 1.7)
    torch.testing.assert_close(
        sampled(method(name, models, others)(models[0], SCHEDULE), sampler=sampler)[3], whole[3], atol=1e-9, rtol=1e-9
    )
    alone = sampled(method(name, models, 0.5)(models[0], SCHEDULE), rows=[1], sampler=sampler)
    torch.testing.assert_close(alone, whole[[1]], atol=1e-9, rtol=1e-9)


@pytest.mark.slow
@every_option
def test_a_guided_denoiser_may_be_used_twice(name, models):
    denoise = method(name, models)(models[0], SCHEDULE)
    assert torch.equal(sampled(denoise), sampled(denoise))


@every_option
def test_further_evaluations_of_a_step_move_no_state_and_the_identity_holds(name, models):
    guidance, draw = method(name, models), SampleNoise(0, range(4))
    walk = Walk(uniform_times(SCHEDULE, STEPS), draw)
    denoise, x = begin(guidance(models[0], SCHEDULE), walk), draw((4, 1, 8, 8)).double()
    for t, t_next in walk:
        walk.t, times = t, t.expand(4)
        before = x.clone()
        first, again = denoise(x, times, LABELS), denoise(x, times, LABELS)
        assert torch.equal(x, before)
        assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
        alpha, sigma = (expand_as(value, x) for value in SCHEDULE(times))
        if guidance.keeps_identity:
            torch.testing.assert_close(alpha * first.x0 + sigma * first.eps, x, atol=1e-9, rtol=0)
        alpha, sigma = SCHEDULE(t_next)
        x = alpha * first.x0 + sigma * first.eps


@pytest.mark.slow
@every_option
def test_it_is_finite_where_conditional_and_unconditional_model_are_the_same(name, models):
    same = copy.deepcopy(models[0])
    same.backbone.condition.label.weight.zero_()
    assert sampled(method(name, models)(same, SCHEDULE)).isfinite().all()
    nothing = torch.zeros(4, 1, 8, 8, dtype=torch.float64)
    walk = Walk(uniform_times(SCHEDULE, STEPS), SampleNoise(0, range(4)))
    denoise = begin(method(name, models)(same, SCHEDULE), walk)
    for t, _ in walk:
        walk.t = t
        assert all(part.isfinite().all() for part in denoise(nothing, t.expand(4), LABELS))


@pytest.mark.slow
@every_option
def test_under_bfloat16_it_computes_in_float32(name, models):
    models = [copy.deepcopy(model).float() for model in models]
    denoise = method(name, models)(models[0], SCHEDULE)
    draw = SampleNoise(0, range(4))
    with torch.autocast("cpu", torch.bfloat16):
        *_, last = heun(denoise, SCHEDULE, draw((4, 1, 8, 8)), uniform_times(SCHEDULE, STEPS), LABELS, draw)
    assert last.x.dtype == last.x0.dtype == torch.float32
    assert last.x.isfinite().all()


@pytest.mark.slow
@every_option
def test_images_in_colour_that_are_not_square_are_guided(name):
    others = small((3, 8, 6))
    assert sampled(method(name, others)(others[0], SCHEDULE), (3, 8, 6)).isfinite().all()


@every_option
def test_points_are_guided_or_refused_with_a_reason(name):
    others, refusal, samples = small((2,)), "", torch.full((), torch.nan)
    try:
        samples = sampled(method(name, others)(others[0], SCHEDULE), (2,))
    except ValueError as error:
        refusal = str(error)
    assert samples.isfinite().all() or "image" in refusal or "attention" in refusal


@every_option
@pytest.mark.parametrize("scale", [SCALE, *(pytest.param(w, marks=pytest.mark.slow) for w in (1.0, 0.0))])
def test_the_evaluations_are_as_many_as_declared(name, scale, models):
    guidance = method(name, models, scale)
    count = []  # of pixels, because a crop is a part of an evaluation
    hooks = [
        one.register_forward_pre_hook(lambda module, arguments: count.append(arguments[0].numel()))
        for one in models[:2]
    ]
    sampled(guidance(models[0], SCHEDULE))
    for hook in hooks:
        hook.remove()
    declared = evaluations_per_sample(Recipe(guidance, NoThreshold(), Sampler(heun, STEPS)), SCHEDULE)
    counted = sum(count) / (4 * 8 * 8)
    assert counted == declared or (name in AT_MOST and counted < declared)


@pytest.mark.slow
@every_option
def test_it_is_the_same_in_every_mode_of_autograd(name, models):
    denoise = method(name, models)(models[0], SCHEDULE)
    found = []
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            found.append(sampled(denoise, sampler=ddim).clone())
    assert not found[0].requires_grad
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
