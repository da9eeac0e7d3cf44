import csv
import shlex
import shutil
import signal
import sys

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from guided_diffusion.checkpoints.loading import load
from guided_diffusion.cli.sample import sample
from guided_diffusion.cli.train import train
from guided_diffusion.evaluation.results import read
from guided_diffusion.training.callbacks import MeasureByScale
from guided_diffusion.utils.overrides import hydra_override

FILES = {
    "accuracy_by_scale.csv",
    "accuracy_by_scale.png",
    "checkpoints/best.ckpt",
    "checkpoints/last.ckpt",
    "command.txt",
    "config.yaml",
    "finished.txt",
    "environment.json",
    "hparams.yaml",
    "metrics.csv",
    "reproduce.sh",
    "samples/step_000004.png",
}


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def weights(folder):
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return torch.cat([tensor.flatten() for tensor in saved["current_model_state"].values()])


def test_a_run_leaves_these_files_and_no_others(run_dir):
    assert files(run_dir) == FILES


@pytest.mark.slow
def test_the_saved_config_is_resolved_and_trains_the_same_weights(run_dir, tmp_path):
    config = OmegaConf.load(run_dir / "config.yaml")
    assert "${" not in (run_dir / "config.yaml").read_text()
    assert config.module.lr_scheduler.total_steps == 4
    again = OmegaConf.create(
        (run_dir / "config.yaml").read_text().replace(str(run_dir), str(tmp_path))  # a folder of its own
    )
    train(again)
    assert torch.equal(weights(tmp_path), weights(run_dir))


@pytest.mark.slow
def test_the_seed_decides_the_weights(run_dir, compose, minimal, tmp_path):
    for seed in (0, 1):
        train(compose(*minimal, f"seed={seed}", output_dir=tmp_path / str(seed)))
    assert torch.equal(weights(tmp_path / "0"), weights(run_dir))
    assert not torch.equal(weights(tmp_path / "1"), weights(run_dir))


@pytest.mark.slow
def test_the_seed_decides_the_initial_weights(compose, minimal, tmp_path):
    def initial(seed):
        torch.manual_seed(torch.seed())  # what others have drawn does not matter
        train(compose(*minimal, f"seed={seed}", "module.optimizer.lr=1e-30", output_dir=tmp_path))
        return weights(tmp_path)

    assert torch.equal(initial(0), initial(0))
    assert not torch.equal(initial(0), initial(1))


def test_metrics_are_named_by_stage_and_quantity(run_dir):
    table = rows(run_dir / "metrics.csv")
    names = {name for row in table for name, value in row.items() if value}
    assert {"train/loss", "val/loss", "train/learning_rate", "step", "epoch"} <= names
    assert {f"val/loss_t_{band}" for band in ("0.00_0.25", "0.25_0.50", "0.50_0.75", "0.75_1.00")} <= names
    assert {f"guidance/accuracy_w{scale}" for scale in (0, 1, 3)} <= names
    assert [row["step"] for row in table if row["train/loss"]] == ["0", "1", "2", "3"]
    assert [row["step"] for row in table if row["val/loss"]] == ["1", "3"]


def test_accuracy_is_given_for_every_scale(run_dir):
    table = rows(run_dir / "accuracy_by_scale.csv")
    assert list(table[0]) == ["scale", "accuracy", "num_samples", "judge_ceiling"]
    assert [row["scale"] for row in table] == ["0", "1", "3"]
    for row in table:
        assert 0 <= float(row["accuracy"]) <= 1
        assert row["num_samples"] == "20"


def test_the_pictures_can_be_opened(run_dir):
    for picture in ("accuracy_by_scale.png", "samples/step_000004.png"):
        pixels = np.asarray(Image.open(run_dir / picture).convert("L"))
        assert min(pixels.shape) > 100
        assert len(np.unique(pixels)) > 10


