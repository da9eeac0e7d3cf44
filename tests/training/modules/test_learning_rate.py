import math
from functools import partial

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import ConstantLR, OneCycleLR

from guided_diffusion.training.modules.learning_rate import build_schedule


def rates(max_steps, num_steps, schedule=OneCycleLR, **settings):
    """The learning rate of each step."""
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    factory = partial(schedule, **settings) if settings else schedule
    scheduler = build_schedule(factory, optimizer, max_steps, num_steps)
    used = []
    for _ in range(num_steps):
        used.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return used


def one_cycle(steps, total_steps=None, max_steps=None, **settings):
    defaults = {"max_lr": 1.0, "pct_start": 0.1, "cycle_momentum": False}
    max_steps = steps if max_steps is None else max_steps
    return rates(max_steps, steps, OneCycleLR, total_steps=total_steps or max_steps, **defaults | settings)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 10, 20])
@pytest.mark.parametrize("pct_start", [0.0, 0.1, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("three_phase", [False, True])
def test_a_cycle_of_any_number_of_steps_has_a_rate_for_each(steps, pct_start, three_phase):
    used = one_cycle(steps, pct_start=pct_start, three_phase=three_phase)
    assert len(used) == steps
    assert all(math.isfinite(rate) for rate in used)
    assert 0.01 < max(used) <= 1 + 1e-9
    assert min(used) > 0


@pytest.mark.parametrize("steps", [2, 9, 11, 20, 600])
def test_a_cycle_that_torch_can_build_is_not_changed(steps):
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = OneCycleLR(optimizer, 1.0, total_steps=steps, pct_start=0.1, cycle_momentum=False)
    theirs = []
    for _ in range(steps):
        theirs.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert one_cycle(steps) == theirs


def test_a_warm_up_of_a_single_step_begins_at_the_highest_rate():
    used = one_cycle(10)
    assert used[0] == pytest.approx(1)
    assert used == sorted(used, reverse=True)
    expected = [(1 + math.cos(math.pi * step / 9)) / 2 for step in range(10)]
    assert used == pytest.approx(expected, abs=1e-4)


def test_a_single_step_learns():
    assert one_cycle(1) == [pytest.approx(0.587, abs=1e-3)]


def test_a_cycle_without_a_limit_of_steps_spans_those_that_the_training_takes():
    assert one_cycle(7, max_steps=-1) == one_cycle(7)


def test_a_cycle_spans_the_epochs_if_they_are_fewer_than_the_limit_of_steps():
    assert one_cycle(7, max_steps=100) == one_cycle(7)


def test_another_length_in_the_config_is_kept():
    assert one_cycle(20, total_steps=600) == one_cycle(600)[:20]


def test_a_schedule_without_a_length_is_built_as_it_is():
    assert rates(5, 5, partial(ConstantLR, factor=0.5, total_iters=2)) == [0.5, 0.5, 1.0, 1.0, 1.0]
