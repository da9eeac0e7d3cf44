"""Exact resume: a training that is killed, wherever that is, and continued ends as if nothing had happened."""

import importlib
import random
import signal
import sys

import pytest
import torch
from pytorch_lightning import loops

KILL, TERM = signal.SIGKILL, signal.SIGTERM


def status_after(number):
    return -KILL if number == KILL else 128 + TERM


def test_a_lightning_without_this_fit_loop_is_refused(monkeypatch):
    monkeypatch.delattr(loops, "_FitLoop")
    monkeypatch.delitem(sys.modules, "guided_diffusion.training.resume.loop_state")
    with pytest.raises(RuntimeError, match=r"pytorch-lightning .* is not supported"):
        importlib.import_module("guided_diffusion.training.resume.loop_state")


POINTS = [
    ("step", 0, KILL),  # before the first checkpoint
    ("step", 1, TERM),
    ("step", 3, KILL),  # between two epochs
    ("step", 4, TERM),
    ("step end", 6, TERM),  # the last step of an epoch
    ("step", 7, KILL),
    ("validation", 4, KILL),
    ("validation", 6, TERM),  # after the last step of an epoch
    ("validation", 8, TERM),
    ("validation end", 8, KILL),
    ("checkpoint", 2, KILL),  # the first one
    ("checkpoint", 6, KILL),
    ("renaming", 6, KILL),
    ("table", 5, KILL),
    ("checkpoint", 11, KILL),  # the last one
    ("step end", 11, TERM),
    ("end", 11, KILL),  # after the last one
]
FAST = ("validation", 4, KILL)
"""The point that the fast tests try: in a validation whose step no checkpoint has yet."""


@pytest.mark.parametrize(
    ("point", "step", "number"),
    [pytest.param(*case, marks=[] if case == FAST else [pytest.mark.slow]) for case in POINTS],
)
def test_a_training_killed_at_any_point_and_resumed_ends_the_same(
    point, step, number, server, short, uninterrupted, only_run, assert_same, tmp_path
):
    killed = server(tmp_path, *short, "resume=auto", signal=number, at=[point, step])
    assert killed.status == status_after(number), killed.printed
    resumed = server(tmp_path, *short, "resume=auto")
    assert resumed.status == 0, resumed.printed
    assert "error" not in resumed.printed
    assert_same(only_run(tmp_path), uninterrupted)


@pytest.mark.slow
def test_a_training_whose_batches_are_made_by_workers_is_resumed_exactly(
    server, short, uninterrupted, only_run, tmp_path
):
    killed = server(tmp_path, *short, "data.num_workers=2", "resume=auto", signal=TERM, at=["step", 4])
    assert killed.status == status_after(TERM), killed.printed
    resumed = server(tmp_path, *short, "data.num_workers=2", "resume=auto")
    assert resumed.status == 0, resumed.printed
    one, other = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (only_run(tmp_path), uninterrupted)
    )
    assert one["global_step"] == other["global_step"] == 11
    assert one["state_dict"].keys() == other["state_dict"].keys()
    assert all(torch.equal(one["state_dict"][name], other["state_dict"][name]) for name in one["state_dict"])


@pytest.mark.slow
def test_a_training_killed_at_every_step_ends_the_same(server, short, uninterrupted, only_run, assert_same, tmp_path):
    """Each resumed training reads and writes Lightning's record of the loops once more."""
    for step in range(1, 11):
        number = (KILL, TERM)[step % 2]
        killed = server(tmp_path, *short, "resume=auto", signal=number, at=["step", step])
        assert killed.status == status_after(number), killed.printed
    assert server(tmp_path, *short, "resume=auto").status == 0
    assert_same(only_run(tmp_path), uninterrupted)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_training_killed_at_twenty_random_moments_ends_the_same(server, short, only_run, assert_same, tmp_path):
    """A moment is some milliseconds after the start of a step: in a step, a validation or a checkpoint."""
    longer = [*short, "trainer.max_steps=60", "data.num_train=150", "callbacks.last.every_n_steps=3", "name=soak"]
    assert server(tmp_path / "whole", *longer).status == 0
    moments = random.Random(0)
    for step in sorted(moments.randrange(58) for _ in range(20)):
        number, seconds = moments.choice([KILL, KILL, TERM]), moments.uniform(0, 0.1)
        killed = server(tmp_path / "killed", *longer, "resume=auto", signal=number, at=["moment", [step, seconds]])
        assert killed.status == status_after(number), killed.printed
    assert server(tmp_path / "killed", *longer, "resume=auto").status == 0
    assert_same(only_run(tmp_path / "killed", "soak"), only_run(tmp_path / "whole", "soak"))
