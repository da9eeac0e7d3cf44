import errno
import fcntl
import threading
import time

import pytest

from guided_diffusion.utils.locks import file_lock, try_lock


def test_a_folder_that_another_has_locked_can_not_be_locked_until_it_is_closed(tmp_path):
    with (tmp_path / "lock").open("w") as other:
        assert try_lock(other.fileno())
        with (tmp_path / "lock").open() as file:
            assert not try_lock(file.fileno())
    with (tmp_path / "lock").open() as file:
        assert try_lock(file.fileno())


@pytest.fixture
def waiting():
    """Start threads that take a lock one after another, and return the processor time that they use."""
    spent, threads = [], []

    def wait(path, done):
        before = time.thread_time()
        with file_lock(path, "another is first"):
            done.append(len(done))
        spent.append(time.thread_time() - before)

    def start(path, done, count):
        threads.extend(threading.Thread(target=wait, args=(path, done)) for _ in range(count))
        for thread in threads:
            thread.start()
        return threads, spent

    yield start
    for thread in threads:
        thread.join(10)


def test_others_wait_asleep_for_the_lock_and_then_take_turns(tmp_path, waiting, capsys):
    path, done = tmp_path / "folder" / "lock", []
    with file_lock(path, "another is first"):
        threads, spent = waiting(path, done, 3)
        threads[0].join(0.3)
        assert done == []
    for thread in threads:
        thread.join(10)
    assert done == [0, 1, 2]
    assert sum(spent) < 0.1
    assert capsys.readouterr().out == "waiting: another is first\n" * 3
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
