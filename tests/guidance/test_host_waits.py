"""Guidance does not make the host wait for a GPU in the steps of a sampler.

The first tests run without a GPU: ``PretendGPU`` says that tensors are on a CUDA device while their values stay on the
CPU, and collects what would make the host wait, which is to read a value there or to copy to it without non_blocking.
"""

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

from guided_diffusion.classifiers import Classifier
from guided_diffusion.denoisers import Denoiser
from guided_diffusion.guidance import (
    AdamClassifier,
    Adaptive,
    AdaptiveProjected,
    AngleDomain,
    Autoguidance,
    CFGPlusPlus,
    ClassifierFree,
    ClassifierGuidance,
    Clip,
    Combined,
    Composition,
    ConditionAnnealed,
    DynamicThreshold,
    Feedback,
    FrequencyDecoupled,
    IndependentCondition,
    JointTemperature,
    LimitedInterval,
    MagnitudeAware,
    MomentumGuidance,
    NoThreshold,
    PowerLaw,
    Reconstruction,
    Rescaled,
    ScoreRescaling,
    SelfGuidance,
    TangentialDamping,
    WeightSchedule,
    ZeroStar,
)
from guided_diffusion.networks import NoisyClassifier
from guided_diffusion.samplers import ddim, dpmpp_2m, heun, uniform_times
from guided_diffusion.schedules import Cosine, LinearBeta

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
READS = {
    *(Tensor.item, Tensor.tolist, Tensor.cpu, Tensor.numpy, Tensor.nonzero, Tensor.masked_select, Tensor.unique),
    *(Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__, torch.nonzero, torch.masked_select),
    *(torch.unique, torch.equal, torch.allclose),
}
per_sample = torch.tensor([0.0, 1.0, 3.0, 3.0])


class OnGPU(Tensor):
    """A tensor that says it is on a CUDA device."""