@pytest.mark.parametrize(
    ("override", "message", "remedy"),
    [
        ("label_dropout=0", "scales: at 0, 3 samples need predictions without a label", "scales=[1]"),
        pytest.param(
            "label_dropout=1",
            "scales: at 1, 3 samples need predictions with a label",
            "untaught_scales=true",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_scales_that_label_dropout_does_not_teach_are_refused_without_untaught_scales(
    override, message, remedy, compose, minimal, tmp_path
):
    with pytest.raises(ValueError, match=message):
        train(compose(*minimal, override, output_dir=tmp_path / "refused"))
    assert not (tmp_path / "refused").exists()
    assert train(compose(*minimal, override, remedy, output_dir=tmp_path / "allowed")).is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_half_precision_trains_samples_and_judges(channels, compose, tiny, tmp_path):
    half = ["trainer.precision=bf16-mixed", f"data.channels={channels}"]
    train(compose(*tiny, *half, output_dir=tmp_path))
    assert files(tmp_path) == FILES
    parameters = load(tmp_path / "checkpoints" / "last.ckpt").denoiser.parameters()
    assert {parameter.dtype for parameter in parameters} == {torch.float32}


def test_the_last_lines_name_the_folder_and_the_next_command(call, minimal, tmp_path):
    called = call("train", *minimal, "name=short")
    assert called.status == 0
    (run,) = (tmp_path / "outputs" / "short").iterdir()
    *_, everything, following = called.out.splitlines()
    assert everything == f"Everything of this run is in {run}"
    assert following.startswith(f"Next: python -m guided_diffusion.sample checkpoint={run}/checkpoints/last.ckpt ")
    assert float(following.rpartition("guidance.scale=")[2]) in OmegaConf.load(run / "config.yaml").scales
    assert (run / "command.txt").read_text() == (
        f"python -m guided_diffusion.train {shlex.join([*minimal, 'name=short'])}\n"
    )


@pytest.mark.slow
def test_a_sweep_gives_every_job_a_folder_of_its_own(call, unscaled, tmp_path):
    called = call("train", "-m", *unscaled, "name=swept", "guidance.scale=0,3")
    assert called.status == 0
    (sweep,) = (tmp_path / "outputs" / "swept").iterdir()
    gathered = ["accuracy_by_scale.csv", "accuracy_by_scale.png", "multirun.yaml", "report.html"]
    assert sorted(path.name for path in sweep.iterdir()) == ["0", "1", *gathered]
    assert files(sweep / "0") == FILES
    assert files(sweep / "1") == FILES - {"checkpoints/best.ckpt"} | {"weights_from.txt"}
    for job, scale in (("0", 0), ("1", 3)):
        assert OmegaConf.load(sweep / job / "config.yaml").callbacks.accuracy.recipe.guidance.scale == scale
        assert str(sweep / job) in called.out


@pytest.mark.slow
def test_the_other_jobs_of_a_sweep_go_on_after_a_failed_one(call, minimal, tmp_path):
    called = call("train", "-m", *minimal, "name=swept", "label_dropout=0.1,1.5,0.2")
    assert called.status == 1
    assert "job 1: error: label_dropout must be in [0, 1], got 1.5" in called.out
    (sweep,) = (tmp_path / "outputs" / "swept").iterdir()
    assert (sweep / "0" / "checkpoints" / "last.ckpt").is_file()
    assert not (sweep / "1").exists()
    assert (sweep / "2" / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.slow
def test_the_next_command_works_in_a_shell(minimal, shell, tmp_path):
    trained = shell("-m", "guided_diffusion.train", *minimal)
    assert trained.returncode == 0
    assert "Traceback" not in trained.stderr
    assert "Trainer.fit" not in trained.stderr  # Lightning tells of things that are as they should be
    following = shlex.split(trained.stdout.splitlines()[-1].removeprefix("Next: "))
    assert following[0] == "python"
    sampled = shell(*following[1:])
    assert sampled.returncode == 0
    assert sampled.stderr == ""
    (samples,) = (tmp_path / "outputs" / "samples").iterdir()
    assert files(samples) == {"config.yaml", "environment.json", "reproduce.sh", "samples.npz", "samples.png"}
    with np.load(samples / "samples.npz") as arrays:
        assert arrays["labels"].tolist() == [label for label in range(10) for _ in range(8)]


@pytest.mark.slow
def test_the_next_command_works_in_a_folder_of_any_name(minimal, shell, tmp_path):
    """The printed command is quoted for the shell and for Hydra."""
    folder = """lr=0.1, [a] {b} 'c' "d" $e #f (g) Größe \\"""
    trained = shell("-m", "guided_diffusion.train", *minimal, hydra_override("output_dir", folder))
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / folder / "checkpoints" / "last.ckpt").is_file()
    sampled = shell("bash", "-c", trained.stdout.splitlines()[-1].removeprefix("Next: "))
    assert sampled.returncode == 0, sampled.stderr
    assert list(tmp_path.glob("outputs/samples/*/samples.png"))
    again = shell("bash", tmp_path / folder / "reproduce.sh", "output_dir=again")
    assert again.returncode == 0, again.stderr


@pytest.fixture
def stopped_at_the_end(call, tiny, monkeypatch):
    """Send this signal to a training while it samples at its end; return the arguments that it says to resume with."""

    def stopped(number, *overrides):
        with monkeypatch.context() as patch:
            patch.setattr(MeasureByScale, "sample", lambda *arguments: signal.raise_signal(number))
            called = call("train", *tiny, *overrides)
        assert called.status == 143
        return shlex.split(called.err.splitlines()[-1].partition("to go on: ")[2])[3:]

    return stopped


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_stopped_while_sampling_at_its_end_can_be_resumed(number, stopped_at_the_end, call, tiny, tmp_path):
    again = stopped_at_the_end(number, "resume=null", "output_dir=here")
    assert again == [*tiny, "output_dir=here", "resume=auto"]
    assert not (tmp_path / "here" / "accuracy_by_scale.csv").exists()
    assert call("train", *again).status == 0
    assert len(rows(tmp_path / "here" / "accuracy_by_scale.csv")) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["elsewhere", "else, where=1"])
def test_a_resumed_run_that_is_stopped_again_names_its_own_folder(name, stopped_at_the_end, call, tiny, tmp_path):
    stopped_at_the_end(signal.SIGTERM, hydra_override("output_dir", name))
    again = stopped_at_the_end(signal.SIGTERM, hydra_override("resume", name))
    assert again == [*tiny, hydra_override("resume", tmp_path / name)]
    assert call("train", *again).status == 0
    assert (tmp_path / name / "finished.txt").is_file()


# Points


def test_a_run_on_points_leaves_the_same_files_with_distances_instead_of_accuracy(points_run):
    expected = {name.replace("accuracy", "distance") for name in FILES}
    assert files(points_run) == expected
    table = rows(points_run / "distance_by_scale.csv")
    assert list(table[0]) == ["scale", "distance_mean", "distance_p95", "off_curve", "num_samples", "off_curve_floor"]
    assert [(row["scale"], row["num_samples"]) for row in table] == [("0", "9"), ("1", "9"), ("3", "9")]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["network=unet_8"], "guided_diffusion.networks.UNet is not for points"),
        (["callbacks=default"], "the data are points: add callbacks=patterns"),
        pytest.param(["data.patterns=[helix]"], "patterns must be among spiral", marks=pytest.mark.slow),
        pytest.param(["data.noise=3"], "noise must be in [0, 0.1], got 3", marks=pytest.mark.slow),
    ],
)
def test_options_that_do_not_suit_points_are_refused_on_one_line(overrides, message, call, tmp_path):
    called = call("train", "+experiment=cfg_patterns", "trainer.max_steps=1", *overrides, "hydra.run.dir=here")
    assert called.status == 1
    line = called.err.splitlines()[-1]
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.slow
def test_a_classifier_of_points_guides(points_run, compose, tiny_points, tmp_path):
    guide = f"callbacks.guide={points_run / 'checkpoints' / 'last.ckpt'}"
    train(compose("+experiment=classifier_patterns", *tiny_points, guide, output_dir=tmp_path))
    assert {"accuracy_by_noise.csv", "distance_by_scale.csv", "samples/step_000004.png"} <= files(tmp_path)


