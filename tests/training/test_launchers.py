"""How the other processes of a job are started. The fast tests look at the command; the slow ones run it."""

import csv
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_lightning.strategies import launchers as lightning_launchers

import guided_diffusion
from guided_diffusion.cli.config import CONFIG_PATH, register
from guided_diffusion.cli.program import program
from guided_diffusion.training import launchers
from guided_diffusion.training.trainer import build_trainer

TWO = ("trainer.devices=2", "strategy=ddp")


@pytest.fixture
def job(call, monkeypatch):
    """``job(task, *arguments)`` calls a program whose jobs only do this task."""

    def called(task, *arguments):
        module = types.ModuleType("guided_diffusion.toy")
        module.main = program("train", task)
        monkeypatch.setitem(sys.modules, "guided_diffusion.toy", module)
        return call("toy", *arguments)

    return called


# The command of a job


@pytest.mark.parametrize(
    "more", [[], ["-m", "hydra.sweep.dir='swept, $x'", "hydra.verbose=false"]], ids=["run", "sweep"]
)
@pytest.mark.slow
def test_the_command_of_a_job_starts_that_job_alone_in_its_own_folder(more, job, tmp_path):
    """Also with a config folder of one's own, and values with quotes."""
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text("# @package _global_\nlabel_dropout: 0.25\n")
    noted = []

    def note(config):
        noted.append((launchers.command_of_job(), OmegaConf.to_container(config), HydraConfig.get().runtime.output_dir))

    arguments = ["+experiment=mine", "name='it is, \"mine\"'", "scales=[1,2]"]
    seeds = ["seed=3,4" if more else "seed=3"]
    assert job(note, *more, *arguments, *seeds, "--config-dir", str(tmp_path / "own")).status == 0
    assert [config["seed"] for _, config, _ in noted] == ([3, 4] if more else [3])
    for (python, flag, module, *rest), config, folder in noted[:]:
        assert (python, flag, module.startswith("guided_diffusion.")) == (sys.executable, "-m", True)
        noted.clear()
        assert job(note, *rest).status == 0
        ((_, again, same_folder),) = noted
        assert (again | {"output_dir": ""}, same_folder) == (config | {"output_dir": ""}, folder)


def test_a_job_leaves_the_environment_as_it_was(monkeypatch):
    monkeypatch.setenv("MASTER_PORT", "1234")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with launchers.job_environment():
        os.environ |= {"MASTER_PORT": "5", "LOCAL_RANK": "0"}
    assert os.environ["MASTER_PORT"] == "1234"
    assert "LOCAL_RANK" not in os.environ


# The choice of the launcher


@pytest.fixture
def trainer(compose):
    """``trainer(strategy)`` is one of two processes."""
    return lambda strategy: build_trainer(
        compose(f"strategy={strategy}", "trainer.accelerator=cpu", "trainer.devices=2").trainer, []
    )


@pytest.mark.parametrize(
    ("strategy", "kind"),
    [("auto", launchers.JobLauncher), ("ddp", launchers.JobLauncher), ("ddp_spawn", launchers.SpawnLauncher)],
)
def test_several_processes_are_started_by_the_launchers_of_the_package(strategy, kind, trainer):
    assert isinstance(trainer(strategy).strategy.launcher, kind)


def test_a_lightning_whose_launchers_lack_a_method_is_refused_by_its_version(trainer, monkeypatch):
    monkeypatch.delattr(lightning_launchers._SubprocessScriptLauncher, "_call_children_scripts")
    monkeypatch.delattr(launchers.JobLauncher, "_call_children_scripts")
    message = rf"pytorch-lightning {pytorch_lightning.__version__} is not supported .*_call_children_scripts.* use one"
    with pytest.raises(RuntimeError, match=message):
        trainer("ddp")


def test_a_lightning_without_these_launchers_is_refused_only_with_several_processes(trainer, compose, monkeypatch):
    monkeypatch.delitem(sys.modules, "guided_diffusion.training.launchers")
    monkeypatch.delattr(guided_diffusion.training, "launchers")
    monkeypatch.delattr(lightning_launchers, "_SubprocessScriptLauncher")
    assert build_trainer(compose("trainer.accelerator=cpu").trainer, []).num_devices == 1
    with pytest.raises(RuntimeError, match=r"trainer\.devices=1 strategy=auto"):
        trainer("ddp")


