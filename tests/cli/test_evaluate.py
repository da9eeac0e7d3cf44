import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric.loggers import tensorboard as fabric_tensorboard
from omegaconf import OmegaConf

import guided_diffusion
from guided_diffusion.cli.config import EvaluateConfig, use_recipe_of_training
from guided_diffusion.cli.evaluate import evaluate
from guided_diffusion.cli.restore import prepare
from guided_diffusion.data import Fake
from guided_diffusion.data.base import Batch
from guided_diffusion.evaluation.chunks import Chunks
from guided_diffusion.evaluation.judge import JudgeSource
from guided_diffusion.evaluation.results import COLUMNS, POINT_COLUMNS, read

FILES = {"command.txt", "config.yaml", "intervals.csv", "metrics.csv", "per_class.csv", "pictures.npz", "report.html"}
FILES |= {"results.csv", "results.json", "environment.json", "reproduce.sh"}
SMALL = ("num_samples=2", "judge.steps=2", "judge.width=8", "trainer.accelerator=cpu", "trainer.precision=32-true")


@pytest.fixture
def evaluated(compose, checkpoint, tmp_path):
    """Evaluate with these overrides in a new folder and return it."""
    count = iter(range(99))

    def folder(*overrides):
        overrides = (f"checkpoint={checkpoint}", *(overrides if "judge=both" in overrides else (*SMALL, *overrides)))
        config = compose(*overrides, program="evaluate", output_dir=tmp_path / str(next(count)))
        return evaluate(config, overrides)

    return folder


def table(folder):
    with (folder / "results.csv").open() as file:
        return list(csv.DictReader(file))


def without_seconds(folder):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in table(folder)]


def names(folder):
    return {path.name for path in folder.iterdir() if path.is_file()}


