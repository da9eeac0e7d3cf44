import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from guided_diffusion.utils.listing import data_hash, first_few, image_files


@pytest.fixture
def folder(tmp_path):
    for name in ("b/2.PNG", "b/10.jpg", "a/x/1.gif", "a/notes.txt", "a/.1.png", ".git/1.png", "__MACOSX/1.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(name.encode())
    return tmp_path / "images"


def test_the_images_of_a_folder_are_found_in_order_without_hidden_and_other_files(folder):
    assert [str(path.relative_to(folder)) for path in image_files(folder)] == ["a/x/1.gif", "b/10.jpg", "b/2.PNG"]


def test_images_in_linked_folders_are_found(folder, tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "c").symlink_to(folder / "b")
    assert [path.name for path in image_files(tmp_path / "links")] == ["10.jpg", "2.PNG"]


def test_a_link_to_a_folder_above_ends(folder):
    (folder / "a" / "up").symlink_to(folder)
    assert len(list(image_files(folder))) == 3


def test_a_folder_that_cannot_be_read_is_an_error_that_names_it(folder, monkeypatch):
    scan = os.scandir

    def refuse(path):  # root may read every folder, so that permissions are no test
        if Path(path).name == "x":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match=r"Permission denied: .*images/a/x"):
        list(image_files(folder))
    assert data_hash(folder) is None


def test_the_hash_of_a_folder_depends_on_the_names_and_sizes_of_its_images_only(folder, tmp_path):
    before = data_hash(folder)
    (folder / "a" / "notes.txt").write_text("changed")
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert data_hash(folder) == data_hash(copy) == data_hash(str(copy)) == before
    (copy / "b" / "2.PNG").rename(copy / "b" / "3.PNG")
    (folder / "b" / "2.PNG").write_text("larger than before")
    assert len({before, data_hash(folder), data_hash(copy)}) == 3


def test_a_folder_with_a_link_to_nothing_has_a_hash_of_its_own(folder):
    before = data_hash(folder)
    (folder / "b" / "3.png").symlink_to(folder / "nowhere.png")
    assert data_hash(folder) not in (before, None)


def test_the_hash_of_an_archive_depends_on_its_content_only(tmp_path):
    for name, value in {"a": 1, "b": 1, "c": 2}.items():
        np.savez(tmp_path / f"{name}.npz", images=np.full(9, value))
    first, same, other = (data_hash(tmp_path / f"{name}.npz") for name in "abc")
    assert first == same != other


def test_missing_or_unreadable_data_have_no_hash(tmp_path):
    (tmp_path / "text.npz").write_text("no archive")
    assert [data_hash(path) for path in (None, tmp_path / "nothing", tmp_path / "text.npz")] == [None] * 3


@pytest.mark.parametrize(("count", "text"), [(2, "0, 1"), (3, "0, 1, 2"), (5, "0, 1, 2 and 2 more")])
def test_a_long_list_of_names_is_shortened(count, text):
    assert first_few([str(index) for index in range(count)], 3) == text
