"""All files that an earlier run left in a folder, and no others, are moved to a folder of their own."""

import os

import pytest

from guided_diffusion.training.resume import keep_aside as module
from guided_diffusion.training.resume.keep_aside import keep_aside

RUN = (
    *("config.yaml", "command.txt", "metrics.csv", "finished.txt", "checkpoints/last.ckpt", "samples/step_000004.png"),
    *("accuracy_by_scale.csv", "accuracy_by_scale.png", "tensorboard/events.out.tfevents.1"),
)
FOREIGN = ("notes.txt", "samples/mine.png", "checkpoints/mine.pt", "wandb/run-1/data", "earlier_1/config.yaml")


def write(folder, names, text):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path):
    """The folder of a run that began in the first second of 1970, with files of the user's own."""
    write(tmp_path, RUN, "run")
    write(tmp_path, FOREIGN, "foreign")
    os.utime(tmp_path / "config.yaml", (0, 0))
    return tmp_path


def test_all_files_of_the_run_are_moved_and_no_others(folder, capsys):
    moved = keep_aside(folder)
    (aside,) = folder.glob("earlier_19*")  # the last day of 1969 west of Greenwich
    assert files(aside) == dict.fromkeys(RUN, "run")
    assert {name for name in files(folder) if not name.startswith(aside.name)} == {*FOREIGN}
    assert moved == {folder / name: aside / name for name in RUN}
    assert capsys.readouterr().out == f"an earlier run in {folder} is kept in {aside}\n"
    assert keep_aside(folder) == {}


@pytest.mark.parametrize("renamed", range(len(RUN)))
def test_a_move_that_is_interrupted_is_completed_into_the_same_folder(renamed, folder, monkeypatch):
    rename, count = module.Path.rename, iter(range(len(RUN)))

    def killed(path, target):
        if next(count) == renamed:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(module.Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            keep_aside(folder)
    keep_aside(folder)
    (aside,) = folder.glob("earlier_19*")
    left = {name for name in RUN if (folder / name).exists()}
    assert left <= {"config.yaml", "command.txt"}  # records, which the next run writes anew
    assert {*files(aside)} | left == {*RUN}


def test_two_runs_that_began_in_the_same_second_have_folders_of_their_own(folder):
    keep_aside(folder)
    write(folder, RUN, "second")
    os.utime(folder / "config.yaml", (0, 0))
    keep_aside(folder)
    first, second = sorted(folder.glob("earlier_19*"))
    assert files(first) == dict.fromkeys(RUN, "run")
    assert files(second) == dict.fromkeys(RUN, "second")


def test_a_run_that_left_no_results_is_replaced(tmp_path):
    write(tmp_path, ["config.yaml", "command.txt", "hparams.yaml"], "run")
    assert keep_aside(tmp_path) == {}
    assert len(files(tmp_path)) == 3