@pytest.mark.slow
def test_joblib_cannot_spawn_processes(call, tiny, tmp_path):
    """With one job at a time joblib works in this process."""
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=1", "hydra.sweep.dir=swept"]
    called = call("train", *tiny, *launcher, "strategy=ddp_spawn", "trainer.devices=2", "-m", "seed=0")
    assert called.status == 1
    assert "job 0: error: a process of joblib can't spawn others: add strategy=ddp" in called.out
    assert not (tmp_path / "swept").exists()


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "submitit_slurm"])
def test_every_hydra_launcher_can_be_built(launcher):
    from hydra import compose, initialize_config_dir

    register()
    with initialize_config_dir(CONFIG_PATH, version_base="1.3"):
        config = compose("train", [f"hydra/launcher={launcher}"], return_hydra_config=True)
    node = {key: value for key, value in config.hydra.launcher.items() if key != "submitit_folder"}
    assert instantiate(node) is not None


# Programs with two processes


def shell(program, *arguments, folder):
    """Run a program in a shell, with one thread for each process."""
    path = str(Path(guided_diffusion.__file__).parent.parent)
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", f"guided_diffusion.{program}", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )


def jobs(folder):
    return sorted(
        path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "." and path.name != "plots"
    )


def results(folder):
    """What was measured, except for the time."""
    with (folder / "results.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_sweep_of_three_jobs_with_two_processes_each_makes_three_folders(tiny, tmp_path):
    unscaled = [override for override in tiny if not override.startswith("scales=")]
    called = shell("train", *unscaled, *TWO, "hydra.sweep.dir=swept", "-m", "guidance.scale=1,2,4", folder=tmp_path)
    assert called.returncode == 0, called.stderr
    assert jobs(tmp_path) == ["swept"]
    assert jobs(tmp_path / "swept") == ["0", "1", "2"]
    for job, scale in (("0", 1), ("1", 2), ("2", 4)):
        assert OmegaConf.load(tmp_path / "swept" / job / "config.yaml").guidance.scale == scale
        assert (tmp_path / "swept" / job / "accuracy_by_scale.csv").is_file()
        guided_diffusion.load(tmp_path / "swept" / job / "checkpoints" / "last.ckpt")
    assert called.stdout.count("Next: ") == 3


@pytest.mark.slow
def test_an_evaluation_with_two_processes_in_a_sweep_measures_the_same(run_dir, tmp_path):
    common = [f"checkpoint={run_dir / 'checkpoints' / 'last.ckpt'}", "num_samples=8", "recipe.batch_size=16"]
    common += ["judge.steps=2", "judge.width=8", "trainer.accelerator=cpu", "trainer.precision=32-true"]
    one = shell("evaluate", *common, "hydra.run.dir=one", folder=tmp_path)
    assert one.returncode == 0, one.stderr
    two = shell("evaluate", *common, *TWO, "hydra.sweep.dir=two", "-m", "seed=0,1", folder=tmp_path)
    assert two.returncode == 0, two.stderr
    assert jobs(tmp_path) == ["one", "two"]
    assert jobs(tmp_path / "two") == ["0", "1"]
    assert results(tmp_path / "two" / "0") == results(tmp_path / "one")
    assert results(tmp_path / "two" / "1") != results(tmp_path / "one")
    assert two.stdout.count("The evaluation is in") == 2


@pytest.mark.slow
def test_two_processes_draw_the_samples_of_one(run_dir, tmp_path):
    common = [f"checkpoint={run_dir / 'checkpoints' / 'last.ckpt'}", "num_samples=5", "recipe.batch_size=16"]
    for folder, processes in (("one", ["trainer.accelerator=cpu"]), ("two", TWO)):
        sampled = shell("sample", *common, *processes, f"hydra.run.dir={folder}", folder=tmp_path)
        assert sampled.returncode == 0, sampled.stderr
        assert sampled.stdout.count("Samples are in") == 1
    one, two = (np.load(tmp_path / folder / "samples.npz")["images"] for folder in ("one", "two"))
    assert np.array_equal(one, two)
    assert (tmp_path / "two" / "config.yaml").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
        ["hydra/launcher=submitit_local", *TWO],  # whose jobs no shell has started
    ],
    ids=["joblib", "submitit"],
)
def test_concurrent_jobs_have_a_folder_and_a_wandb_run_each(launcher, tiny, tmp_path):
    sweep = ["hydra.sweep.dir=swept", "logger=wandb", "-m", "seed=0,1"]
    called = shell("train", *tiny, *launcher, *sweep, folder=tmp_path)
    assert called.returncode == 0, called.stderr
    assert jobs(tmp_path) == ["swept"]
    assert jobs(tmp_path / "swept") == ["0", "1"]
    for job in ("0", "1"):
        assert (tmp_path / "swept" / job / "checkpoints" / "last.ckpt").is_file()
        assert OmegaConf.load(tmp_path / "swept" / job / "config.yaml").seed == int(job)
        assert len(list((tmp_path / "swept" / job / "wandb").glob("offline-run-*"))) == 1
