"""Exact resume: a training that is killed, wherever that is, and continued ends as if nothing had happened."""

import functools
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


# Accumulated gradients: epochs of seven batches, so that one batch is left over with steps of two or three


@pytest.fixture(scope="session")
def accumulating(short):
    """``accumulating(k)`` are the overrides of the short training with k batches in each step."""

    def overrides(k, saved_every=2):
        size = (
            "data.num_train=144",
            f"trainer.accumulate_grad_batches={k}",
            f"callbacks.last.every_n_steps={saved_every}",
        )
        return (*short, *size, f"name=steps_of_{k}")

    return overrides


@pytest.fixture(scope="session")
def accumulated(server, accumulating, only_run, tmp_path_factory):
    """``accumulated(k, saved_every)`` is the run that nothing stops, trained once; read only."""

    @functools.cache
    def run(k, saved_every=2):
        folder = tmp_path_factory.mktemp("accumulated")
        trained = server(folder, *accumulating(k, saved_every))
        assert trained.status == 0, trained.printed
        return only_run(folder, f"steps_of_{k}")

    return run


ACCUMULATED = [
    ("step", 4, KILL),
    ("within step", [4, 2], KILL),  # an epoch has three steps of two batches, or two steps of three
    ("within step", [5, 2], TERM),
    ("step end", 6, TERM),
    ("validation", 4, TERM),
    ("validation end", 8, KILL),
    ("checkpoint", 6, KILL),
    ("checkpoint", 11, KILL),
]


def killed_and_resumed(server, folder, arguments, point, at, number):
    killed = server(folder, *arguments, "resume=auto", signal=number, at=[point, at])
    assert killed.status == status_after(number), killed.printed
    resumed = server(folder, *arguments, "resume=auto")
    assert resumed.status == 0, resumed.printed


@pytest.mark.slow
@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize(("point", "at", "number"), ACCUMULATED)
def test_a_training_that_accumulates_gradients_ends_the_same(
    k, point, at, number, server, accumulating, accumulated, only_run, assert_same, tmp_path
):
    killed_and_resumed(server, tmp_path, accumulating(k), point, at, number)
    assert_same(only_run(tmp_path, f"steps_of_{k}"), accumulated(k))


@pytest.mark.slow
@pytest.mark.parametrize("k", [2, 3])
def test_the_best_checkpoint_of_accumulated_gradients_is_that_of_a_whole_step(
    k, server, accumulating, accumulated, only_run, assert_same, tmp_path
):
    """Here it is the only checkpoint: the training that is killed goes on from there."""
    killed_and_resumed(server, tmp_path, accumulating(k, saved_every=100), "within step", [4, 2], KILL)
    assert_same(only_run(tmp_path, f"steps_of_{k}"), accumulated(k, saved_every=100))


# Other settings of the trainer that decide which batches an epoch has, and when it validates

EPOCHS = {
    "a share of an epoch": ["trainer.val_check_interval=0.5", "trainer.check_val_every_n_epoch=1"],
    "every second epoch": [
        *("trainer.val_check_interval=1.0", "trainer.check_val_every_n_epoch=2", "trainer.max_steps=14"),
    ],
    "fewer batches": ["+trainer.limit_train_batches=5"],
    "half of the batches": ["+trainer.limit_train_batches=0.5"],
    "loaders made anew": ["+trainer.reload_dataloaders_every_n_epochs=1"],
    "overfitting": ["+trainer.overfit_batches=3"],
}


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("settings", EPOCHS.values(), ids=EPOCHS)
def test_a_training_with_other_epochs_ends_the_same(k, settings, server, accumulating, only_run, assert_same, tmp_path):
    arguments = [*accumulating(k), *settings]
    assert server(tmp_path / "whole", *arguments).status == 0
    killed_and_resumed(server, tmp_path / "killed", arguments, "within step", [9, k], KILL)
    assert_same(*(only_run(tmp_path / name, f"steps_of_{k}") for name in ("killed", "whole")))


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 2])
def test_a_training_of_the_fast_network_with_muon_ends_the_same(
    k, fast_recipe, server, accumulating, only_run, assert_same, tmp_path
):
    arguments = [*accumulating(k), *(one for one in fast_recipe if "ema" not in one)]
    assert server(tmp_path / "whole", *arguments).status == 0
    killed_and_resumed(server, tmp_path / "killed", arguments, "within step", [9, k], KILL)
    assert_same(*(only_run(tmp_path / name, f"steps_of_{k}") for name in ("killed", "whole")))