def test_the_program_leaves_a_table_plots_and_a_page_and_no_samples(call, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDED_DIFFUSION_CACHE", str(tmp_path / "cache"))
    called, folder = call("evaluate", f"checkpoint={checkpoint}", *SMALL, "hydra.run.dir=here"), tmp_path / "here"
    assert called.status == 0
    assert "judge JudgeNet: " in called.out
    assert called.out.splitlines()[-1] == f"The evaluation is in {folder}: open report.html"
    assert list((tmp_path / "cache" / "samples").iterdir()) == []
    assert names(folder) - {"hparams.yaml"} == FILES
    assert OmegaConf.load(folder / "config.yaml").sampler.steps == 2  # as in the training
    assert list(table(folder)[0]) == list(COLUMNS)
    assert [row["scale"] for row in table(folder)] == ["0", "1", "3"]  # those of the training
    assert {row["num_samples"] for row in table(folder)} == {"20"}
    assert [row["nfe"] for row in table(folder)] == ["2", "2", "4"]
    assert {row["method"] for row in table(folder)} == {"ClassifierFree"}
    assert len(list((folder / "plots").glob("*.png"))) == len(list((folder / "plots").glob("*.pdf"))) > 4
    assert "<input" in (folder / "report.html").read_text()


@pytest.mark.slow
def test_the_written_results_can_be_read(evaluated, capsys):
    folder = evaluated("judge=both", "judge.first.steps=2", "judge.second.steps=2", "num_samples=2")
    assert "cross_accuracy" in capsys.readouterr().out
    assert all(0 <= float(row["cross_accuracy"]) <= 1 for row in table(folder))
    results = read(folder)
    assert [row.scale for row in results.rows] == [0, 1, 3]
    assert results.about["judge"] == "JudgeNet"
    assert results.about["cross_check"]["name"] == "LeNet"
    for row in results.rows:
        assert row.measured["accuracy"].low <= row.measured["accuracy"].value <= row.measured["accuracy"].high
        assert 0 <= row.measured["cross_accuracy"].value <= 1
        assert row.pictures.confusion.sum() == 20
        assert [one["class_name"] for one in row.per_class] == [f"class {label}" for label in range(10)]
        assert row.pictures.strip.shape == (20, 1, 8, 8)
        right = row.pictures.predictions == np.arange(20) % 10
        assert right.mean() == pytest.approx(row.measured["accuracy"].value)
        assert row.pictures.probabilities.mean() == pytest.approx(row.measured["judge_probability"].value, rel=1e-5)


@pytest.mark.slow
def test_every_scale_and_method_starts_from_the_same_noise(evaluated, classifier):
    cfg = read(evaluated("scales=[0,1]"))
    other = read(evaluated("guidance=classifier", f"classifier={classifier}", "scales=[0]"))
    same, different = other.rows[0].pictures.strip, cfg.rows[1].pictures.strip
    torch.testing.assert_close(*map(torch.from_numpy, (cfg.rows[0].pictures.strip, same)), rtol=0, atol=1e-4)
    assert abs(same - different).max() > 1e-3


@pytest.mark.slow
def test_a_scale_on_the_command_line_is_the_one_that_is_measured(evaluated):
    assert [row["scale"] for row in table(evaluated("guidance.scale=2.5"))] == ["2.5"]
    assert [row["scale"] for row in table(evaluated("guidance.scale=2.5", "scales=null"))] == ["2.5"]


@pytest.mark.slow
def test_a_second_evaluation_gives_identical_results(evaluated):
    assert without_seconds(evaluated()) == without_seconds(evaluated())


@pytest.mark.slow
def test_the_metrics_of_an_earlier_evaluation_in_the_folder_are_replaced(call, checkpoint, tmp_path):
    for scales in ("1,2", "1,3"):
        assert call("evaluate", f"checkpoint={checkpoint}", *SMALL, f"scales=[{scales}]", "output_dir=here").status == 0
    with (tmp_path / "here" / "metrics.csv").open() as file:
        (logged,) = csv.DictReader(file)
    assert {"guidance/accuracy_w1", "guidance/accuracy_w3"} <= logged.keys()
    assert "guidance/accuracy_w2" not in logged


def test_a_logger_that_is_not_installed_is_refused_before_sampling(call, checkpoint, monkeypatch):
    monkeypatch.setattr(fabric_tensorboard, "_TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr(fabric_tensorboard, "_TENSORBOARDX_AVAILABLE", False)
    monkeypatch.setattr("guided_diffusion.cli.evaluate.draw", None)
    called = call("evaluate", f"checkpoint={checkpoint}", *SMALL, "logger=tensorboard")
    assert called.status == 1
    assert called.err.startswith("error: logger.tensorboard: TensorBoard is not installed")


@pytest.mark.slow
def test_an_evaluation_stopped_by_a_signal_is_resumed_by_the_same_command(call, checkpoint, monkeypatch, tmp_path):
    monkeypatch.setenv("GUIDED_DIFFUSION_CACHE", str(tmp_path / "cache"))
    sample = Chunks.predict_step

    def told(self, batch, batch_idx):
        signal.raise_signal(signal.SIGTERM) if batch.item() == 2 else None
        return sample(self, batch, batch_idx)

    arguments = [f"checkpoint={checkpoint}", *SMALL, "recipe.batch_size=20", "output_dir=here"]
    with monkeypatch.context() as patch:
        patch.setattr(Chunks, "predict_step", told)
        stopped = call("evaluate", *arguments)
    assert stopped.status == 143
    assert "stopped by a signal; what has been sampled is kept: the same command goes on from there" in stopped.err
    assert not (tmp_path / "here").exists()
    again = call("evaluate", *arguments)
    assert again.status == 0
    assert "2 of 3 chunks of samples are there from before" in again.out


@pytest.mark.slow
def test_a_killed_evaluation_started_again_gives_the_same_table(checkpoint, tmp_path, request):
    """It is killed by SIGKILL once some chunks are there, and compared with another run.

    Each has a cache of its own: with a common one they would share their chunks.
    """
    # Chunks of three samples, so that there are many.
    command = [sys.executable, "-m", "guided_diffusion.evaluate", f"checkpoint={checkpoint}", *SMALL]
    command += ["recipe.batch_size=3", "sampler.steps=20", "scales=[0,1,2,3]"]

    def run(folder, cache):
        environment = os.environ | {
            "PYTHONPATH": str(Path(guided_diffusion.__file__).parent.parent),
            "GUIDED_DIFFUSION_CACHE": str(tmp_path / cache),
        }
        process = subprocess.Popen(
            [*command, f"output_dir={folder}"], cwd=tmp_path, env=environment, stdout=-1, stderr=-3, text=True
        )
        request.addfinalizer(process.kill)
        return process

    whole = run("whole", cache="another")
    killed = run("killed", cache="cache")
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "cache").glob("samples/*/chunk_*.pt"))) < 2:
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert list((tmp_path / "cache").glob("samples/*/chunk_*.pt"))
    again = run("again", cache="cache")
    out, _ = again.communicate(timeout=120)
    assert again.returncode == 0
    assert "chunks of samples are there from before" in out
    whole.communicate(timeout=120)
    assert whole.returncode == 0
    assert without_seconds(tmp_path / "again") == without_seconds(tmp_path / "whole")


