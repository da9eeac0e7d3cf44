import pytest

from guided_diffusion.utils.files import atomic_write


def test_the_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "folder" / "table.csv"
    with atomic_write(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.suffix == ".csv"  # libraries choose the format by it
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_after_an_error_the_old_file_is_all_there_is(tmp_path):
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
