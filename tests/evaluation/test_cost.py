from functools import partial
from time import perf_counter

import pytest

from guided_diffusion.evaluation.cost import check_first_step, corrects_guidance, evaluations_per_sample, labels_needed
from guided_diffusion.guidance import ClassifierFree, ClassifierGuidance, Combined, LimitedInterval, Reconstruction
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import (
    Sampler,
    ddim,
    ddpm,
    dpmpp_2m,
    feynman_kac,
    gibbs,
    heun,
    pcg,
    sde_dpmpp_2m,
    twisted,
)
from guided_diffusion.schedules import Cosine


@pytest.mark.parametrize("steps", [1, 5])
def test_samplers_that_correct_guidance_are_known(steps):
    plain, correcting = (ddim, ddpm, heun, dpmpp_2m, sde_dpmpp_2m), (pcg, gibbs, partial(feynman_kac), twisted)
    assert not any(corrects_guidance(Sampler(method, steps), Cosine()) for method in plain)
    assert all(corrects_guidance(Sampler(method, steps), Cosine()) for method in correcting)


@pytest.mark.parametrize(("scale", "expected"), [(0.0, 5), (1.0, 5), (2.0, 10)])
@pytest.mark.parametrize("method", [ddim, ddpm, dpmpp_2m, sde_dpmpp_2m])
def test_classifier_free_guidance_costs_two_evaluations_a_step_where_it_extrapolates(method, scale, expected):
    recipe = Recipe(ClassifierFree(scale), sampler=Sampler(method, 5))
    assert evaluations_per_sample(recipe, Cosine()) == expected


@pytest.mark.parametrize(
    ("guidance", "method", "expected"),
    [(ClassifierFree(1.0), heun, 9), (ClassifierGuidance(None, 4.0), ddim, 5), (Combined(None, 4.0, 2.0), ddim, 10)],
    ids=["Heun evaluates twice but for the last step", "a classifier is not counted", "both guidances"],
)
def test_evaluations_of_five_steps(guidance, method, expected):
    assert evaluations_per_sample(Recipe(guidance, sampler=Sampler(method, 5)), Cosine()) == expected


@pytest.mark.parametrize(
    ("guidance", "method", "expected"),
    [
        (ClassifierFree(2.0), partial(pcg, corrections=0), 5),
        (ClassifierFree(2.0), partial(pcg, corrections=3), 5 + 4 * 3 * 2),
        (ClassifierFree(1.0), partial(pcg, corrections=3), 5 + 4 * 3),
        (ClassifierFree(2.0), partial(pcg, corrections=3, g=1.0), 5 + 4 * 3),
        (ClassifierFree(2.0), partial(gibbs, rounds=2, noise_level=1e4), 9 + 2 * 9 * 2),
        (ClassifierFree(2.0), partial(gibbs, rounds=1, noise_level=0.1), 9 + 1 * 2),
        (ClassifierFree(2.0), partial(feynman_kac, particles=3), 4 * 3 * 2 + 2),
        (ClassifierFree(1.0), partial(feynman_kac, particles=3), 4 * 3 * 2 + 1),
        (Reconstruction(None, 2.0), partial(twisted, particles=3), 5 * 3),
        (Reconstruction(None, 2.0), ddim, 5),
    ],
)
def test_corrections_rounds_and_particles_are_counted(guidance, method, expected):
    assert evaluations_per_sample(Recipe(guidance, sampler=Sampler(method, 5)), Cosine()) == expected


@pytest.mark.parametrize(
    ("guidance", "method", "expected"),
    [
        (ClassifierFree(2.0), partial(pcg, corrections=0), {True}),
        (ClassifierFree(0.0), pcg, {True, False}),
        (ClassifierFree(0.0), gibbs, {True, False}),
        (ClassifierFree(1.0), gibbs, {True}),
        (ClassifierFree(1.0), feynman_kac, {True, False}),
        (Reconstruction(None, 2.0), twisted, {False}),
    ],
)
def test_the_labels_that_a_sampler_of_several_scales_needs(guidance, method, expected):
    assert labels_needed(Recipe(guidance, sampler=Sampler(method, 100_000)), Cosine()) == expected


@pytest.mark.parametrize(("scale", "expected"), [(0.0, {False}), (1.0, {True}), (2.0, {True, False})])
def test_predictions_with_and_without_label_are_needed_as_the_scale_asks(scale, expected):
    assert labels_needed(Recipe(ClassifierFree(scale), sampler=Sampler(steps=5)), Cosine()) == expected


def test_the_labels_that_a_hundred_thousand_steps_need_are_found_at_once():
    """A walk of the sampler with as many steps takes more than a minute."""
    start = perf_counter()
    narrow = LimitedInterval(3.0, 1.0, 1.0001)  # a few steps of the grid are inside
    assert labels_needed(Recipe(narrow, sampler=Sampler(heun, 100_000)), Cosine()) == {True, False}
    assert labels_needed(Recipe(narrow, sampler=Sampler(heun, 10)), Cosine()) == {True}
    assert perf_counter() - start < 10


@pytest.mark.parametrize(
    ("method", "reverse"),
    [
        *((method, False) for method in (ddim, ddpm, heun, dpmpp_2m, sde_dpmpp_2m, pcg, gibbs, feynman_kac, twisted)),
        (ddim, True),
    ],
)
def test_the_first_step_of_a_valid_recipe_can_be_taken(method, reverse):
    check_first_step(Recipe(sampler=Sampler(method, 100_000)), Cosine(), reverse)


def test_the_first_step_shows_that_a_sampler_cannot_go_in_reverse():
    with pytest.raises(ValueError, match="ddpm adds noise"):
        check_first_step(Recipe(sampler=Sampler(ddpm, 5)), Cosine(), reverse=True)