@pytest.mark.slow
def test_labels_are_drawn_in_the_proportions_of_the_data_or_equally(evaluated, monkeypatch, capsys):
    """The test split has 40 images of class 0, 24 of class 1, and none of the other eight."""
    load = Fake.load

    def uneven(self, train):
        images, labels = load(self, train)
        return Batch(images, labels if train else torch.tensor([0] * 40 + [1] * 24))

    monkeypatch.setattr(Fake, "load", uneven)
    proportional = evaluated("scales=[1]", "num_samples=4")
    drawn = "Classes are drawn in the proportions of the test data."
    extra = "32 more samples of rare classes count in the measures of these classes only."
    assert f"{drawn}\n{extra}\n" in capsys.readouterr().out
    assert f"{drawn} {extra}" in (proportional / "report.html").read_text()
    assert OmegaConf.load(proportional / "config.yaml").labels == "proportional"
    equal = evaluated("scales=[1]", "num_samples=4", "labels=equal")
    for folder, labels, counts in ((proportional, "proportional", [25, 15] + [4] * 8), (equal, "equal", [4] * 10)):
        (row,) = table(folder)
        assert (row["labels"], row["num_samples"]) == (labels, "40")
        with (folder / "per_class.csv").open() as file:
            classes = list(csv.DictReader(file))
        assert [int(one["count"]) for one in classes] == counts
        assert all(0 <= float(one["accuracy_low"]) < float(one["accuracy_high"]) <= 1 for one in classes)
        assert read(folder).rows[0].labels == labels


# Sweeps


@pytest.mark.slow
def test_a_sweep_ends_in_one_table_and_one_page(call, checkpoint, classifier, tmp_path):
    varied = ["guidance=cfg,classifier", "guidance.scale=0,2", "seed=0,1"]
    called = call("evaluate", "-m", f"checkpoint={checkpoint}", f"classifier={classifier}", *SMALL, *varied)
    assert called.status == 0, called.err
    (sweep,) = (tmp_path / "outputs" / "evaluations").iterdir()
    rows = table(sweep)
    assert list(rows[0]) == [*COLUMNS, "seed"]
    assert {(row["method"], row["scale"], row["seed"]) for row in rows} == {
        (method, scale, seed)
        for method in ("ClassifierFree", "ClassifierGuidance")
        for scale in ("0", "2")
        for seed in ("0", "1")
    }
    assert (sweep / "report.html").is_file()
    assert len(read(sweep).rows) == 8
    assert called.out.splitlines()[-1].startswith(f"8 rows of 8 jobs are in {sweep / 'results.csv'}: open ")


@pytest.mark.slow
def test_a_sweep_over_all_guidances_leaves_out_what_does_not_suit(call, checkpoint, tmp_path):
    few = ("scales=[2]", "num_samples=1", "judge.steps=2", "judge.width=8", "trainer.accelerator=cpu")
    called = call("evaluate", f"checkpoint={checkpoint}", *few, "guidance=glob(cfg*)", "-m", "hydra.sweep.dir=all")
    assert called.status == 0, called.err
    (skipped,) = [line for line in called.out.splitlines() if line.startswith("skipped ")]
    assert skipped.startswith("skipped guidance=cfg_classifier: guidance.classifier is missing")
    assert "ClassifierFree" in {row["method"] for row in table(tmp_path / "all")}
    assert not (tmp_path / "all" / "failed.txt").exists()
    assert "failed" not in called.out
    after_table = called.out.partition("rows of")[2].splitlines()[1:]
    assert after_table == ["left out, because they don't suit the model:", skipped.removeprefix("skipped ")]
    assert skipped.removeprefix("skipped ")[:40] in (tmp_path / "all" / "report.html").read_text()


