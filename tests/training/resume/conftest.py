"""Trainings in a process that can be killed, and runs that were interrupted or not."""

import csv
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import guided_diffusion

SHORT = (
    *("network=unet_8", "module/optimizer=adamw"),
    "data=fake",
    "data.num_train=80",
    "data.flip=true",
    "data.balance=true",
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
"""Eleven steps in epochs of three, with everything that has a state."""

LIMIT = 100
"""Seconds that one training may take."""


@pytest.fixture(scope="session")
def short():
    """The overrides of the short training."""
    return SHORT


@pytest.fixture(scope="session")
def server():
    """``server(folder, *arguments, signal=, at=)`` trains in a fork of a process that has imported everything."""
    paths = {"PYTHONPATH": str(Path(guided_diffusion.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, Path(__file__).parent / "training_server.py"],
        env=os.environ | paths,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        bufsize=0,
    )

    def train(folder, *arguments, **killed):
        folder.mkdir(exist_ok=True)
        job = {"folder": str(folder), "arguments": arguments, **killed}
        process.stdin.write(json.dumps(job).encode() + b"\n")
        assert select.select([process.stdout], [], [], LIMIT)[0], f"no training took {LIMIT} seconds: {job}"
        return SimpleNamespace(**json.loads(process.stdout.readline()))

    try:
        yield train
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its forks are in its process group
        process.wait(LIMIT)


@pytest.fixture(scope="session")
def uninterrupted(server, tmp_path_factory):
    """The run of the short training that nothing stops; read only."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    trained = server(folder, *SHORT)
    assert trained.status == 0, trained.printed
    return run_in(folder)


@pytest.fixture(scope="session")
def interrupted(server, tmp_path_factory):
    """A run that was killed after the checkpoint of its fourth step; to be copied."""
    folder = tmp_path_factory.mktemp("interrupted")
    server(folder, *SHORT, signal=signal.SIGKILL, at=["step", 5])
    return run_in(folder)


@pytest.fixture
def copied(interrupted, tmp_path):
    """A copy of the interrupted run, which the test can continue."""
    run = tmp_path / "outputs" / "short" / "earlier"
    shutil.copytree(interrupted, run)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(str(interrupted), str(run)))
    return run


def run_in(folder, name="short"):
    """The only run in a folder; an empty one beside it is of a job that was killed when Hydra had just made it."""
    (run,) = [run for run in (folder / "outputs" / name).iterdir() if any(run.iterdir())]
    return run


@pytest.fixture(scope="session")
def only_run():
    return run_in


@pytest.fixture(scope="session")
def saved_step():
    """``saved_step(run)`` is the step of its last checkpoint."""

    def step(run, name="last.ckpt"):
        return torch.load(run / "checkpoints" / name, weights_only=True)["global_step"]

    return step


def plain(value, folder):
    """The content of a checkpoint with tensors as bytes, without the folder of the run."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().reshape(-1).view(torch.uint8).tolist()
    if isinstance(value, dict):
        return {str(key).replace(folder, ""): plain(child, folder) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [plain(child, folder) for child in value]
    return value.replace(folder, "") if isinstance(value, str) else value


def content(run, name):
    """Everything in a checkpoint except the last score of a model, which Lightning does not restore."""
    saved = torch.load(run / "checkpoints" / name, weights_only=True)
    for state in saved["callbacks"].values():
        state.pop("current_score", None)
    return plain(saved, str(run))


def metrics(run):
    with (run / "metrics.csv").open() as file:
        return [{**row, "train/images_per_second": ""} for row in csv.DictReader(file)]


@pytest.fixture(scope="session")
def assert_same():
    """``assert_same(run, other)`` compares checkpoints to the bit, and metrics except for the speed."""

    def compare(run, other):
        for name in ("last.ckpt", "best.ckpt"):
            one, two = content(run, name), content(other, name)
            assert one.keys() == two.keys()
            for key in one:
                assert one[key] == two[key], f"{name} differs in {key}"
        assert metrics(run) == metrics(other)

    return compare
