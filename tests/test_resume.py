import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import guided_diffusion

SHORT = (
    "data=fake",
    "data.num_train=80",
    "network.width=8",
    "callbacks=minimal",
    "+callbacks.learning_rate._target_=pytorch_lightning.callbacks.LearningRateMonitor",
    "callbacks.last.every_n_steps=2",
    "trainer.max_steps=11",
    "trainer.val_check_interval=2",
    "trainer.log_every_n_steps=1",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "name=short",
)
"""Eleven steps in epochs of three, with all that has a state."""

KILL, TERM = signal.SIGKILL, signal.SIGTERM


@pytest.fixture(scope="session")
def server():
    """``server(folder, *arguments, signal, after or at)`` trains in a fork of a process that has imported all."""
    paths = {"PYTHONPATH": str(Path(guided_diffusion.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, Path(__file__).parent / "training_server.py"],
        env=os.environ | paths,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def trained(folder, *arguments, **killed):
        folder.mkdir(exist_ok=True)
        job = {"folder": str(folder), "arguments": arguments, **killed}
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield trained
    process.stdin.close()
    process.wait()


@pytest.fixture(scope="session")
def uninterrupted(server, tmp_path_factory):
    """The run of the short training that nothing stops."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    trained = server(folder, *SHORT)
    assert trained["status"] == 0, trained["printed"]
    return only_run(folder)


def only_run(folder, name="short"):
    (run,) = (folder / "outputs" / name).iterdir()
    return run


def plain(value, place):
    """The content of a checkpoint with tensors as bytes, and without where the run lies."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().reshape(-1).view(torch.uint8).tolist()
    if isinstance(value, dict):
        return {str(key).replace(place, ""): plain(child, place) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [plain(child, place) for child in value]
    return value.replace(place, "") if isinstance(value, str) else value


def content(run, name="last.ckpt"):
    """All of a checkpoint, save for what Lightning does not restore and nobody reads: the last score of a model."""
    saved = torch.load(run / "checkpoints" / name, weights_only=True)
    for state in saved["callbacks"].values():
        state.pop("current_score", None)
    return plain(saved, str(run))


def table(run):
    with (run / "metrics.csv").open() as file:
        return [{**row, "train/images_per_second": ""} for row in csv.DictReader(file)]


def assert_same(run, other):
    for name in ("last.ckpt", "best.ckpt"):
        one, two = content(run, name), content(other, name)
        assert one.keys() == two.keys()
        for key in one:
            assert one[key] == two[key], f"{name} differs in {key}"
    assert table(run) == table(other)


@pytest.mark.parametrize(
    ("point", "step", "number"),
    [
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
    ],
)
def test_killed_at_any_point_it_ends_as_if_it_had_not_been(point, step, number, server, uninterrupted, tmp_path):
    killed = server(tmp_path, *SHORT, "resume=auto", signal=number, at=[point, step])
    assert killed["status"] == (-KILL if number == KILL else 128 + TERM), killed["printed"]
    resumed = server(tmp_path, *SHORT, "resume=auto")
    assert resumed["status"] == 0, resumed["printed"]
    assert "error" not in resumed["printed"]
    assert_same(only_run(tmp_path), uninterrupted)


def test_killed_again_and_again_it_ends_as_if_it_had_not_been(server, uninterrupted, tmp_path):
    """Each time Lightning's record of the loops is read and written once more."""
    for step in range(1, 11):
        number = (KILL, TERM)[step % 2]
        killed = server(tmp_path, *SHORT, "resume=auto", signal=number, at=["step", step])
        assert killed["status"] == (-KILL if number == KILL else 128 + TERM), killed["printed"]
    assert server(tmp_path, *SHORT, "resume=auto")["status"] == 0
    assert_same(only_run(tmp_path), uninterrupted)


@pytest.mark.slow
def test_killed_at_twenty_random_moments_it_ends_as_if_it_had_not_been(server, tmp_path):
    """Moments are seconds from the start of the process, over all that a run does, so now and then none is gained."""
    longer = [*SHORT, "trainer.max_steps=60", "data.num_train=150", "callbacks.last.every_n_steps=3", "name=soak"]
    (tmp_path / "whole").mkdir()
    start = time.monotonic()
    assert server(tmp_path / "whole", *longer)["status"] == 0
    duration = time.monotonic() - start
    moments = random.Random(0)
    statuses = []
    while len(statuses) < 20:
        number = moments.choice([KILL, KILL, TERM])
        after = moments.uniform(0.2, 0.6) * duration
        killed = server(tmp_path / "killed", *longer, "resume=auto", signal=number, after=after)
        if killed["status"] == 0:
            break
        statuses.append(killed["status"])
        assert killed["status"] in (-KILL, -TERM, 128 + TERM), killed["printed"]
    print(statuses, f"a whole run takes {duration:.1f} s, all {time.monotonic() - start:.1f} s")
    assert server(tmp_path / "killed", *longer, "resume=auto")["status"] == 0
    assert len(statuses) == 20
    assert_same(only_run(tmp_path / "killed", "soak"), only_run(tmp_path / "whole", "soak"))
