"""Jobs of a sweep with the same training reuse one checkpoint. ``tests/cli/test_sweeps.py`` runs whole sweeps."""

import io
import shutil
import sys
import threading

import pytest
from omegaconf import OmegaConf

from guided_diffusion.training.resume.find_run import Start
from guided_diffusion.training.resume.run_files import config_of
from guided_diffusion.training.resume.sweep_reuse import find_trained_checkpoint, reuse_training

LIMIT = 60
"""Seconds that a thread may wait for another."""


@pytest.fixture
def sweep(run_dir, tmp_path):
    """The folder of a sweep whose first job has finished."""
    shutil.copytree(run_dir, tmp_path / "swept" / "0")
    return tmp_path / "swept"


@pytest.fixture
def config(run_dir):
    return config_of(run_dir)


def test_a_job_waits_for_one_that_trains_the_same_and_reuses_its_checkpoint(config, run_dir, tmp_path, monkeypatch):
    starts, waiting = [], threading.Event()

    class Output(io.StringIO):
        def write(self, text):
            if "waiting: another job of this sweep does the same training" in text:
                waiting.set()
            return super().write(text)

    def second():
        with reuse_training({**config, "scales": [4.0]}, Start(tmp_path / "1"), tmp_path, []) as start:
            starts.append(start)

    monkeypatch.setattr(sys, "stdout", Output())
    with reuse_training(config, Start(tmp_path / "0"), tmp_path, []) as start:
        assert not start.reused
        job = threading.Thread(target=second, daemon=True)
        job.start()
        assert waiting.wait(LIMIT)
        assert starts == []
        shutil.copytree(run_dir, tmp_path / "0")
    job.join(LIMIT)
    assert starts == [Start(tmp_path / "1", tmp_path / "0" / "checkpoints" / "last.ckpt", reused=True)]


def test_jobs_with_nothing_to_train_sample_at_the_same_time(config, sweep):
    with (
        reuse_training(config, Start(sweep / "1"), sweep, []) as one,
        reuse_training(config, Start(sweep / "2"), sweep, []) as other,
    ):
        assert one.reused
        assert other.reused


def test_the_checkpoint_of_the_same_training_is_found(config, sweep):
    assert find_trained_checkpoint(config, [sweep / "0"]) == sweep / "0" / "checkpoints" / "last.ckpt"
    assert find_trained_checkpoint({**config, "seed": 5}, [sweep / "0"]) is None


def test_the_old_checkpoint_of_a_run_that_was_killed_in_a_new_training_is_not_found(config, sweep):
    other = {**config, "seed": 5}
    OmegaConf.save(other, sweep / "0" / "config.yaml")
    assert find_trained_checkpoint(other, [sweep / "0"]) is None


def test_a_damaged_checkpoint_is_not_found(config, sweep):
    (sweep / "0" / "checkpoints" / "last.ckpt").write_bytes(b"half")
    assert find_trained_checkpoint(config, [sweep / "0"]) is None


def test_a_job_without_a_last_checkpoint_trains_for_itself(config, sweep):
    without = {**config, "callbacks": {"ema": config["callbacks"]["ema"]}}
    with reuse_training(without, Start(sweep / "1"), sweep, []) as start:
        assert not start.reused


def test_a_job_with_several_slurm_tasks_trains_for_itself(config, sweep, monkeypatch, capsys):
    monkeypatch.setenv("SLURM_NTASKS", "2")
    with reuse_training(config, Start(sweep / "1"), sweep, []) as start:
        assert not start.reused
    assert "this job trains for itself" in capsys.readouterr().out


def test_a_run_outside_of_a_sweep_trains_for_itself(config, sweep):
    with reuse_training(config, Start(sweep / "1"), None, [sweep / "0"]) as start:
        assert not start.reused
