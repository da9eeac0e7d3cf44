"""Which run ``resume`` continues, from which checkpoint, and what it prints."""

import errno
import fcntl
import os
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from pytorch_lightning.utilities import rank_zero_only

from guided_diffusion.training.resume.find_run import (
    INHERITED_START,
    Start,
    clear_inherited_start,
    find_start,
    folder_lock,
    set_inherited_start,
)
from guided_diffusion.training.resume.run_files import config_of


def runs(folder):
    return sorted(path.parent for path in folder.glob("outputs/short/*/config.yaml"))


def test_without_resume_a_training_starts_anew(tmp_path):
    assert find_start({"resume": None}, tmp_path, [tmp_path / "other"]) == Start(tmp_path)


def test_auto_starts_anew_if_there_is_no_interrupted_run(tmp_path, capsys):
    assert find_start({"resume": "auto"}, tmp_path, []) == Start(tmp_path)
    assert (
        capsys.readouterr().out == "resume=auto: no interrupted run of this training has a checkpoint: starting anew\n"
    )


def test_auto_leaves_a_finished_run_as_it_is(server, short, uninterrupted, only_run):
    before = {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*")}
    folder = uninterrupted.parent.parent.parent
    trained = server(folder, *short, "resume=auto")
    assert trained.status == 0
    assert trained.printed == f"resume=auto: {uninterrupted} has finished: there is nothing left to train\n"
    assert {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*")} == before
    assert only_run(folder) == uninterrupted


@pytest.mark.slow
@pytest.mark.parametrize("path", [".", "checkpoints/last.ckpt"])
def test_a_path_continues_that_run_or_checkpoint(path, server, short, copied, uninterrupted, assert_same, tmp_path):
    named = (copied / path).relative_to(tmp_path)
    trained = server(tmp_path, *short, f"resume={named}")
    assert trained.status == 0, trained.printed
    assert f"resume: continuing from step 4 in {copied}\n" in trained.printed
    assert_same(copied, uninterrupted)
    assert runs(tmp_path) == [copied]


@pytest.mark.parametrize("path", [".", "checkpoints/last.ckpt"])
def test_a_path_is_the_folder_and_the_checkpoint_to_start_from(path, copied, tmp_path):
    config = config_of(copied) | {"resume": str(copied / path)}
    rows = torch.load(copied / "checkpoints" / "last.ckpt", weights_only=True)["metrics_rows"]
    assert find_start(config, tmp_path, []) == Start(copied, copied / "checkpoints" / "last.ckpt", 4, rows)
    assert rows > 0


def test_auto_ignores_a_run_of_another_training(copied, tmp_path):
    config = config_of(copied) | {"resume": "auto"}
    assert find_start(config, tmp_path, [copied]).checkpoint == copied / "checkpoints" / "last.ckpt"
    assert find_start(config | {"seed": 3}, tmp_path, [copied]) == Start(tmp_path)


def test_auto_names_the_settings_of_an_interrupted_run_in_its_folder(copied, capsys):
    config = config_of(copied) | {"resume": "auto", "seed": 3}
    assert find_start(config, copied, [copied]) == Start(copied)
    assert capsys.readouterr().out.endswith(f"starting anew; the interrupted run in {copied} differs in seed\n")


def test_auto_compares_no_settings_with_a_run_whose_config_cannot_be_read(copied, capsys):
    config = config_of(copied) | {"resume": "auto"}
    (copied / "config.yaml").unlink()
    assert find_start(config, copied, [copied]) == Start(copied)
    assert capsys.readouterr().out.endswith("starting anew\n")


def test_auto_skips_a_folder_whose_checkpoints_are_of_another_training_than_its_config(copied, tmp_path, capsys):
    """A new training with seed 3 in this folder was killed before its first checkpoint."""
    config = OmegaConf.load(copied / "config.yaml")
    config.seed = 3
    OmegaConf.save(config, copied / "config.yaml")
    start = find_start(config_of(copied) | {"resume": "auto"}, copied, [copied])
    assert (start.checkpoint, start.in_place) == (None, False)
    assert f"skipped {copied}: its checkpoints are of another training" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("section", "changes", "hint"),
    [
        ("trainer", {"precision": "bf16-mixed"}, "trainer.precision"),
        ("data", {"batch_size": 7}, "data.batch_size"),
        ("callbacks", {"finite": None, "throughput": None}, "callbacks.finite, callbacks.throughput"),
        ("data", {"flip": False}, ""),  # resume=RUN refuses it
        ("module", {"optimizer": {"lr": 1}}, ""),
    ],
)
def test_auto_names_an_interrupted_run_that_differs_in_few_keys(section, changes, hint, copied, tmp_path, capsys):
    config = config_of(copied)
    other = config | {section: config[section] | changes, "resume": "auto"}
    assert find_start(other, tmp_path, [copied]) == Start(tmp_path)
    printed = capsys.readouterr().out
    if hint:
        assert f"starting anew; {copied} was interrupted and differs in {hint}" in printed
        assert printed.endswith(f": to go on with it, resume={copied}\n")
    else:
        assert printed.endswith("starting anew\n")


def test_auto_continues_a_run_on_another_machine_or_with_another_display(copied, tmp_path):
    config = config_of(copied) | {"resume": "auto"}
    config["data"] |= {"num_workers": 3}
    config["trainer"] |= {"enable_model_summary": True}
    assert find_start(config, tmp_path, [copied]).checkpoint == copied / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize(("max_steps", "hint"), [(99, "; to train {run} longer: resume={run}"), (2, "")])
def test_auto_names_a_run_that_could_be_trained_longer(max_steps, hint, copied, tmp_path, capsys):
    config = config_of(copied)
    other = config | {"trainer": config["trainer"] | {"max_steps": max_steps}, "resume": "auto"}
    assert find_start(other, tmp_path, [copied]) == Start(tmp_path)
    assert capsys.readouterr().out.endswith(f"starting anew{hint.format(run=copied)}\n")


def test_the_run_of_another_training_is_refused_with_the_keys_that_differ(server, short, copied, tmp_path):
    other = ["seed=3", "module.optimizer.lr=0.1", "trainer.max_steps=1", "callbacks.last.every_n_steps=7"]
    refused = server(tmp_path, *short, *other, f"resume={copied}")
    assert refused.status == 1
    (line,) = refused.printed.splitlines()
    assert line.startswith("error: resume: ")
    assert line.endswith("in data.seed, module.seed, seed; init_from=PATH starts a new training from its weights")


def test_a_path_where_nothing_is_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"resume: there is no run or checkpoint at {tmp_path / 'none'}"):
        find_start({"resume": str(tmp_path / "none")}, tmp_path, [])


