import math
import threading
from dataclasses import replace
from functools import partial

import pytest
import torch
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader

from guided_diffusion.evaluation.chunks import Chunks, sampling_lock, saturation
from guided_diffusion.evaluation.cost import evaluations_per_sample
from guided_diffusion.evaluation.plan import Plan
from guided_diffusion.evaluation.results import describe_setting
from guided_diffusion.guidance import ClassifierFree, ClassifierGuidance, Clip, Combined, NoThreshold
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler, ddim, ddpm, dpmpp_2m, heun
from guided_diffusion.schedules import Cosine
from guided_diffusion.utils.files import content_hash

RECIPE = Recipe(ClassifierFree(), Clip(), Sampler(steps=3), batch_size=4)
PLAN = Plan(scales=[0.0, 1.0, 3.0], num_samples=2, num_classes=3, shape=(2,), batch_size=4, seed=7)


@pytest.fixture
def chunks(exact, tmp_path):
    def made(recipe=RECIPE, plan=PLAN, folder=tmp_path / "chunks"):
        return Chunks(exact, recipe, plan, folder)

    return made


def sample(chunks, numbers=None, **arguments):
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.predict(chunks, DataLoader(chunks.missing() if numbers is None else numbers), return_predictions=False)
    return chunks.collect([1.0] * len(chunks.plan.scales))


def test_chunks_hold_every_sample_of_every_scale_once():
    rows = torch.cat([PLAN.rows(chunk) for chunk in range(len(PLAN))])
    assert rows.tolist() == list(range(18))
    assert len(PLAN) == 5
    assert PLAN.scales_of(rows).tolist() == [0.0] * 6 + [1.0] * 6 + [3.0] * 6
    assert PLAN.labels.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scales": []}, "scales must hold at least one number"),
        ({"scales": [1.0, 2.0, 1.0]}, r"scales must differ, got \[1.0, 2.0, 1.0\]"),
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
    ],
)
def test_an_impossible_plan_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(PLAN, **change)


def test_of_two_that_draw_the_same_samples_one_waits(tmp_path, capsys):
    order = []

    def second():
        with sampling_lock(tmp_path / "samples" / "same"):
            order.append("second")

    with sampling_lock(tmp_path / "samples" / "same"):
        other = threading.Thread(target=second)
        other.start()
        while "waiting: another evaluation draws the same samples\n" not in capsys.readouterr().out:
            pass
        order.append("first")
    other.join()
    assert order == ["first", "second"]
    assert list((tmp_path / "samples").iterdir()) == []


def test_samples_are_those_of_a_sweep_from_the_same_noise(chunks, exact):
    samples, _ = sample(chunks())
    expected = RECIPE.sweep(exact, PLAN.labels, (2,), PLAN.scales, seed=7)
    for of_scale, images in zip(samples, expected, strict=True):
        torch.testing.assert_close(of_scale.samples, images, rtol=0, atol=1e-5)
        assert torch.equal(of_scale.labels, PLAN.labels)


def test_what_was_sampled_is_not_sampled_again_and_the_bits_are_the_same(chunks, tmp_path):
    whole, _ = sample(chunks(folder=tmp_path / "whole"))
    interrupted = chunks()
    sample_some = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    sample_some.predict(interrupted, DataLoader([0, 3]), return_predictions=False)
    assert interrupted.missing() == [1, 2, 4]
    before = (tmp_path / "chunks" / "chunk_00003.pt").stat().st_mtime_ns
    resumed, _ = sample(interrupted)
    assert (tmp_path / "chunks" / "chunk_00003.pt").stat().st_mtime_ns == before
    for one, other in zip(whole, resumed, strict=True):
        assert torch.equal(one.samples, other.samples)
        assert torch.equal(one.saturation, other.saturation)


