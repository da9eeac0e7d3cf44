"""The formula of guidance away from a weak model, and what its methods ask of a network."""

import pytest
import torch

from guided_diffusion.denoisers import Denoiser, Prediction
from guided_diffusion.guidance import ClassifierFree
from guided_diffusion.guidance.base import as_scale, conditional_and_unconditional
from guided_diffusion.guidance.weak import capability, extrapolate, guide_away
from guided_diffusion.schedules import Cosine

F64 = torch.float64
SCALES = torch.tensor([0, 1, 2.5, -1, 1, 0, 1.5, 0.5, 3], dtype=F64)


def unlabelled(denoise):
    return lambda x_t, t, y: denoise(x_t, t, None)


def elementwise(x_t, t, y):
    """A denoiser whose rounding does not depend on the size of the batch."""
    shift = torch.full_like(t, 0.25) if y is None else y.where(y >= 0, 0.25).to(t)
    return Prediction((x_t * 0.7 + shift[:, None]) / (1 + t[:, None]), x_t * t[:, None] - shift[:, None])


def equal(one, other):
    return all(torch.equal(first, second) for first, second in zip(one, other, strict=True))


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5, SCALES])
def test_the_weak_model_without_labels_gives_classifier_free_guidance(scale, noisy):
    guided = guide_away(elementwise, unlabelled(elementwise), *noisy, as_scale(scale))
    assert equal(guided, ClassifierFree(scale)(elementwise, Cosine())(*noisy))


def test_a_model_is_not_evaluated_for_samples_that_do_not_need_it(noisy, counted):
    model, weak = counted(elementwise), counted(unlabelled(elementwise))
    x_t, t, y = noisy
    guided = guide_away(model, weak, *noisy, SCALES)
    assert (model.calls, weak.calls) == ([y[SCALES != 0].tolist()], [y[SCALES != 1].tolist()])
    assert torch.equal(guided.x0[SCALES == 1], elementwise(x_t, t, y).x0[SCALES == 1])
    assert torch.equal(guided.x0[SCALES == 0], elementwise(x_t, t, None).x0[SCALES == 0])
    for scale, evaluated, other in ((1.0, model, weak), (0.0, weak, model)):
        evaluated.calls, other.calls = [], []
        guide_away(model, weak, *noisy, as_scale(scale))
        assert (len(evaluated.calls), len(other.calls)) == (1, 0)


def test_it_works_without_labels(noisy):
    x_t, t, _ = noisy
    guided = guide_away(elementwise, elementwise, x_t, t, None, SCALES)
    assert equal(guided, elementwise(x_t, t, None))


def test_equal_predictions_stay_as_they_are():
    prediction = Prediction(torch.randn(3, 2), torch.randn(3, 2))
    assert equal(extrapolate(prediction, prediction, as_scale(7.3)), prediction)


@pytest.mark.parametrize("scale", [torch.ones(2, dtype=F64), torch.zeros(4, dtype=F64)])
def test_a_wrong_number_of_scales_raises(scale, noisy):
    with pytest.raises(ValueError, match="scale has"):
        guide_away(elementwise, elementwise, *noisy, scale)


@pytest.mark.parametrize("scale", [2.0, SCALES])
def test_other_labels_may_stand_in_for_none(scale, noisy, counted):
    x_t, t, y = noisy
    model, other = counted(elementwise), (y + 1) % 3
    c, b = conditional_and_unconditional(model, *noisy, as_scale(scale), other)
    needs_c, needs_b = (as_scale(scale) != neutral for neutral in (0, 1))
    assert model.calls == [[*y[needs_c.expand(9)].tolist(), *other[needs_b.expand(9)].tolist()]]
    assert torch.equal(b.x0[needs_b.expand(9)], elementwise(x_t, t, other).x0[needs_b.expand(9)])
    assert torch.equal(c.x0[needs_c.expand(9)], elementwise(x_t, t, y).x0[needs_c.expand(9)])


def test_what_a_network_lacks_is_named_with_the_method(network, mixture):
    assert capability(Denoiser(network, Cosine()), "num_classes", "method", "has classes") == 3
    with pytest.raises(
        ValueError, match="the method needs a network that has embeddings, and GaussianMixture does not"
    ):
        capability(mixture, "embed_labels", "the method", "has embeddings")
    with pytest.raises(ValueError, match="and Identity does not: use another guidance"):
        capability(Denoiser(torch.nn.Identity(), Cosine()), "num_classes", "the method", "has classes")