# Classifiers


def test_a_classifier_leaves_the_same_files_and_its_accuracy_by_noise(classifier_run):
    assert files(classifier_run) == FILES | {"accuracy_by_noise.csv"}


@pytest.mark.slow
def test_without_a_guide_a_classifier_leaves_no_samples(call, classifier_overrides, tiny, tmp_path):
    called = call("train", *tiny, *classifier_overrides, "hydra.run.dir=here")
    assert called.status == 0
    sampled = {"samples/step_000004.png", "accuracy_by_scale.csv", "accuracy_by_scale.png"}
    assert files(tmp_path / "here") == FILES - sampled | {"accuracy_by_noise.csv"}
    last = tmp_path / "here" / "checkpoints" / "last.ckpt"
    assert called.out.splitlines()[-1] == (
        "Next: python -m guided_diffusion.sample checkpoint=DIFFUSION guidance=classifier "
        f"guidance.classifier={last} compare=true"
    )


@pytest.mark.slow
def test_a_training_can_sample_with_a_classifier(compose, tiny, classifier_run, tmp_path):
    path = classifier_run / "checkpoints" / "last.ckpt"
    train(compose(*tiny, "guidance=classifier", f"guidance.classifier={path}", output_dir=tmp_path))
    assert files(tmp_path) == FILES


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["guidance=classifier"], "guidance.classifier is missing: add guidance.classifier=PATH"),
        pytest.param(
            ["guidance=cfg_classifier"],
            "guidance.classifier is missing: add guidance.classifier=PATH",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["guidance=classifier", "guidance.classifier={diffusion}"],
            "is the checkpoint of a diffusion model, not of",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["guidance=classifier", "guidance.classifier={classifier}", "data.channels=3"],
            "shape of images",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["{classify}", "callbacks.guide={classifier}"],
            "is the checkpoint of a time-aware classifier, not of",
            marks=pytest.mark.slow,
        ),
        (["{classify}", "callbacks.guide={diffusion}", "schedule=linear_beta"], "schedule of the first: LinearBeta"),
        (["{classify}", "callbacks.guide={diffusion}", "guidance=cfg"], "add guidance=classifier"),
        pytest.param(
            ["{classify}", "callbacks.guide=nowhere.ckpt"], "there is no checkpoint at", marks=pytest.mark.slow
        ),
        pytest.param(
            ["{classify}", "guidance.base=both"],
            "base must be unconditional or conditional, got 'both'",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_models_that_do_not_fit_together_are_refused_before_training(
    overrides, message, refused, tiny, classifier_overrides, checkpoint, classifier
):
    names = {"diffusion": checkpoint, "classifier": classifier}
    formatted = [
        part
        for override in overrides
        for part in (classifier_overrides if override == "{classify}" else [override.format(**names)])
    ]
    assert message in refused("train", *tiny, *formatted, "hydra.run.dir=here")


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "is_fast"), [("ddp_spawn", False), ("ddp", False), ("ddp", True)])
def test_two_processes_leave_the_same_files_as_one(strategy, is_fast, tiny, fast_recipe, shell, tmp_path):
    """Two processes with half the batch each; their gradients are averaged."""
    recipe = fast_recipe if is_fast else ()
    command = [*tiny, *recipe, f"strategy={strategy}", "trainer.devices=2", "hydra.run.dir=here"]
    trained = shell("-m", "guided_diffusion.train", *command)
    assert trained.returncode == 0, trained.stderr
    assert files(tmp_path / "here") == FILES
    assert trained.stdout.count("Next: ") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert (tmp_path / "here" / "command.txt").read_text() == (
        f"python -m guided_diffusion.train {shlex.join(command)}\n"
    )
    assert load(tmp_path / "here" / "checkpoints" / "last.ckpt").num_classes == 10


