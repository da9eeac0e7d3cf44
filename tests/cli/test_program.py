import logging
import os
import signal
import sys
import types
import warnings
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from wandb.errors import UsageError

from guided_diffusion.cli import program as programs
from guided_diffusion.cli.program import program
from guided_diffusion.cli.provenance import command

AS_ON_WINDOWS = Path(__file__).with_name("as_on_windows.py")
ASCII_LOCALE = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "utf-8"}
"""The variables with which the default encoding of files is not UTF-8, as on Windows."""


@pytest.fixture
def toy(call, monkeypatch):
    """Call a program whose job is this function."""

    def called(task, *arguments, name="sample"):
        module = types.ModuleType("guided_diffusion.toy")
        module.main = program(name, task)
        monkeypatch.setitem(sys.modules, "guided_diffusion.toy", module)
        return call("toy", "hydra.run.dir=here", *arguments)

    return called


def failing(error):
    def task(config):
        raise error

    return task


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["/somewhere/guided_diffusion/train.py", "seed=1"], "python -m guided_diffusion.train seed=1"),
        (["/bin/guided-diffusion-train", "data=digits"], "guided-diffusion-train data=digits"),
        (["sample.py", "labels=[3, 7]"], "python -m guided_diffusion.sample 'labels=[3, 7]'"),
        (["train.py", "name=it's"], """python -m guided_diffusion.train 'name=it'"'"'s'"""),
    ],
)
def test_the_command_can_be_pasted_into_a_shell(argv, expected, monkeypatch):
    monkeypatch.setattr(sys, "argv", argv)
    assert command() == expected


def test_a_program_gets_its_config_and_exits_with_0(toy):
    seen = []
    assert toy(lambda config: seen.append(config.num_samples), "num_samples=3").status == 0
    assert seen == [3]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("not\n  this"),
        pytest.param(FileNotFoundError("not this"), marks=pytest.mark.slow),
        pytest.param(PermissionError("not this"), marks=pytest.mark.slow),
        MisconfigurationException("not this"),
        pytest.param(UsageError("not this"), marks=pytest.mark.slow),
        ModuleNotFoundError("not this", name="imageio_ffmpeg"),
    ],
)
def test_an_error_of_the_user_is_printed_on_one_line(error, toy, tmp_path):
    called = toy(failing(error))
    assert (called.status, called.out, called.err) == (1, "", "error: not this\n")
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize(
    "error",
    [
        KeyError("a bug"),
        pytest.param(TypeError("a bug"), marks=pytest.mark.slow),
        ModuleNotFoundError("a bug", name="guided_diffusion.lost"),
    ],
)
def test_a_bug_is_printed_with_its_traceback_and_leaves_no_empty_folder(error, toy, tmp_path):
    called = toy(failing(error))
    assert called.status == 1
    assert "Traceback" in called.err
    assert "a bug" in called.err
    assert not (tmp_path / "here").exists()


def exit_as_lightning_does():
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(1)


