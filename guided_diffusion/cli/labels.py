"""Reads the classes that ``labels=[...]`` asks for: numbers or names, in any order and with repeats."""

from collections.abc import Sequence
from typing import Any

from guided_diffusion.cli.source import Source


def class_numbers(labels: Sequence[Any], class_names: Sequence[str], key: str = "labels") -> list[int]:
    """Return the number of each class, which is given by its number or its name.

    Raises:
        ValueError: If the list is empty, or holds a label that is no class, or a number that may mean two classes.
    """
    for label in labels:
        _check_one_meaning(label, class_names, key)
    numbers = [_number(label, class_names) for label in labels]
    wrong = [label for label, number in zip(labels, numbers, strict=True) if number is None]
    if wrong or not numbers:
        names = ", ".join(f"{index} ({name})" for index, name in enumerate(class_names))
        raise ValueError(f"{key} must be among {names}; got {wrong or 'none'}")
    return [number for number in numbers if number is not None]


def _check_one_meaning(label: Any, class_names: Sequence[str], key: str) -> None:
    """Raise ``ValueError`` for a number that is the name of another class: folders may be called 2 or 10."""
    if isinstance(label, int) and str(label) in class_names and class_names.index(str(label)) != label:
        names = ", ".join(f"'{name}'" for name in class_names)
        raise ValueError(f"{key}: {label} may be a number or the name of a class: write names, in quotes: {names}")


def _number(label: Any, class_names: Sequence[str]) -> int | None:
    """Return the number of a class, or ``None`` if there is no such class."""
    if isinstance(label, str):
        return class_names.index(label) if label in class_names else None
    is_class = isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(class_names)
    return label if is_class else None


def labels_of_images(labels: Sequence[int] | None, source: Source, num_classes: int, key: str = "labels") -> list[int]:
    """Return the label of each image of ``source``: those given, one for all or one for each, or else the file's.

    Raises:
        ValueError: If there is neither one label for all nor one for each, or a label of the file is no class.
    """
    count = len(source.samples)
    if labels is None and source.labels is not None:
        wrong = [label for label in source.labels if not 0 <= label < num_classes]
        if wrong:
            raise ValueError(f"from: the file's label {wrong[0]} is no class of the model: add {key}=[...]")
        return list(source.labels)
    if labels is None or len(labels) not in (1, count):
        given = "none" if labels is None else str(len(labels))
        raise ValueError(f"{key} must hold one class for all of the {count} images or one for each, got {given}")
    return list(labels) * (count if len(labels) == 1 else 1)