class PretendGPU(TorchFunctionMode):
    """A mode in which the device "cuda" exists; ``waits`` holds the names of the functions that wait for it."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        values = tree_flatten((args, kwargs))[0]
        there = [value for value in values if isinstance(value, OnGPU)]
        if function == Tensor.device.__get__:
            return CUDA if there else CPU
        arrives = CUDA in [value for value in values if isinstance(value, torch.device)]
        self.note(function, args, kwargs, there, arrives)
        with torch._C.DisableTorchFunctionSubclass():
            made = function(*tree_map(on_cpu, args), **tree_map(on_cpu, kwargs))
        if function is Tensor.cpu:
            return made.as_subclass(Tensor)
        return tree_map(place, made) if there or arrives else made

    def note(self, function, args, kwargs, there, arrives):
        masks = function is Tensor.__getitem__ and any(
            isinstance(value, OnGPU) and value.dtype == torch.bool for value in tree_flatten(args[1])[0]
        )
        copies = function is Tensor.to and (there or arrives) and not isinstance(args[0], OnGPU)
        if (there and (function in READS or masks)) or (copies and not kwargs.get("non_blocking")):
            self.waits.append(function.__name__)


def on_cpu(value):
    return CPU if value == CUDA and isinstance(value, torch.device) else value


def place(value):
    return value.as_subclass(OnGPU) if type(value) is Tensor else value


class Small(nn.Module):
    """A network that depends on image, noise level and label, in a few operations."""

    num_classes = 3

    def __init__(self, rows, columns):
        super().__init__()
        self.table = nn.Parameter(torch.randn(rows, columns))

    def embed_labels(self, y):
        return self.table[y]

    def forward(self, x_t, log_snr, y):
        y = torch.full_like(log_snr, -1, dtype=torch.long) if y is None else y
        label = y if y.is_floating_point() else self.embed_labels(y)
        return (x_t.flatten(1) * label * log_snr.sigmoid()[:, None]).sin().view_as(x_t)


class SmallClassifier(nn.Module):
    """A classifier of images of four values, in two operations."""

    def __init__(self, classes):
        super().__init__()
        self.table = nn.Parameter(torch.randn(4, classes))

    def forward(self, x_t, log_snr):
        return x_t.flatten(1) @ self.table * log_snr.sigmoid()[:, None]


@pytest.fixture
def denoiser():
    return Denoiser(Small(4, 4), LinearBeta())


@pytest.fixture
def classifier():
    return Classifier(SmallClassifier(3), LinearBeta())


def methods(classifier):
    return {
        "cfg": ClassifierFree(3.0),
        "cfg per sample": ClassifierFree(per_sample),
        "interval": LimitedInterval(3.0),
        "classifier": ClassifierGuidance(classifier, 3.0),
        "classifier in an interval": ClassifierGuidance(classifier, 3.0, sigma_hi=1.0),
        "classifier per sample": ClassifierGuidance(classifier, per_sample, "conditional"),
        "cfg_classifier": Combined(classifier, 3.0, 2.0),
        "joint temperature": JointTemperature(classifier, 3.0),
        "adam classifier per sample": AdamClassifier(classifier, per_sample),
        "reconstruction": Reconstruction(classifier, per_sample),
    }


NAMES = list(methods(None))


def last_sample(method, guidance, threshold, denoiser, noise, labels, schedule):
    denoise = threshold(guidance(denoiser, schedule), schedule)
    with torch.no_grad():
        *_, last = method(denoise, schedule, noise, uniform_times(schedule, 3), labels)
    return last.x


@pytest.mark.parametrize("name", NAMES)
def test_a_step_never_waits_for_the_gpu(name, denoiser, classifier):
    check(methods(classifier)[name], ddim, DynamicThreshold(), denoiser, torch.randn(4, 1, 2, 2))


@pytest.mark.parametrize(
    "guidance",
    [
        Autoguidance(Denoiser(Small(4, 4), LinearBeta()), per_sample),
        Composition(per_sample, [1], [-1.0]),
        ConditionAnnealed(per_sample),
        IndependentCondition(per_sample),
        SelfGuidance(per_sample),
        *(
            method(per_sample)
            for method in (
                *(WeightSchedule, PowerLaw, MagnitudeAware, CFGPlusPlus, Feedback),
                *(AdaptiveProjected, ZeroStar, TangentialDamping, FrequencyDecoupled, Rescaled, AngleDomain),
                *(MomentumGuidance, ScoreRescaling),
            )
        ),
    ],
    ids=lambda guidance: type(guidance).__name__,
)
def test_no_rule_weak_model_or_noise_of_a_guidance_waits_for_the_gpu(guidance, denoiser):
    check(guidance, ddim, Clip(), denoiser, torch.randn(4, 1, 2, 2))


def test_adaptive_guidance_waits_once_between_two_steps_to_know_which_samples_to_evaluate(denoiser):
    check(Adaptive(per_sample), ddim, Clip(), denoiser, torch.randn(4, 1, 2, 2), waits=["cpu", "cpu"])


@pytest.mark.parametrize("method", [heun, dpmpp_2m])
def test_no_sampler_waits_for_the_gpu(method, denoiser):
    check(ClassifierFree(per_sample), method, Clip(), denoiser, torch.randn(4, 1, 2, 2))


def test_the_network_never_waits_for_the_gpu(network):
    check(ClassifierFree(3.0), ddim, Clip(), Denoiser(network, Cosine()), torch.randn(4, 1, 8, 8))


def check(guidance, method, threshold, denoiser, noise, waits=()):
    """Check that nothing but ``waits`` waits in three steps, and that the samples are those of the CPU."""
    settings, labels = (method, guidance, threshold, denoiser), torch.tensor([0, 1, 2, 0])
    expected = last_sample(*settings, noise, labels, denoiser.schedule)
    with PretendGPU() as gpu:
        there = last_sample(*settings, place(noise), place(labels), denoiser.schedule)
    assert gpu.waits == list(waits)
    assert isinstance(there, OnGPU)
    assert torch.equal(there.as_subclass(Tensor), expected)


@pytest.mark.parametrize("base", ["unconditional", "conditional"])
def test_on_a_gpu_samples_without_a_label_stay_as_they_are(base, denoiser, classifier):
    guidance, schedule = ClassifierGuidance(classifier, per_sample, base), denoiser.schedule
    noise, labels = torch.randn(4, 1, 2, 2), torch.tensor([0, -1, -1, 2])
    expected = last_sample(ddim, guidance, NoThreshold(), denoiser, noise, labels, schedule)
    plain = last_sample(ddim, guidance.unguided(), NoThreshold(), denoiser, noise, labels, schedule)
    with PretendGPU() as gpu:
        there = place(noise), place(labels)
        found = last_sample(ddim, guidance, NoThreshold(), denoiser, *there, schedule).as_subclass(Tensor)
    assert gpu.waits == []
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert torch.equal(found[1:3], plain[1:3])


def test_the_pretended_gpu_finds_what_waits():
    values, mask = torch.arange(3.0), torch.tensor([True, False, True])
    there, mask_there = place(values), place(mask)
    for wait in (
        lambda: there.sum().item(),
        lambda: bool(there.sum() > 1),
        lambda: there[mask_there],
        lambda: mask_there.nonzero(),
        lambda: there.cpu(),
        lambda: values.to(there),
        lambda: values.to(there.device),
    ):
        with PretendGPU() as gpu:
            wait()
        assert len(gpu.waits) == 1
    for free in (
        lambda: there * 2,
        lambda: values.to(there.device, non_blocking=True),
        lambda: there[torch.tensor([0])],
    ):
        with PretendGPU() as gpu:
            free()
        assert gpu.waits == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("method", [ddim, heun, dpmpp_2m])
@pytest.mark.parametrize("name", NAMES)
def test_a_step_never_waits_for_a_real_gpu(name, method, network, perturbed, schedule):
    classifier = perturbed(NoisyClassifier(1, 8, 3, width=8, multipliers=(1, 2))).requires_grad_(False)
    denoiser, guidance = Denoiser(network, schedule).cuda(), methods(Classifier(classifier, schedule).cuda())[name]
    noise, labels = torch.randn(4, 1, 8, 8).cuda(), torch.tensor([0, 1, 2, 0]).cuda()
    expected = last_sample(method, guidance, DynamicThreshold(), denoiser, noise, labels, schedule)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = last_sample(method, guidance, DynamicThreshold(), denoiser, noise, labels, schedule)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
