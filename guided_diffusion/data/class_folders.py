"""Finding images on disk: a folder for each class as in torchvision's ``ImageFolder``, maybe in folders for splits."""

import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from guided_diffusion.data.base import Split
from guided_diffusion.utils.listing import IMAGE_SUFFIXES, first_few, image_files, is_visible

SPLITS: Mapping[str, Split] = MappingProxyType(
    {
        **{"train": "train", "training": "train"},
        **{"val": "val", "valid": "val", "validation": "val"},
        **{"test": "test", "testing": "test"},
    }
)
"""The split of each folder name, in small letters.

A root is divided into splits if it has a folder for training and no other folders than these.
"""


class ImageFile(NamedTuple):
    """An image on disk."""

    path: Path
    class_name: str
    split: Split
    """The split in whose folder it is; ``train`` if there are no folders for splits."""


def find_class_folders(root: Path) -> dict[Split, list[Path]]:
    """Return the sorted class folders of each split. Without folders for splits, all belong to ``train``.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it has no folders of classes, or a class is not among those for training.
    """
    _check_root(root)
    splits = _find_splits(root)
    _check_links(splits.values())
    found = {split: _folders(folder) for split, folder in splits.items()}
    for split, folder in splits.items():
        if not found[split]:
            raise ValueError(
                f"{folder} has no class folders: put the images of each class into a folder of their own, "
                f"for instance {folder / 'cat' / '1.png'}"
            )
        if unknown := {one.name for one in found[split]} - {one.name for one in found["train"]}:
            raise ValueError(
                f"{folder} has classes that {splits['train']} has not: {first_few(sorted(unknown))}; add training "
                f"images of them, or remove these folders"
            )
    first = found["train"][0]
    if len(found["train"]) == 1 and _folders(first) and not _has_images_of_its_own(first):
        raise ValueError(
            f"{splits['train']} has one class folder, {first.name}, with only folders in it: if these are the classes, "
            f"use data.root={first}"
        )
    return found


def shared_folders(classes: Sequence[Path]) -> list[str]:
    """Return the names of the subfolders if every class folder holds the same ones and no images beside them.

    The user probably has folders for splits with unusual names (``a_train/cat``, ``a_test/cat``). For a single class,
    or a single shared name such as ``images``, nothing is returned.
    """
    first, *others = [[folder.name for folder in _folders(one)] for one in classes]
    is_same = bool(others) and all(names == first for names in others) and len(first) > 1
    return first if is_same and not any(map(_has_images_of_its_own, classes)) else []


def list_images(folders: Mapping[Split, list[Path]]) -> list[ImageFile]:
    """Return the images in the folders of classes.

    Raises:
        ValueError: If a folder for training has none.
    """
    files = [
        ImageFile(path, folder.name, split)
        for split, classes in folders.items()
        for folder in classes
        for path in image_files(folder)
    ]
    filled = {file.class_name for file in files if file.split == "train"}
    if empty := [folder.name for folder in folders["train"] if folder.name not in filled]:
        raise ValueError(
            f"{folders['train'][0].parent} has no images of {first_few(empty)}: fill or remove these folders "
            f"(the endings of images are {', '.join(IMAGE_SUFFIXES)})"
        )
    return files


def _check_root(root: Path) -> None:
    if not root.exists():
        raise FileNotFoundError(
            f"there is no folder {root.absolute()}: name the one that has a folder of images for each class with "
            f"data.root, or in evaluate with data_path"
        )
    if not root.is_dir():
        mend = "unpack it" if zipfile.is_zipfile(root) or tarfile.is_tarfile(root) else "name the folder"
        raise ValueError(f"{root} is a file, but data.root must be a folder with a folder for each class: {mend}")


def _check_links(folders: Iterable[Path]) -> None:
    lost = [path for folder in folders for path in folder.iterdir() if path.is_symlink() and not path.exists()]
    if lost := [path for path in lost if not path.suffix]:
        raise ValueError(f"{lost[0]} is a link to nothing, and may be a class: mend or remove it")


def _find_splits(root: Path) -> dict[Split, Path]:
    """Return the folder of each split, which is the root for training if it has no folders for splits."""
    folders = {folder: SPLITS.get(folder.name.lower()) for folder in _folders(root)}
    found = [split for split in folders.values() if split]
    if "train" not in found or len(found) < len(folders):
        return {"train": root}
    names: dict[Split, str] = {"train": "training", "val": "validation", "test": "testing"}
    if repeated := [names[split] for split in names if found.count(split) > 1]:
        raise ValueError(f"{root} has more than one folder for {repeated[0]}: keep one")
    return {split: folder for folder, split in folders.items() if split}


def _has_images_of_its_own(folder: Path) -> bool:
    first = next(image_files(folder), None)  # those in the folder come before those in folders below
    return first is not None and first.parent == folder


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_visible(path.name) and path.is_dir())