def test_a_run_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match="resume: no checkpoint can be read in "):
        find_start({"resume": str(tmp_path)}, tmp_path, [])


def test_a_checkpoint_that_holds_only_weights_is_refused(copied, tmp_path):
    last = copied / "checkpoints" / "last.ckpt"
    saved = torch.load(last, weights_only=True)
    del saved["optimizer_states"]
    torch.save(saved, last)
    with pytest.raises(ValueError, match="holds only weights: training can't continue from it"):
        find_start({"resume": str(last)}, tmp_path, [])


def test_a_checkpoint_with_code_in_it_is_refused(copied, tmp_path):
    last = copied / "checkpoints" / "last.ckpt"
    torch.save({"guided_diffusion": {}, "code": Path.cwd}, last)
    with pytest.raises(ValueError, match="holds code, which is not loaded"):
        find_start({"resume": str(last)}, tmp_path, [])


@pytest.mark.slow
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(
    server, short, copied, uninterrupted, saved_step, assert_same, tmp_path
):
    last, best = copied / "checkpoints" / "last.ckpt", saved_step(copied, "best.ckpt")
    os.truncate(last, last.stat().st_size // 2)
    trained = server(tmp_path, *short, "resume=auto")
    assert trained.status == 0, trained.printed
    assert f"skipped: {last} is damaged" in trained.printed
    assert f"continuing from step {best} in {copied}\n" in trained.printed
    assert_same(copied, uninterrupted)


@pytest.mark.slow
def test_a_run_with_only_damaged_checkpoints_is_kept_aside_and_starts_anew_in_its_folder(
    server, short, copied, uninterrupted, assert_same, tmp_path
):
    for path in (copied / "checkpoints").iterdir():
        path.write_bytes(b"damaged")
    trained = server(tmp_path, *short, "resume=auto")
    assert trained.status == 0, trained.printed
    assert f"starting anew in {copied}, which has no checkpoint that can be read\n" in trained.printed
    assert_same(copied, uninterrupted)
    (aside,) = copied.glob("earlier_*")
    assert (aside / "checkpoints" / "last.ckpt").read_bytes() == b"damaged"


def test_damaged_checkpoints_are_not_in_the_place_of_the_new_run(copied, tmp_path):
    config = config_of(copied) | {"resume": "auto"}
    for path in (copied / "checkpoints").iterdir():
        os.truncate(path, path.stat().st_size // 2)
    damaged = find_start(config, tmp_path, [copied])
    assert (damaged, damaged.in_place) == (Start(copied), False)
    for path in (copied / "checkpoints").iterdir():
        path.unlink()
    missing = find_start(config, tmp_path, [copied])
    assert (missing, missing.in_place) == (Start(copied, restarted=True), True)


@pytest.mark.parametrize("resume", ["auto", "{run}"])
def test_a_checkpoint_that_the_system_cannot_read_stops_the_training(resume, copied, tmp_path, monkeypatch):
    def forbidden(path, **_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("guided_diffusion.checkpoints.files.torch.load", forbidden)
    with pytest.raises(OSError, match=r"checkpoints/\w+\.ckpt can't be read: Permission denied"):
        find_start(config_of(copied) | {"resume": resume.format(run=copied)}, tmp_path, [copied])


def test_only_one_process_trains_in_a_folder(copied, tmp_path, capsys):
    descriptor = os.open(copied, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    start = find_start(config_of(copied) | {"resume": "auto"}, tmp_path, [copied])
    refusal = pytest.raises(ValueError, match=f"another process is training in {copied}")
    with refusal, folder_lock(copied):
        pass
    os.close(descriptor)
    assert start == Start(tmp_path)
    assert f"resume=auto: skipped {copied}: another process is training there\n" in capsys.readouterr().out
    with folder_lock(copied):
        pass


@pytest.mark.parametrize("content", [None, "", "- a list", "{half"])
def test_a_folder_without_a_readable_config_is_no_run(content, tmp_path):
    if content is not None:
        (tmp_path / "config.yaml").write_text(content)
    assert config_of(tmp_path) == {}


def test_the_other_processes_of_a_job_start_where_the_first_one_does(tmp_path, monkeypatch):
    monkeypatch.delenv(INHERITED_START, raising=False)
    start = Start(tmp_path / "run", tmp_path / "last.ckpt", step=4, metrics_rows=9, reused=True)
    set_inherited_start(start)
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert find_start({"resume": "auto"}, tmp_path, []) == start
    clear_inherited_start()
    assert INHERITED_START not in os.environ
