import csv
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
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
    """``server(folder, *arguments, signal, at)`` trains in a fork of a process that has imported all."""
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
    """Beside folders in which Hydra had just begun."""
    (run,) = [run for run in (folder / "outputs" / name).iterdir() if any(run.iterdir())]
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


@pytest.mark.slow
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


@pytest.fixture(scope="session")
def interrupted(server, tmp_path_factory):
    """A run that was killed after the checkpoint of its fourth step; to be copied."""
    folder = tmp_path_factory.mktemp("interrupted")
    server(folder, *SHORT, signal=KILL, at=["step", 5])
    return only_run(folder)


@pytest.fixture
def copied(interrupted, tmp_path):
    """The interrupted run, where this test can go on with it."""

    def copy(name="earlier"):
        run = tmp_path / "outputs" / "short" / name
        shutil.copytree(interrupted, run)
        config = run / "config.yaml"
        config.write_text(config.read_text().replace(str(interrupted), str(run)))
        return run

    return copy


def saved_step(run, name="last.ckpt"):
    return torch.load(run / "checkpoints" / name, weights_only=True)["global_step"]


def runs(folder):
    return sorted(path.parent for path in folder.glob("outputs/short/*/config.yaml"))


def test_without_an_interrupted_run_it_says_that_it_starts_anew(server, tmp_path):
    trained = server(tmp_path, *SHORT, "trainer.max_steps=1", "resume=auto")
    assert trained["status"] == 0
    assert "resume=auto: no interrupted run with a checkpoint: starting anew\n" in trained["printed"]


