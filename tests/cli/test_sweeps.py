"""Jobs of a sweep that differ only in settings without effect on the weights train once; sweeps end in one page."""

import csv
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from guided_diffusion.training.resume.find_run import FINISHED
from guided_diffusion.training.resume.sweep_reuse import WEIGHTS_FROM


@pytest.fixture
def minimal(unscaled):
    """The overrides of the tiny training without its scales and without the callbacks that sample."""
    return [*(override for override in unscaled if not override.startswith("callbacks.")), "callbacks=minimal"]


def plain(config):
    return OmegaConf.to_container(config, resolve=True)


def weights(run):
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return {**saved["state_dict"], **{f"raw.{name}": value for name, value in saved["current_model_state"].items()}}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


# A sweep


@pytest.mark.slow
def test_jobs_of_the_same_training_train_once_and_sample_each(call, unscaled, tmp_path):
    called = call("train", *unscaled, "hydra.sweep.dir=swept", "-m", "guidance.scale=0,3", "sampler=ddim,ddpm")
    assert called.status == 0
    jobs = [tmp_path / "swept" / str(number) for number in range(4)]
    assert called.out.count("nothing to train: ") == 3
    for job in jobs[1:]:
        source = Path((job / WEIGHTS_FROM).read_text().strip())
        assert f"nothing to train: {source} is of the same training\n" in called.out
        assert source.parent.parent == jobs[0]
        assert same(weights(job), weights(jobs[0]))
    assert not (jobs[0] / WEIGHTS_FROM).exists()
    assert [[row["scale"] for row in rows(job / "accuracy_by_scale.csv")] for job in jobs] == [
        ["0"],
        ["0"],
        ["3"],
        ["3"],
    ]
    for job, sampler in zip(jobs, ("ddim", "ddpm") * 2, strict=True):
        assert OmegaConf.load(job / "config.yaml").sampler.method._target_.endswith(f".{sampler}")
        saved = torch.load(job / "checkpoints" / "last.ckpt", weights_only=True)
        assert saved["guided_diffusion"]["config"]["output_dir"] == str(job)
        assert (job / FINISHED).is_file()
        assert len(list(job.glob("samples/*.png"))) == 1
    assert not list((tmp_path / "swept").glob(".*"))
    gathered = rows(tmp_path / "swept" / "accuracy_by_scale.csv")
    assert [(row["scale"], row["sampler"]) for row in gathered] == [
        (scale, sampler) for scale in "03" for sampler in ("ddim", "ddpm")
    ]


@pytest.mark.slow
def test_different_trainings_are_not_shared(call, minimal, tmp_path):
    called = call("train", *minimal, "hydra.sweep.dir=swept", "-m", "seed=0,1", "guidance.scale=1,2")
    assert called.status == 0
    trained = [not (tmp_path / "swept" / job / WEIGHTS_FROM).exists() for job in "0123"]
    assert trained == [True, False, True, False]
    assert not same(weights(tmp_path / "swept" / "1"), weights(tmp_path / "swept" / "3"))


@pytest.mark.slow
def test_a_job_that_reused_a_training_can_be_resumed(call, unscaled, tmp_path):
    """The folder of a job that reused a training is a run like any other."""
    assert call("train", *unscaled, "hydra.sweep.dir=swept", "-m", "guidance.scale=0,3").status == 0
    called = call("train", *unscaled, "guidance.scale=3", "resume=swept/1")
    assert called.status == 0
    assert f"resume: {tmp_path / 'swept' / '1'} has finished: there is nothing left to train" in called.out


@pytest.mark.slow
def test_a_resumed_sweep_reuses_finished_runs(call, unscaled, tmp_path):
    assert call("train", *unscaled, "name=swept", "-m", "guidance.scale=0").status == 0
    called = call("train", *unscaled, "name=swept", "resume=auto", "-m", "guidance.scale=0,3")
    assert called.status == 0
    assert "0 has finished: there is nothing left to train" in called.out
    assert called.out.count("nothing to train: ") == 1
    second = next(path.parent for path in tmp_path.glob("outputs/swept/*/1/config.yaml"))
    assert (second / WEIGHTS_FROM).is_file()
    assert not any(row.get("train/loss") for row in rows(second / "metrics.csv"))


@pytest.mark.slow
def test_single_runs_reuse_no_training(call, minimal, tmp_path):
    for scale in (0, 3):
        assert call("train", *minimal, "name=alone", f"guidance.scale={scale}").status == 0
    assert not list(tmp_path.rglob(WEIGHTS_FROM))


@pytest.mark.slow
def test_a_repeated_sweep_in_the_same_folder_trains_again(call, minimal, tmp_path):
    sweep = ["train", *minimal, "hydra.sweep.dir=swept", "-m", "guidance.scale=0,3"]
    assert call(*sweep).status == 0
    before = weights(tmp_path / "swept" / "0")
    called = call(*sweep, "seed=1")
    assert called.out.count("nothing to train: ") == 1
    assert not (tmp_path / "swept" / "0" / WEIGHTS_FROM).exists()
    assert not same(weights(tmp_path / "swept" / "0"), before)
    assert same(weights(tmp_path / "swept" / "1"), weights(tmp_path / "swept" / "0"))
    assert call(*sweep, "seed=1").out.count("nothing to train: ") == 1  # again, as its code may be another now


@pytest.mark.slow
def test_after_a_failed_training_the_next_job_trains(call, unscaled, tmp_path):
    called = call("train", *unscaled, "hydra.sweep.dir=swept", "-m", "guidance.scale=nan,3,2")
    assert called.status == 1
    assert not (tmp_path / "swept" / "1" / WEIGHTS_FROM).exists()
    assert (tmp_path / "swept" / "2" / WEIGHTS_FROM).exists()
    page = (tmp_path / "swept" / "report.html").read_text()
    assert "<h2>Failed jobs</h2>" in page
    assert "guidance.scale=nan" in page


# The page


@pytest.mark.slow
def test_a_sweep_of_trainings_ends_in_a_page(call, tiny, tmp_path):
    called = call("train", *tiny, "hydra.sweep.dir=swept", "-m", "label_dropout=0.1,0.5")
    assert called.out.splitlines()[-1].endswith(f": open {tmp_path / 'swept' / 'report.html'}")
    page = (tmp_path / "swept" / "report.html").read_text()
    assert page.count("data:image/") == 3  # the plot, and the samples of each job
    assert page.count("<tr>") == 7  # two jobs at three scales, below the heads
    assert "label dropout</th>" in page
    assert "guided_diffusion.train -m" in page
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.slow
def test_guidance_scale_on_the_command_line_replaces_the_scales(call, unscaled, tmp_path):
    assert call("train", *unscaled, "output_dir=one", "guidance.scale=4").status == 0
    assert [row["scale"] for row in rows(tmp_path / "one" / "accuracy_by_scale.csv")] == ["4"]