@pytest.mark.slow
def test_a_sweep_names_its_failed_job_and_gathers_the_others(call, checkpoint, tmp_path):
    called = call("evaluate", "-m", f"checkpoint={checkpoint}", *SMALL, "guidance.scale=0,nan,2")
    assert called.status == 1
    (sweep,) = (tmp_path / "outputs" / "evaluations").iterdir()
    assert [row["scale"] for row in table(sweep)] == ["0", "2"]
    assert "job 1: error: " in called.out
    assert "these jobs failed:" in called.out
    assert (sweep / "failed.txt").read_text().startswith("1: ")
    assert "guidance.scale=nan" in (sweep / "report.html").read_text()
    assert not list(sweep.glob(".*"))


@pytest.mark.slow
def test_a_sweep_of_trainings_is_gathered_too(call, tiny, tmp_path):
    called = call("train", "-m", *tiny, "name=swept", "label_dropout=0.1,0.5")
    assert called.status == 0
    (sweep,) = (tmp_path / "outputs" / "swept").iterdir()
    with (sweep / "accuracy_by_scale.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["scale", "accuracy", "num_samples", "judge_ceiling", "label_dropout"]
    assert [(row["scale"], row["label_dropout"]) for row in rows] == [
        (scale, dropout) for dropout in ("0.1", "0.5") for scale in ("0", "1", "3")
    ]
    assert (sweep / "accuracy_by_scale.png").is_file()


# Points


@pytest.mark.slow
def test_points_are_measured_without_a_judge(call, points_run, tmp_path):
    checkpoint = points_run / "checkpoints" / "last.ckpt"
    called = call(
        "evaluate", f"checkpoint={checkpoint}", "scales=[0,2]", "num_samples=20", "hydra.run.dir=here", "logger=wandb"
    )
    assert called.status == 0, called.err
    folder = tmp_path / "here"
    rows = table(folder)
    assert list(rows[0]) == list(POINT_COLUMNS)
    assert [(row["scale"], row["num_samples"]) for row in rows] == [("0", "60"), ("2", "60")]
    assert "training a judge" not in called.out
    pngs = {path.name for path in (folder / "plots").glob("*.png")}
    assert {"off_curve.png", "distance.png", "sliced_wasserstein.png", "total_variation.png"} <= pngs
    page = (folder / "report.html").read_text()
    assert page.count("data-scale=") == 2
    assert "off the curve" in page
    with (folder / "per_class.csv").open() as file:
        classes = list(csv.DictReader(file))
    assert sum(float(row["share"]) for row in classes[:3]) == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_the_written_results_of_points_can_be_read(compose, points_run, tmp_path):
    overrides = (f"checkpoint={points_run / 'checkpoints' / 'last.ckpt'}", "num_samples=5", "scales=[1]")
    found = read(evaluate(compose(*overrides, program="evaluate", output_dir=tmp_path), overrides))
    (row,) = found.rows
    assert (found.kind, row.kind) == ("points", "points")
    assert row.pictures.points.shape == (3, 5, 2)
    assert set(row.floors) <= set(row.measured)
    assert row.row["off_curve_floor"] == row.floors["off_curve"]


def test_an_unwritable_cache_is_reported_before_sampling(call, checkpoint, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GUIDED_DIFFUSION_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("guided_diffusion.cli.evaluate.draw", None)
    called = call("evaluate", f"checkpoint={checkpoint}", *SMALL, "output_dir=here")
    assert called.status == 1
    assert called.err.startswith(f"error: the cache (GUIDED_DIFFUSION_CACHE): {tmp_path}/file/cache can't be written: ")
    assert not (tmp_path / "here").exists()


def test_a_judge_of_other_data_is_refused_before_sampling(call, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDED_DIFFUSION_CACHE", str(tmp_path / "cache"))
    JudgeSource(steps=2, width=8)(Fake(8, 8, channels=2, image_size=[12, 20]))
    (judge,) = (tmp_path / "cache").glob("judge-fake-*.pt")
    monkeypatch.setattr("guided_diffusion.cli.evaluate.draw", None)
    small = [one for one in SMALL if not one.startswith("judge.")]
    called = call("evaluate", f"checkpoint={checkpoint}", *small, f"judge.checkpoint={judge}", "output_dir=here")
    assert (called.status, len(called.err.splitlines())) == (1, 1)
    assert "holds no judge for fake (1x8x8, 10 classes)" in called.err


@pytest.mark.slow
def test_a_failure_to_draw_keeps_the_results_and_says_so(call, checkpoint, tmp_path, monkeypatch):
    def fail(*arguments):
        raise TypeError("Invalid shape")

    monkeypatch.setattr("guided_diffusion.cli.evaluate.write_report", fail)
    called = call("evaluate", f"checkpoint={checkpoint}", *SMALL, "output_dir=here")
    line = called.err.splitlines()[-1]
    assert line.startswith("error: TypeError: Invalid shape; the page is missing, all numbers are in ")
    assert (called.status, len(read(tmp_path / "here").rows)) == (1, 3)
    assert [row["scale"] for row in table(tmp_path / "here")] == ["0", "1", "3"]


@pytest.mark.slow
def test_a_failure_to_measure_keeps_the_samples(call, checkpoint, monkeypatch):
    called_with = (f"checkpoint={checkpoint}", *SMALL, "output_dir=here", "seed=17")
    with monkeypatch.context() as patch:
        patch.setattr("guided_diffusion.evaluation.modalities.images.measure", None)
        called = call("evaluate", *called_with)
    assert called.status == 1
    assert called.err.splitlines()[-1].endswith("; the samples are kept, and the same command goes on from there")
    monkeypatch.setattr(Chunks, "_sample", None)
    again = call("evaluate", *called_with)
    assert again.status == 0
    assert "1 of 1 chunks of samples are there from before" in again.out


def test_inception_of_grey_images_is_refused_before_sampling(call, checkpoint, monkeypatch, tmp_path):
    monkeypatch.setattr("guided_diffusion.cli.evaluate.draw", None)
    called = call("evaluate", f"checkpoint={checkpoint}", *SMALL, "inception=true", "output_dir=here")
    assert called.status == 1
    assert called.err == "error: inception measures RGB images only, and fake has grey images: leave it out\n"
    assert not (tmp_path / "here").exists()


@pytest.mark.slow
def test_inception_distances_are_measured_printed_and_written(fit, call, inception_file, monkeypatch, tmp_path):
    from guided_diffusion.training.callbacks import LastCheckpoint

    fit("data.channels=3", "data.num_test=30", callbacks=[LastCheckpoint(str(tmp_path))])
    arguments = [f"checkpoint={tmp_path / 'last.ckpt'}", *SMALL, "scales=[1]", "weights=raw", "output_dir=here"]
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    missing = call("evaluate", *arguments, "inception=true")
    assert missing.status == 1
    assert missing.err.startswith(f"error: inception: there is no file {tmp_path / 'hub'}")
    assert not (tmp_path / "here").exists()
    called = call("evaluate", *arguments, f"inception={inception_file}")
    assert called.status == 0, called.err
    assert "compare 20 samples (raw weights) with the 30 images of the test split" in called.out
    (row,) = table(tmp_path / "here")
    assert (row["num_samples"], row["reference_samples"], row["reference_split"]) == ("20", "30", "test")
    assert (row["weights"], row["inception_network"]) == ("raw", "other")
    assert float(row["inception_fid"]) > float(row["inception_fid_floor"]) > 0
    assert float(row["inception_kid_low"]) < float(row["inception_kid"]) < float(row["inception_kid_high"])
    (read_row,) = read(tmp_path / "here").rows
    assert f"{read_row.measured['inception_fid'].value:.6g}" == row["inception_fid"]
    assert "Inception FID and KID compare 20 samples" in (tmp_path / "here" / "report.html").read_text()


@pytest.mark.parametrize(
    ("own", "expected"),
    [([], ("resnet", 7, 32)), (["judge.width=16"], ("resnet", 7, 16)), (["judge=lenet"], ("lenet", 800, 16))],
)
def test_the_judge_is_that_of_the_training_unless_the_command_line_chooses_one(own, expected, compose):
    trained = OmegaConf.to_container(compose("judge=resnet", "judge.steps=7"))
    config = compose(*own, program="evaluate")
    use_recipe_of_training(config, trained, own)
    assert (config.judge.architecture, config.judge.steps, config.judge.width) == expected


def test_a_checkpoint_can_not_run_code_through_its_judge(compose, run_dir, tmp_path):
    content = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    content["guided_diffusion"]["config"]["judge"] = {"_target_": "no_package.run", "command": "touch here"}
    torch.save(content, tmp_path / "last.ckpt")
    own = [f"checkpoint={tmp_path / 'last.ckpt'}"]
    config = compose(*own, program="evaluate", output_dir=tmp_path / "evaluated")
    with pytest.raises(ValueError, match=r"wants to run no_package\.run, which is no part"):
        prepare(config, own, EvaluateConfig)
