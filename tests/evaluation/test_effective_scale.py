"""The effective scale: exact for classifier-free guidance, by hand for two vectors, and as columns of an evaluation."""

import csv

import pytest
import torch

from guided_diffusion.evaluation.effective_scale import EffectiveScale, ScaleMeter, effective_scale, mean_of
from guided_diffusion.guidance import ClassifierFree, Clip, LimitedInterval, NoThreshold
from guided_diffusion.samplers import heun, uniform_times

F64 = torch.float64


def measured(guidance, mixture, threshold, steps=4):
    found, schedule = [], mixture.schedule
    denoise = ScaleMeter(threshold, mixture, found.append)(guidance(mixture, schedule), schedule)
    noise, labels = torch.randn(3, *mixture.means.shape[1:], dtype=F64), torch.tensor([0, 1, 2])
    *_, last = heun(denoise, schedule, noise, uniform_times(schedule, steps), labels)
    return last.x, found


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5, torch.tensor([0.0, 1.5, -3.0])])
def test_for_classifier_free_guidance_it_is_the_scale(scale, mixture):
    _, found = measured(ClassifierFree(scale), mixture, Clip(0.1))
    assert len(found) == 7
    means = mean_of(found)
    torch.testing.assert_close(means.scale, torch.as_tensor(scale, dtype=F64).expand(3), atol=1e-9, rtol=0)
    torch.testing.assert_close(means.residual, torch.zeros(3, dtype=F64), atol=1e-7, rtol=0)


def test_by_hand():
    u, c = torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0, 1.0]])
    guided = torch.tensor([[7.0, 5.0]])  # u + 3 (c - u) and 4 at a right angle to it
    assert effective_scale(guided, c, u) == EffectiveScale(
        torch.tensor([3.0], dtype=F64), torch.tensor([2.0], dtype=F64)
    )


def test_evaluations_without_a_difference_are_left_out(mixture):
    nan = effective_scale(torch.ones(1, 2), torch.zeros(1, 2), torch.zeros(1, 2))
    assert nan.scale.isnan().all()
    assert nan.residual.isnan().all()
    one = EffectiveScale(torch.tensor([2.0]), torch.tensor([0.5]))
    assert mean_of([nan, one, one]) == (2.0, 0.5)


def test_an_interval_has_a_lower_one_and_measuring_changes_no_sample(mixture):
    guidance = LimitedInterval(3.0, 0.3, 2.0)
    torch.manual_seed(0)
    samples, found = measured(guidance, mixture, NoThreshold())
    assert ((mean_of(found).scale > 1) & (mean_of(found).scale < 3)).all()
    schedule, labels = mixture.schedule, torch.tensor([0, 1, 2])
    torch.manual_seed(0)
    noise = torch.randn(3, *mixture.means.shape[1:], dtype=F64)
    *_, plain = heun(guidance(mixture, schedule), schedule, noise, uniform_times(schedule, 4), labels)
    assert torch.equal(samples, plain.x)


@pytest.mark.slow
def test_an_evaluation_has_it_as_columns(call, run_dir, tmp_path):
    checkpoint = run_dir / "checkpoints" / "last.ckpt"
    few = ("scales=[0,3]", "num_samples=2", "judge.steps=2", "judge.width=8", "trainer.accelerator=cpu")
    called = call("evaluate", f"checkpoint={checkpoint}", *few, "effective_scale=true", "output_dir=there")
    assert called.status == 0, called.err
    with (tmp_path / "there" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["effective_scale"]) for row in rows] == pytest.approx([0, 3], abs=1e-3)
    assert [float(row["residual"]) for row in rows] == pytest.approx([0, 0], abs=1e-2)
