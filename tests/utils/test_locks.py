import errno
import fcntl
import threading
import time

import pytest

from guided_diffusion.utils import locks
from guided_diffusion.utils.locks import file_lock, try_folder_lock


@pytest.fixture(params=["unix", "windows"])
def system(request, monkeypatch):
    """Locks as on Unix, and as on Windows."""
    if request.param == "windows":
        monkeypatch.setattr(locks, "fcntl", None)


@pytest.mark.usefixtures("system")
def test_a_locked_folder_is_not_free_until_the_block_ends(tmp_path):
    with try_folder_lock(tmp_path) as first, try_folder_lock(tmp_path) as second:
        assert (first, second) == (True, False)
    with try_folder_lock(tmp_path) as again:
        assert again


def test_on_windows_others_wait_for_the_lock_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    announced, done = threading.Event(), []
    monkeypatch.setattr(locks, "print", lambda line, flush: announced.set(), raising=False)

    def wait():
        with file_lock(tmp_path / "lock", "another is first"):
            done.append(True)

    thread = threading.Thread(target=wait)
    with file_lock(tmp_path / "lock", "another is first"):
        thread.start()
        assert announced.wait(10)
        assert done == []
    thread.join(10)
    assert done == [True]


def test_others_wait_asleep_for_the_lock_and_then_take_turns(tmp_path, monkeypatch):
    announced, done, spent = threading.Semaphore(0), [], []
    monkeypatch.setattr(locks, "print", lambda line, flush: announced.release(), raising=False)
    path = tmp_path / "folder" / "lock"

    def wait():
        before = time.thread_time()
        with file_lock(path, "another is first"):
            done.append(len(done))
        spent.append(time.thread_time() - before)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    with file_lock(path, "another is first"):
        for thread in threads:
            thread.start()
        assert all(announced.acquire(timeout=10) for _ in threads)
        threads[0].join(0.3)
        assert done == []
    for thread in threads:
        thread.join(10)
    assert done == [0, 1, 2]
    assert sum(spent) < 0.1
    assert not announced.acquire(blocking=False)  # each has said once that it waits
    assert list(path.parent.iterdir()) == []


def test_a_lock_file_that_a_killed_process_has_left_is_free(tmp_path, capsys):
    (tmp_path / "lock").touch()
    with file_lock(tmp_path / "lock", "another is first"):
        pass
    assert capsys.readouterr().out == ""


def test_nobody_waits_where_the_file_system_has_no_locks(tmp_path, monkeypatch, capsys):
    def without_locks(*arguments):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", without_locks)
    with file_lock(tmp_path / "lock", "another is first"), file_lock(tmp_path / "lock", "another is first"):
        pass
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []
