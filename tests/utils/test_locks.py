import errno
import fcntl

from guided_diffusion.utils.locks import file_lock


def test_where_the_file_system_has_no_locks_nobody_waits(tmp_path, monkeypatch, capsys):
    def without_locks(*arguments):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", without_locks)
    with file_lock(tmp_path / "lock", "another is first"), file_lock(tmp_path / "lock", "another is first"):
        pass
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []
