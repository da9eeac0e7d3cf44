import logging
import signal
import sys
import types
import warnings

import pytest

from guided_diffusion.cli import program as programs
from guided_diffusion.cli.program import program
from guided_diffusion.cli.provenance import command


@pytest.fixture
def toy(call, monkeypatch):
    """Call a program that does this and nothing else."""

    def called(task, *arguments):
        module = types.ModuleType("guided_diffusion.toy")
        module.main = program("sample", task)
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


def test_a_program_gets_its_config_and_ends_well(toy):
    seen = []
    assert toy(lambda config: seen.append(config.num_samples), "num_samples=3").status == 0
    assert seen == [3]


@pytest.mark.parametrize(
    "error", [ValueError("not\n  this"), FileNotFoundError("not this"), PermissionError("not this")]
)
def test_what_the_user_can_mend_is_said_on_one_line(error, toy, tmp_path):
    called = toy(failing(error))
    assert (called.status, called.out, called.err) == (1, "", "error: not this\n")
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("error", [KeyError("a bug"), AssertionError("a bug"), TypeError("a bug")])
def test_a_bug_keeps_its_traceback_and_leaves_no_empty_folder(error, toy, tmp_path):
    called = toy(failing(error))
    assert called.status == 1
    assert "Traceback" in called.err
    assert "a bug" in called.err
    assert not (tmp_path / "here").exists()


def lightnings_end():
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(1)


@pytest.mark.parametrize("end", [failing(KeyboardInterrupt()), lambda config: lightnings_end()])
def test_ctrl_c_is_answered_with_a_line_and_its_status(end, toy, tmp_path):
    called = toy(end)
    assert (called.status, called.err) == (130, "\ninterrupted\n")
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_so_is_a_signal_and_afterwards_signals_do_what_they_did(number, toy, tmp_path):
    before = signal.getsignal(number)
    called = toy(lambda config: signal.raise_signal(number))
    assert (called.status, called.err) == (143, "\nstopped by a signal\n")
    assert not (tmp_path / "here").exists()
    assert signal.getsignal(number) == before


def test_the_status_of_a_task_is_that_of_the_program(toy):
    called = toy(lambda config: sys.exit(143))
    assert (called.status, called.err) == (143, "")


def test_on_request_there_is_a_traceback(toy, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match="not this"):
        toy(failing(ValueError("not this")))


def test_what_was_written_before_an_error_stays(toy, tmp_path):
    def task(config):
        (tmp_path / "here" / "half.txt").write_text("half")
        raise ValueError("too late")

    assert toy(task).status == 1
    assert (tmp_path / "here" / "half.txt").read_text() == "half"


def test_hydra_writes_nothing_of_its_own_into_the_folder(toy, tmp_path):
    toy(lambda config: (tmp_path / "here" / "result.txt").write_text(""))
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["result.txt"]


def test_warnings_of_what_is_as_it_should_be_are_left_out_and_others_not():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        programs.quiet()
        warnings.warn("The 'train_dataloader' does not have many workers which may be a bottleneck", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["something else"]
    assert logging.getLogger("pytorch_lightning").level == logging.WARNING