def test_saturation_is_measured_before_the_threshold(chunks, exact):
    """Clipped to 0.5, samples are inside; what was to be clipped is not."""
    recipe = Recipe(ClassifierFree(), Clip(0.5), Sampler(steps=3), batch_size=4)
    clipped, _ = sample(chunks(recipe))
    assert clipped[2].images.abs().max() <= 0.5
    free, _ = sample(chunks(replace(recipe, threshold=NoThreshold()), folder=chunks().folder / "free"))
    torch.testing.assert_close(free[2].saturation, saturation(free[2].samples))
    assert clipped[2].saturation.max() > 0


def test_saturation_is_the_share_outside_the_range():
    x0 = torch.tensor([[0.0, 1.0, -1.0, 0.5], [1.5, -2.0, 0.0, 0.0]])
    assert saturation(x0).tolist() == [0.0, 0.5]


def test_seconds_are_shared_by_what_samples_cost(chunks):
    made = chunks()
    sample(made)
    total = sum(torch.load(path, weights_only=True)["seconds"] for path in made.folder.iterdir())
    _, seconds = made.collect([1.0, 1.0, 3.0])
    assert sum(seconds) == pytest.approx(total)
    mixed = torch.load(made.folder / "chunk_00002.pt", weights_only=True)["seconds"]  # four samples of scale 1
    last_two = [torch.load(made.folder / f"chunk_0000{n}.pt", weights_only=True)["seconds"] for n in (3, 4)]
    assert seconds[2] == pytest.approx(sum(last_two))
    first_two = [torch.load(made.folder / f"chunk_0000{n}.pt", weights_only=True)["seconds"] for n in (0, 1)]
    assert seconds[0] == pytest.approx(first_two[0] + first_two[1] / 2)
    assert seconds[1] == pytest.approx(first_two[1] / 2 + mixed)


@pytest.mark.parametrize(("scale", "expected"), [(0.0, 5), (1.0, 5), (2.0, 10)])
@pytest.mark.parametrize("method", [ddim, ddpm, dpmpp_2m])
def test_evaluations_are_counted_as_the_denoiser_is_called(method, scale, expected):
    recipe = Recipe(ClassifierFree(scale), sampler=Sampler(method, 5))
    assert evaluations_per_sample(recipe, Cosine()) == expected


def test_evaluations_of_heun_and_of_classifier_guidance():
    assert evaluations_per_sample(Recipe(ClassifierFree(1.0), sampler=Sampler(heun, 5)), Cosine()) == 9
    assert evaluations_per_sample(Recipe(ClassifierGuidance(None, 4.0), sampler=Sampler(steps=5)), Cosine()) == 5
    assert evaluations_per_sample(Recipe(Combined(None, 4.0, 2.0), sampler=Sampler(steps=5)), Cosine()) == 10


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        (ClassifierFree(3.0), "ClassifierFree"),
        (ClassifierGuidance(lambda x, t: x, 3.0), "ClassifierGuidance"),
        (ClassifierGuidance(None, 3.0, "conditional", 0.5), "ClassifierGuidance(base=conditional, temperature=0.5)"),
        (partial(ddim, eta=0.0), "ddim"),
        (partial(ddim, eta=0.5), "ddim(eta=0.5)"),
        (ddpm, "ddpm"),
    ],
)
def test_a_setting_is_named_by_its_class_and_what_is_not_default(setting, name):
    assert describe_setting(setting) == name


def test_fingerprints_differ_where_something_does(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"one")
    first = content_hash(PLAN.plain(), {"a": 1}, file)
    assert first == content_hash(PLAN.plain(), {"a": 1}, file)
    assert first != content_hash(replace(PLAN, seed=8).plain(), {"a": 1}, file)
    assert first != content_hash(PLAN.plain(), {"a": 2}, file)
    file.write_bytes(b"two")
    assert first != content_hash(PLAN.plain(), {"a": 1}, file)


def test_progress_counts_evaluations(chunks):
    made = chunks()
    made.costs = [1.0, 1.0, 2.0]
    assert [made.cost(chunk) for chunk in range(5)] == [4, 4, 4, 8, 4]
    assert math.fsum(map(made.cost, made.missing())) == 24
