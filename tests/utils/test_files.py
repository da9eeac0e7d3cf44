import resource
from contextlib import contextmanager

import pytest
import torch

from guided_diffusion.utils.files import (
    atomic_write,
    cache_dir,
    check_writable,
    content_hash,
    load_tensors,
    save_tensors,
)


def test_the_cache_folder_can_be_set_by_an_environment_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("GUIDED_DIFFUSION_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("GUIDED_DIFFUSION_CACHE")
    assert cache_dir().name == "guided_diffusion"


def test_a_written_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "folder" / "table.csv"
    with atomic_write(path) as temporary:
        temporary.write_text("complete")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.suffix == ".csv"  # libraries choose the format by it
    assert path.read_text() == "complete"
    assert list(path.parent.iterdir()) == [path]


def test_an_existing_file_stays_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_after_an_error_only_the_existing_file_is_left(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def fail():
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_hash_depends_on_the_data_and_on_the_content_of_files(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    first = content_hash({"a": 1, "b": [2, 3]}, file)
    assert len(first) == 16
    assert content_hash({"b": [2, 3], "a": 1}, file) == first
    assert content_hash({"a": 1, "b": [3, 2]}, file) != first
    file.write_bytes(b"two")
    assert content_hash({"a": 1, "b": [2, 3]}, file) != first


def test_tensors_and_plain_data_are_read(tmp_path):
    torch.save({"x": torch.ones(2), "n": 3}, tmp_path / "x.pt")
    content = load_tensors(tmp_path / "x.pt")
    assert (content["x"].tolist(), content["n"]) == ([1, 1], 3)


@contextmanager
def small_files():
    """Let no file grow beyond a thousand bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_saved_tensors_can_be_loaded(tmp_path):
    save_tensors({"x": torch.ones(2)}, tmp_path / "new" / "x.pt")
    assert load_tensors(tmp_path / "new" / "x.pt")["x"].tolist() == [1, 1]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.pt"]


@pytest.mark.parametrize(
    ("cache", "mend"), [(".", "make space there or put the cache on another disk"), ("cache", "make space there$")]
)
def test_the_error_for_a_full_disk_names_the_file_and_keeps_the_one_before_it(cache, mend, tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDED_DIFFUSION_CACHE", str(tmp_path / cache))
    path = tmp_path / "x.pt"
    path.write_text("before")
    with pytest.raises(OSError, match=rf"^{path} can't be written: File too large; {mend}"), small_files():
        save_tensors({"x": torch.ones(10_000)}, path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_are_not_blamed_on_the_disk(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"x\.pt can't be written: (File exists|Not a directory)$"):
        save_tensors({"x": torch.ones(2)}, tmp_path / "file" / "x.pt")
    with pytest.raises(AttributeError, match="local object"):
        save_tensors({"x": lambda: None}, tmp_path / "x.pt")


class Writes:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_file_with_code_is_refused_and_the_code_is_not_run(tmp_path):
    torch.save(Writes(tmp_path / "it ran"), tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x\.pt is damaged, or holds code"):
        load_tensors(tmp_path / "x.pt")
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize("content", [b"", b"half", b"\0" * 100, b"no tensors", bytes(range(256))])
def test_a_damaged_file_is_refused(content, tmp_path):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.pt is damaged, or holds code"):
        load_tensors(tmp_path / "x.pt")


def test_a_truncated_file_is_refused(tmp_path):
    torch.save({"x": torch.ones(200)}, tmp_path / "x.pt")
    (tmp_path / "x.pt").write_bytes((tmp_path / "x.pt").read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"x\.pt is damaged, or holds code"):
        load_tensors(tmp_path / "x.pt")


def test_a_folder_that_can_be_written_is_left_as_it_is(tmp_path):
    check_writable(tmp_path / "new" / "deeper", "the cache")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=f"^the cache: {tmp_path}/file/deeper can't be written: Not a directory$"):
        check_writable(tmp_path / "file" / "deeper", "the cache")


def test_too_little_free_space_is_refused(tmp_path):
    with pytest.raises(OSError, match=r"^the cache: .* has .* GB free, and 1e\+09 GB are needed$"):
        check_writable(tmp_path, "the cache", needed=10**18)
