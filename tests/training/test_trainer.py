"""Several processes and several jobs. The fast tests look at what is started, the slow ones start it."""

import csv
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_lightning.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

import guided_diffusion
from guided_diffusion.cli.config import CONFIG_PATH, register
from guided_diffusion.cli.program import program
from guided_diffusion.networks.layers import ResidualBlock
from guided_diffusion.training import launchers
from guided_diffusion.training import trainer as strategies
from guided_diffusion.utils.instantiate import build

TWO = ("trainer.devices=2", "strategy=ddp")


def without(kind):
    """A strategy of this class as it is, without what its constructor asks of the machine."""
    return kind.__new__(kind)


@pytest.fixture
def toy(call, monkeypatch):
    """Call a program whose jobs do this and nothing else."""

    def called(task, *arguments):
        module = types.ModuleType("guided_diffusion.toy")
        module.main = program("train", task)
        monkeypatch.setitem(sys.modules, "guided_diffusion.toy", module)
        return call("toy", *arguments)

    return called


# FSDP and DeepSpeed


def test_fsdp_puts_one_residual_block_together_at_a_time(compose):
    config = compose("strategy=fsdp", "callbacks=sharded")
    policy = build(config.trainer.strategy).kwargs["auto_wrap_policy"]
    assert isinstance(policy, ModuleWrapPolicy)
    assert policy._module_classes == {ResidualBlock}
    assert config.trainer.gradient_clip_val is None


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed"])
def test_callbacks_for_divided_weights_pass_the_check(strategy, compose, tmp_path):
    nodes = compose(f"strategy={strategy}", "callbacks=sharded", output_dir=tmp_path).callbacks.values()
    kind = {"fsdp": FSDPStrategy, "deepspeed": DeepSpeedStrategy}[strategy]
    strategies.check_strategy(without(kind), [build(node) for node in nodes], None)


@pytest.mark.parametrize(
    ("kind", "refused"),
    [(FSDPStrategy, "EMA, SampleGrid, MeasureByScale"), (DeepSpeedStrategy, "EMA, Last.*, SampleGrid, MeasureByS.*")],
)
def test_callbacks_that_need_the_weights_whole_are_refused_under_divided_weights(kind, refused, compose, tmp_path):
    nodes = compose(output_dir=tmp_path).callbacks.values()
    callbacks = [build(node) for node in nodes]
    with pytest.raises(ValueError, match=f"{refused} can't follow: add callbacks=sharded"):
        strategies.check_strategy(without(kind), callbacks, None)
    strategies.check_strategy(without(DDPStrategy), callbacks, 1.0)


def test_clipping_under_fsdp_is_refused():
    with pytest.raises(ValueError, match=r"clips no gradients by norm: add trainer\.gradient_clip_val=null"):
        strategies.check_strategy(without(FSDPStrategy), [], 1.0)