@pytest.mark.slow
def test_an_unwritable_cache_is_reported_before_the_training(call, tiny, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GUIDED_DIFFUSION_CACHE", str(tmp_path / "file" / "cache"))
    called = call("train", *tiny, "output_dir=here")
    assert (called.status, len(called.err.splitlines())) == (1, 1)
    assert "the cache (GUIDED_DIFFUSION_CACHE)" in called.err
    assert not (tmp_path / "here").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("trainer.devices=99", "trainer.devices=99 starts as many processes on "),
        ("trainer.devices=0", "trainer: `Trainer(devices=0)` value is not a valid input"),
        ("trainer.accelerator=tpu", "trainer.accelerator=tpu: torch_xla is not installed; use cpu or auto"),
        ("trainer.accelerator=quantum", "trainer: You selected an invalid accelerator name"),
        ("trainer.strategy=fsdp", "trainer: "),
        ("+trainer.limit_val_batches=-1", "invalid value -1 for limit_val_batches"),
        ("+trainer.limit_train_batches=0", "trainer.limit_train_batches must be positive, got 0"),
        ("trainer.gradient_clip_val=abc", "trainer.gradient_clip_val must be a number"),
        ("trainer.check_val_every_n_epoch=0", "trainer.check_val_every_n_epoch must be positive, got 0"),
        ("trainer.val_check_interval=0.5", "trainer: `val_check_interval` should be an integer"),
        ("trainer.max_steps=0", "trainer.max_steps must be at least 1, got 0"),
        ("trainer.max_steps=null", "trainer.max_steps must be a whole number, got None"),
        ("trainer.precision=bf16-true", "trainer.precision must be 32-true, bf16-mixed, 16-mixed or 64-true"),
        ("trainer.precision=nonsense", "trainer.precision must be 32-true, bf16-mixed, 16-mixed or 64-true"),
        ("+trainer.profiler=foo", "trainer: "),
        ("callbacks.sample_grid.every_n_steps=-1", "every_n_steps must be at least 0, got -1"),
        ("trainer.max_steps=abc", "trainer.max_steps must be a whole number, got 'abc'"),
    ],
)
def test_settings_that_the_trainer_can_not_have_are_refused_on_one_line(setting, message, refused, tiny):
    assert message in refused("train", *tiny, setting, "hydra.run.dir=here")