def test_a_finished_run_is_not_trained_again(server, uninterrupted):
    before = {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*")}
    folder = uninterrupted.parent.parent.parent
    trained = server(folder, *SHORT, "resume=auto")
    assert trained["status"] == 0
    assert trained["printed"] == f"resume=auto: {uninterrupted} has finished: there is nothing left to train\n"
    assert {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*")} == before
    assert only_run(folder) == uninterrupted


@pytest.mark.parametrize("path", ["earlier", "earlier/checkpoints/last.ckpt"])
def test_a_run_or_a_checkpoint_is_gone_on_with(path, server, copied, uninterrupted, tmp_path):
    run = copied()
    trained = server(tmp_path, *SHORT, f"resume=outputs/short/{path}")
    assert trained["status"] == 0, trained["printed"]
    assert f"resume: going on from step 4 in {run}\n" in trained["printed"]
    assert_same(run, uninterrupted)
    assert runs(tmp_path) == [run]


def test_another_training_is_left_alone_and_refused_by_name_of_its_keys(server, copied, tmp_path):
    run = copied()
    other = [*SHORT, "seed=3", "module.optimizer.lr=0.1", "trainer.max_steps=1", "callbacks.last.every_n_steps=7"]
    refused = server(tmp_path, *other, f"resume={run}")
    assert refused["status"] == 1
    (line,) = refused["printed"].splitlines()
    assert line.startswith("error: resume: ")
    for key in ("seed", "module.optimizer.lr", "trainer.max_steps"):
        assert f" {key}" in line
    assert "every_n_steps" not in line
    anew = server(tmp_path, *other, "resume=auto")
    assert anew["status"] == 0, anew["printed"]
    assert saved_step(run) == 4
    assert len(runs(tmp_path)) == 2


def test_a_damaged_checkpoint_is_skipped_with_a_line(server, copied, uninterrupted, tmp_path):
    run = copied()
    last, best = run / "checkpoints" / "last.ckpt", saved_step(run, "best.ckpt")
    os.truncate(last, last.stat().st_size // 2)
    trained = server(tmp_path, *SHORT, "resume=auto")
    assert trained["status"] == 0, trained["printed"]
    assert f"skipped: {last} is damaged" in trained["printed"]
    assert f"going on from step {best} in {run}\n" in trained["printed"]
    assert_same(run, uninterrupted)


def test_with_damaged_checkpoints_alone_it_starts_anew_in_the_same_folder(server, copied, uninterrupted, tmp_path):
    run = copied()
    for path in (run / "checkpoints").iterdir():
        path.write_bytes(b"")
    trained = server(tmp_path, *SHORT, "resume=auto")
    assert trained["status"] == 0, trained["printed"]
    assert f"starting anew in {run}, which has no checkpoint yet\n" in trained["printed"]
    assert_same(run, uninterrupted)


def test_a_run_that_another_process_trains_is_left_alone(server, copied, tmp_path):
    run = copied()
    descriptor = os.open(run, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    trained = server(tmp_path, *SHORT, "resume=auto")
    refused = server(tmp_path, *SHORT, f"resume={run}")
    os.close(descriptor)
    assert f"resume=auto: {run} is left alone: another process is training there\n" in trained["printed"]
    assert saved_step(run) == 4
    assert (refused["status"], refused["printed"].splitlines()[-1]) == (
        1,
        f"error: another process is training in {run}",
    )


def test_a_signal_ends_in_a_line_that_says_how_to_go_on(server, tmp_path):
    for number in (TERM, signal.SIGUSR1, signal.SIGINT):
        stopped = server(tmp_path / number.name, *SHORT, signal=number, at=["step", 4])
        assert stopped["status"] == 143
        run = only_run(tmp_path / number.name)
        line = f"stopped by a signal after step {saved_step(run)}; to go on: python -m guided_diffusion.train "
        assert [text for text in stopped["printed"].splitlines() if text.startswith(line)]
        assert "Traceback" not in stopped["printed"]


def test_a_checkpoint_with_code_in_it_is_not_gone_on_with(server, copied, tmp_path):
    run = copied()
    torch.save({"guided_diffusion": {}, "code": Path.cwd}, run / "checkpoints" / "last.ckpt")
    (run / "checkpoints" / "best.ckpt").unlink()
    refused = server(tmp_path, *SHORT, f"resume={run / 'checkpoints' / 'last.ckpt'}")
    assert refused["status"] == 1
    assert "holds code, which is not loaded" in refused["printed"]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of four megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("a disk can be mounted by root alone")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_on_a_full_disk_the_checkpoint_from_before_survives(server, small_disk, uninterrupted):
    """A checkpoint takes a megabyte; half of that is free when the third is written."""
    size = (uninterrupted / "checkpoints" / "last.ckpt").stat().st_size
    server(small_disk, *SHORT, signal=KILL, at=["step", 5])
    run = only_run(small_disk)
    free = shutil.disk_usage(small_disk).free
    filler = small_disk / "filler"
    filler.write_bytes(bytes(free - size // 2))
    stopped = server(small_disk, *SHORT, "resume=auto")
    assert stopped["status"] == 1, stopped["printed"]
    (line,) = [text for text in stopped["printed"].splitlines() if text.startswith("error: ")]
    assert f"the checkpoint could not be saved in {run / 'checkpoints'}: No space left on device" in line
    assert "Traceback" not in stopped["printed"]
    assert saved_step(run) == 4
    assert not list(run.rglob("*.part"))
    filler.unlink()
    assert server(small_disk, *SHORT, "resume=auto")["status"] == 0
    assert_same(run, uninterrupted)


@pytest.mark.slow
def test_killed_at_twenty_random_moments_it_ends_as_if_it_had_not_been(server, tmp_path):
    """Moments are some milliseconds after the beginning of a step: in a step, a validation or a checkpoint."""
    longer = [*SHORT, "trainer.max_steps=60", "data.num_train=150", "callbacks.last.every_n_steps=3", "name=soak"]
    assert server(tmp_path / "whole", *longer)["status"] == 0
    moments = random.Random(0)
    statuses = []
    for step in sorted(moments.randrange(58) for _ in range(20)):
        number, seconds = moments.choice([KILL, KILL, TERM]), moments.uniform(0, 0.1)
        killed = server(tmp_path / "killed", *longer, "resume=auto", signal=number, at=["moment", [step, seconds]])
        assert killed["status"] == (-KILL if number == KILL else 128 + TERM), killed["printed"]
        statuses.append(killed["status"])
    assert len(statuses) == 20
    assert server(tmp_path / "killed", *longer, "resume=auto")["status"] == 0
    assert_same(only_run(tmp_path / "killed", "soak"), only_run(tmp_path / "whole", "soak"))
