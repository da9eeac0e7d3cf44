"""A checkpoint that can't be written leaves the one before it."""

import shutil
import signal
import subprocess

import pytest
import torch

from guided_diffusion.training.resume.checkpoint_io import AtomicCheckpointIO


def test_a_checkpoint_is_written_whole_and_alone(tmp_path):
    AtomicCheckpointIO().save_checkpoint({"step": 1}, tmp_path / "new" / "last.ckpt")
    assert torch.load(tmp_path / "new" / "last.ckpt") == {"step": 1}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["last.ckpt"]


def test_a_failed_save_keeps_the_checkpoint_before_it(tmp_path, monkeypatch):
    def fail(checkpoint, file):
        file.write(b"half")
        raise RuntimeError("PytorchStreamWriter failed\nwith a stack")

    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match=f"saved in {tmp_path}: PytorchStreamWriter failed; the one before it is intact"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    assert torch.load(path) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of four megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_a_training_on_a_full_disk_stops_and_can_be_resumed(
    server, short, small_disk, uninterrupted, only_run, saved_step, assert_same
):
    """A checkpoint takes a megabyte; half of that is free when the third is written."""
    size = (uninterrupted / "checkpoints" / "last.ckpt").stat().st_size
    server(small_disk, *short, signal=signal.SIGKILL, at=["step", 5])
    run = only_run(small_disk)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - size // 2))
    stopped = server(small_disk, *short, "resume=auto")
    assert stopped.status == 1, stopped.printed
    (line,) = [text for text in stopped.printed.splitlines() if text.startswith("error: ")]
    assert f"the checkpoint could not be saved in {run / 'checkpoints'}: No space left on device" in line
    assert "Traceback" not in stopped.printed
    assert saved_step(run) == 4
    assert not list(run.rglob("*.part"))
    filler.unlink()
    assert server(small_disk, *short, "resume=auto").status == 0
    assert_same(run, uninterrupted)