@pytest.mark.parametrize("limit", [1, 0.2])
def test_too_few_batches_for_a_step_are_refused_before_the_folder_changes(limit, call, minimal, run_dir, tmp_path):
    shutil.copytree(run_dir, tmp_path / "here")
    few = [f"+trainer.limit_train_batches={limit}", "trainer.accumulate_grad_batches=2"]
    called = call("train", *minimal, *few, "data.num_train=120", "output_dir=here")
    assert called.status == 1
    assert "trainer.accumulate_grad_batches is 2, and an epoch has fewer batches (1): lower it" in called.err
    assert called.err.endswith("or raise trainer.limit_train_batches\n")
    assert files(tmp_path / "here") == FILES


@pytest.mark.slow
@pytest.mark.parametrize(
    "data",
    [
        ["data.channels=3", "data.image_size=[12,20]"],
        ["data.channels=2", "data.image_size=[20,12]"],
        ["data.channels=4", "data.num_classes=1"],
        ["data.channels=5", "data.num_classes=3", "judge=lenet"],
    ],
    ids=" ".join,
)
def test_images_of_any_shape_are_trained_sampled_and_evaluated(data, call, tiny, tmp_path):
    assert call("train", *tiny, *data, "output_dir=run").status == 0
    assert len(list((tmp_path / "run" / "samples").glob("*.png"))) == 1
    model = "checkpoint=run/checkpoints/last.ckpt"
    sampled = call("sample", model, "num_samples=2", "animate=true", "compare=true", "output_dir=drawn")
    assert sampled.status == 0, sampled.err
    names = {"samples.png", "samples.npz", "unguided.png", "unguided.npz", "animation.gif", "animation.mp4"}
    assert names <= {path.name for path in (tmp_path / "drawn").iterdir()}
    assert Image.open(tmp_path / "drawn" / "samples.png").width > 100
    small = ("num_samples=4", "judge.steps=2", "judge.width=8", *(one for one in data if one.startswith("judge")))
    loggers = "logger=[wandb,tensorboard]"
    evaluated = call("evaluate", model, *small, loggers, "output_dir=measured")
    assert evaluated.status == 0, evaluated.err
    rows = read(tmp_path / "measured").rows
    assert all(row.measured["fld"].value > 0 for row in rows)
    assert (tmp_path / "measured" / "report.html").read_text().count('class="strip"') == len(rows) == 3