@pytest.mark.parametrize("kind", [FSDPStrategy, DeepSpeedStrategy])
def test_an_evaluation_needs_the_weights_whole(kind):
    with pytest.raises(ValueError, match="samples need them whole: add strategy=ddp"):
        strategies.check_not_sharded(without(kind))
    strategies.check_not_sharded(without(DDPStrategy))


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("fsdp", "GPU"),
        ("deepspeed", 'pip install "guided-diffusion-lightning[deepspeed]"'),
    ],
)
def test_a_strategy_that_can_not_work_here_says_so_on_one_line(strategy, message, call, tiny, tmp_path):
    own = [override for override in tiny if not override.startswith("callbacks.")]
    called = call("train", *own, f"strategy={strategy}", "callbacks=sharded", "hydra.run.dir=here")
    assert called.status == 1
    (line,) = called.err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_sharded_callbacks_leave_the_same_checkpoints(call, tiny, tmp_path):
    own = [override for override in tiny if not override.startswith("callbacks.")]
    assert call("train", *own, "callbacks=sharded", "hydra.run.dir=here").status == 0
    assert {path.name for path in (tmp_path / "here" / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    assert guided_diffusion.load(tmp_path / "here" / "checkpoints" / "last.ckpt").num_classes == 10


# What the other processes of a job are started with


@pytest.mark.parametrize("more", [[], ["-m"], ["-m", "hydra.sweep.dir='swept, $x'", "hydra.verbose=false"]])
def test_the_command_of_a_job_is_that_job_alone_in_its_own_folder(more, toy, tmp_path):
    """Also where a part of the config lies in a folder of one's own, and a value has quotes."""
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text("# @package _global_\nlabel_dropout: 0.25\n")
    noted = []

    def note(config):
        noted.append((launchers.command_of_job(), OmegaConf.to_container(config), HydraConfig.get().runtime.output_dir))

    arguments = ["+experiment=mine", "name='it is, \"mine\"'", "scales=[1,2]"]
    seeds = ["seed=3,4" if more else "seed=3"]
    assert toy(note, *more, *arguments, *seeds, "--config-dir", str(tmp_path / "own")).status == 0
    assert [config["seed"] for _, config, _ in noted] == ([3, 4] if more else [3])
    for (python, flag, module, *rest), config, folder in noted[:]:
        assert (python, flag, module.startswith("guided_diffusion.")) == (sys.executable, "-m", True)
        noted.clear()
        assert toy(note, *rest).status == 0
        ((_, again, same_folder),) = noted
        assert (again | {"output_dir": ""}, same_folder) == (config | {"output_dir": ""}, folder)


def test_the_sweep_flag_may_stand_among_the_overrides(toy, tmp_path):
    noted = []
    called = toy(lambda config: noted.append(config.seed), "name=x", "-m", "seed=1,2", "hydra.sweep.dir=swept")
    assert called.status == 0
    assert noted == [1, 2]


def test_a_job_leaves_nothing_in_the_environment(monkeypatch):
    monkeypatch.setenv("MASTER_PORT", "1234")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with launchers._environment_of_a_job():
        os.environ |= {"MASTER_PORT": "5", "LOCAL_RANK": "0"}
    assert os.environ["MASTER_PORT"] == "1234"
    assert "LOCAL_RANK" not in os.environ


@pytest.mark.parametrize("strategy", ["auto", "ddp", "ddp_spawn"])
def test_every_way_to_start_processes_is_ours(strategy, compose):
    built = strategies.build_trainer(
        compose(f"strategy={strategy}", "trainer.accelerator=cpu", "trainer.devices=2").trainer, []
    )
    kind = launchers.SpawnLauncher if strategy == "ddp_spawn" else launchers.JobLauncher
    assert isinstance(built.strategy.launcher, kind)


def test_one_process_needs_no_launcher(compose):
    assert strategies.build_trainer(compose("trainer.accelerator=cpu").trainer, []).strategy.launcher is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "under torchrun all processes must know the folder: add hydra.run.dir=FOLDER"),
        (["-m", "seed=1"], "torchrun can't run a sweep: leave it out, strategy=ddp starts the processes of each job"),
    ],
)
def test_what_torchrun_can_not_do_is_refused(arguments, message, call, tiny, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    called = call("train", *tiny, *arguments)
    assert called.status == 1
    assert message in called.out + called.err


def test_joblib_can_not_spawn_and_says_so(call, tiny, tmp_path):
    """With one job at a time joblib works in this process."""
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=1", "hydra.sweep.dir=swept"]
    called = call("train", *tiny, *launcher, "strategy=ddp_spawn", "trainer.devices=2", "-m", "seed=0")
    assert called.status == 1
    assert "job 0: error: a process of joblib can't spawn others: add strategy=ddp" in called.out
    assert not (tmp_path / "swept").exists()


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "submitit_slurm"])
def test_every_launcher_is_composed_and_built(launcher):
    from hydra import compose, initialize_config_dir

    register()
    with initialize_config_dir(CONFIG_PATH, version_base="1.3"):
        config = compose("train", [f"hydra/launcher={launcher}"], return_hydra_config=True)
    node = {key: value for key, value in config.hydra.launcher.items() if key != "submitit_folder"}
    assert instantiate(node) is not None