@pytest.mark.parametrize("end", [failing(KeyboardInterrupt()), lambda config: exit_as_lightning_does()])
def test_ctrl_c_ends_the_program_with_a_line_and_status_130(end, toy, tmp_path):
    called = toy(end)
    assert (called.status, called.err) == (130, "\ninterrupted\n")
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize(
    ("overrides", "how"),
    [
        ([], "resume=auto goes on from the last checkpoint, if there is one"),
        (["resume=auto"], "resume=auto goes on from the last checkpoint, if there is one"),
        (["resume=here/run"], "resume={} goes on from the last checkpoint, if there is one"),
    ],
)
def test_an_interrupted_training_says_how_to_go_on(overrides, how, toy, tmp_path):
    called = toy(failing(KeyboardInterrupt()), *overrides, name="train")
    assert (called.status, called.err) == (130, f"\ninterrupted; {how.format(tmp_path / 'here')}\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_ends_the_program_with_a_line_and_status_143(number, toy, tmp_path, heeds_hangup):
    before = signal.getsignal(number)
    called = toy(lambda config: signal.raise_signal(number))
    assert (called.status, called.err) == (143, "\nstopped by a signal\n")
    assert not (tmp_path / "here").exists()
    assert signal.getsignal(number) == before  # the handler of before is back


def test_the_exit_status_of_a_job_is_that_of_the_program(toy):
    called = toy(lambda config: sys.exit(143))
    assert (called.status, called.err) == (143, "")


def test_with_hydra_full_error_the_error_of_a_job_is_raised(toy, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match="not this"):
        toy(failing(ValueError("not this")))


def test_files_written_before_an_error_stay(toy, tmp_path):
    def task(config):
        (tmp_path / "here" / "half.txt").write_text("half")
        raise ValueError("too late")

    assert toy(task).status == 1
    assert (tmp_path / "here" / "half.txt").read_text() == "half"


def test_hydra_writes_no_files_of_its_own_into_the_folder(toy, tmp_path):
    toy(lambda config: (tmp_path / "here" / "result.txt").write_text(""))
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["result.txt"]


def test_only_expected_warnings_are_silenced():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        programs.quiet()
        warnings.warn("The 'train_dataloader' does not have many workers which may be a bottleneck", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["something else"]
    assert logging.getLogger("pytorch_lightning").level == logging.WARNING


@pytest.mark.parametrize("value", ["1", None])
def test_a_job_sees_the_users_own_hydra_full_error(value, toy, monkeypatch):
    """Hydra sees another value while it composes the config; processes that a job starts must not."""
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    if value:
        monkeypatch.setenv("HYDRA_FULL_ERROR", value)
    seen = []
    toy(lambda config: seen.append(os.environ["HYDRA_FULL_ERROR"] == "1"))
    assert seen == [value == "1"]
    assert os.environ.get("HYDRA_FULL_ERROR") == value


# Sweeps


def test_in_a_sweep_the_other_jobs_go_on_and_the_status_is_1(toy, tmp_path):
    done = []

    def job(config):
        if config.num_samples == 1:
            raise ValueError("not this one")
        done.append(config.num_samples)
        Path(HydraConfig.get().runtime.output_dir, "done.txt").write_text("")

    called = toy(job, "num_samples=0,1,2", "hydra.sweep.dir=swept", "-m")
    assert (called.status, called.err, done) == (1, "", [0, 2])
    assert "job 1: error: not this one" in called.out
    assert (tmp_path / "swept" / "failed.txt").read_text() == "1: num_samples=1: not this one\n"
    assert sorted(path.name for path in (tmp_path / "swept").iterdir()) == ["0", "2", "failed.txt", "multirun.yaml"]


@pytest.mark.slow
def test_a_sweep_is_not_blamed_for_the_failures_of_an_earlier_one(toy, tmp_path):
    (tmp_path / "swept").mkdir()
    (tmp_path / "swept" / "failed.txt").write_text("0: seed=0: an earlier failure\n")
    assert toy(lambda config: None, "num_samples=0,1", "hydra.sweep.dir=swept", "-m").status == 0


@pytest.mark.slow
def test_a_sweep_of_failed_jobs_leaves_no_folder(toy, tmp_path):
    assert toy(failing(ValueError("no")), "num_samples=0,1", "hydra.sweep.dir=a/swept", "-m").status == 1
    assert list(tmp_path.iterdir()) == []


def test_folders_that_were_there_stay(toy, tmp_path):
    (tmp_path / "a").mkdir()
    assert toy(failing(ValueError("no")), "hydra.run.dir=a/b/c").status == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib hydra.launcher.n_jobs=2", "submitit_local"])
def test_a_failed_job_of_a_launcher_is_named_and_the_others_are_gathered(launcher, shell, tiny, tmp_path):
    sweep = [*f"hydra/launcher={launcher}".split(), "hydra.sweep.dir=swept", "-m", "label_dropout=0.1,1.5"]
    done = shell("-m", "guided_diffusion.train", *tiny, *sweep)
    assert done.returncode == 1
    assert (tmp_path / "swept" / "failed.txt").read_text().startswith("1: ")
    assert "label_dropout=1.5" in (tmp_path / "swept" / "report.html").read_text()
    assert (tmp_path / "swept" / "0" / "checkpoints" / "last.ckpt").is_file()
    assert not (tmp_path / "swept" / ".jobs").exists()


@pytest.mark.slow
def test_a_lost_connection_is_an_error_although_the_output_is_a_pipe(shell):
    job = "def job(config): raise BrokenPipeError(32, 'Broken pipe')"
    ended = shell(
        "-c", f"from guided_diffusion.cli.program import program\n{job}\nprogram('train', job)()", "output_dir=a"
    )
    assert (ended.returncode, ended.stderr) == (1, "error: Broken pipe\n")


@pytest.mark.slow
def test_a_program_ends_without_a_word_if_nobody_reads_its_output(shell):
    ended = shell("bash", "-c", "python -m guided_diffusion.train --help | true; echo ${PIPESTATUS[0]}")
    assert (ended.stdout, ended.stderr) == ("141\n", "")


@pytest.mark.slow
def test_help_needs_nothing_that_windows_lacks(shell):
    shown = shell(AS_ON_WINDOWS, "guided_diffusion.train", "--help")
    assert shown.returncode == 0, shown.stderr
    assert "output_dir:" in shown.stdout


@pytest.mark.slow
def test_a_training_is_resumed_and_sampled_without_what_windows_lacks(shell, tiny, tmp_path, monkeypatch):
    for name, value in ASCII_LOCALE.items():
        monkeypatch.setenv(name, value)
    for resume in ("", "resume=auto"):
        trained = shell(AS_ON_WINDOWS, "guided_diffusion.train", *tiny, "output_dir=run", *filter(None, [resume]))
        assert trained.returncode == 0, trained.stderr
    assert "run has finished: there is nothing left to train" in trained.stdout
    checkpoint = "checkpoint=run/checkpoints/last.ckpt"
    for name, made in (("sample", "samples.png"), ("evaluate", "report.html")):
        drawn = shell(
            *(AS_ON_WINDOWS, f"guided_diffusion.{name}", checkpoint, f"output_dir={name}", "num_samples=1"),
            *("trainer.accelerator=cpu", *(["judge.steps=2"] if name == "evaluate" else [])),
        )
        assert drawn.returncode == 0, drawn.stderr
        assert (tmp_path / name / made).is_file()