# A folder that another training has used


@pytest.mark.slow
def test_a_training_in_the_folder_of_another_keeps_its_files_aside(compose, minimal, tmp_path, capsys):
    for seed in (5, 6):
        train(compose(*minimal, f"seed={seed}", output_dir=tmp_path))
    (aside,) = tmp_path.glob("earlier_*")
    assert capsys.readouterr().out.count(f"an earlier run in {tmp_path} is kept in {aside}\n") == 1
    for folder, seed in ((aside, 5), (tmp_path, 6)):
        assert (folder / "finished.txt").is_file()
        assert OmegaConf.load(folder / "config.yaml").seed == seed
        for name in ("best.ckpt", "last.ckpt"):
            saved = torch.load(folder / "checkpoints" / name, weights_only=True)
            assert saved["guided_diffusion"]["config"]["seed"] == seed
    assert len(rows(tmp_path / "metrics.csv")) == len(rows(aside / "metrics.csv"))


def test_a_training_into_the_folder_of_another_program_is_refused(compose, minimal, tmp_path):
    (tmp_path / "config.yaml").write_text("checkpoint: a.ckpt\n")
    with pytest.raises(ValueError, match=r"output_dir: .*/config.yaml would be replaced"):
        train(compose(*minimal, output_dir=tmp_path))
    assert files(tmp_path) == {"config.yaml"}


@pytest.mark.slow
def test_a_training_killed_in_the_folder_of_another_never_goes_on_from_its_weights(
    call, minimal, tmp_path, monkeypatch
):
    """The training is killed before its first checkpoint, and started again with the same command."""
    command = [*minimal, "resume=auto", "output_dir=here"]
    assert call("train", *command).status == 0
    other = [*command, "seed=7"]
    with monkeypatch.context() as patch:
        patch.setattr("guided_diffusion.cli.train.preemptible", lambda: sys.exit(9))
        assert call("train", *other).status == 9
    again = call("train", *other)
    assert again.status == 0
    assert "starting anew" in again.out
    assert call("train", *minimal, "seed=7", "output_dir=fresh").status == 0
    assert torch.equal(weights(tmp_path / "here"), weights(tmp_path / "fresh"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        "trainer.max_steps=1",
        "trainer.max_steps=10",
        "trainer.val_check_interval=1000",
        "trainer.log_every_n_steps=1000",
        "callbacks.sample_grid.every_n_steps=1",
    ],
)
def test_few_steps_and_long_intervals_train(setting, tiny, compose, tmp_path):
    run = train(compose(*tiny, setting, output_dir=tmp_path))
    assert (run / "finished.txt").is_file()
    assert (run / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.slow
def test_a_training_in_double_precision_is_sampled_in_it_and_in_single(tiny, compose, tmp_path):
    run = train(compose(*tiny, "trainer.precision=64-true", output_dir=tmp_path / "run"))
    checkpoint = run / "checkpoints" / "last.ckpt"
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert {weight.dtype for weight in state.values() if weight.is_floating_point()} == {torch.float64}
    drawn = []
    for precision in ("64-true", "32-true"):
        options = (f"checkpoint={checkpoint}", f"trainer.precision={precision}", "trainer.accelerator=cpu")
        config = compose(*options, "num_samples=2", program="sample", output_dir=tmp_path / precision)
        with np.load(sample(config) / "samples.npz") as arrays:
            drawn.append(arrays["images"])
    np.testing.assert_allclose(*drawn, atol=1e-4)  # the same noise