# Two processes


def shell(program, *arguments, folder):
    """A program as in a shell. One thread each: several would only wait for each other here."""
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
    """What was measured, without the time it took."""
    with (folder / "results.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_sweep_with_two_processes_is_three_jobs_and_no_more(tiny, tmp_path):
    called = shell("train", *tiny, *TWO, "hydra.sweep.dir=swept", "-m", "guidance.scale=1,2,4", folder=tmp_path)
    assert called.returncode == 0, called.stderr
    assert jobs(tmp_path) == ["swept"]
    assert jobs(tmp_path / "swept") == ["0", "1", "2"]
    for job, scale in (("0", 1), ("1", 2), ("2", 4)):
        assert OmegaConf.load(tmp_path / "swept" / job / "config.yaml").guidance.scale == scale
        assert (tmp_path / "swept" / job / "accuracy_by_scale.csv").is_file()
        guided_diffusion.load(tmp_path / "swept" / job / "checkpoints" / "last.ckpt")
    assert called.stdout.count("Next: ") == 3


@pytest.mark.slow
def test_an_evaluation_is_the_same_with_two_processes_and_in_a_sweep(run_dir, tmp_path, monkeypatch):
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
def test_samples_of_two_processes_are_those_of_one(run_dir, tmp_path):
    common = [f"checkpoint={run_dir / 'checkpoints' / 'last.ckpt'}", "num_samples=5", "recipe.batch_size=16"]
    for folder, processes in (("one", ["trainer.accelerator=cpu"]), ("two", TWO)):
        sampled = shell("sample", *common, *processes, f"hydra.run.dir={folder}", folder=tmp_path)
        assert sampled.returncode == 0, sampled.stderr
        assert sampled.stdout.count("Samples are in") == 1
    assert np.array_equal(images(tmp_path / "one"), images(tmp_path / "two"))
    assert (tmp_path / "two" / "config.yaml").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
        ["hydra/launcher=submitit_local", *TWO],  # where two processes are started by one that no shell started
    ],
    ids=["joblib", "submitit"],
)
def test_jobs_side_by_side_have_a_folder_and_a_wandb_run_each(launcher, tiny, tmp_path):
    sweep = ["hydra.sweep.dir=swept", "logger=wandb", "-m", "seed=0,1"]
    called = shell("train", *tiny, *launcher, *sweep, folder=tmp_path)
    assert called.returncode == 0, called.stderr
    assert jobs(tmp_path) == ["swept"]
    assert jobs(tmp_path / "swept") == ["0", "1"]
    for job in ("0", "1"):
        assert (tmp_path / "swept" / job / "checkpoints" / "last.ckpt").is_file()
        assert OmegaConf.load(tmp_path / "swept" / job / "config.yaml").seed == int(job)
        assert len(list((tmp_path / "swept" / job / "wandb").glob("offline-run-*"))) == 1


# One sample depends on (seed, its number) alone


def sample(folder):
    with np.load(folder / "samples.npz") as arrays:
        return arrays["images"]


def test_the_size_of_a_batch_changes_rounding_and_nothing_else(call, run_dir, tmp_path):
    """oneDNN has another convolution for small batches, whose sums round otherwise."""
    common = [f"checkpoint={run_dir / 'checkpoints' / 'last.ckpt'}", "num_samples=7", "trainer.accelerator=cpu"]
    for folder, size in (("seven", 7), ("many", 64), ("again", 64)):
        assert call("sample", *common, f"recipe.batch_size={size}", f"hydra.run.dir={folder}").status == 0
    np.testing.assert_allclose(images(tmp_path / "seven"), images(tmp_path / "many"), rtol=0, atol=1e-5)
    assert np.array_equal(images(tmp_path / "many"), images(tmp_path / "again"))
