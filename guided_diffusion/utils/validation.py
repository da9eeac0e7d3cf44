"""Checks of constructor arguments."""

from collections.abc import Sequence


class DoesNotSuit(ValueError):
    """An option that is right in itself, but not for this model; a sweep over all options leaves it out."""


def check_positive(**values: int) -> None:
    """Raise ``ValueError`` that names the first of the values that is below 1."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def check_not_negative(**values: int) -> None:
    """Raise ``ValueError`` that names the first of the values that is below 0."""
    for name, value in values.items():
        if value < 0:
            raise ValueError(f"{name} must be at least 0, got {value}")


def height_and_width(image_size: int | Sequence[int]) -> tuple[int, int]:
    """Return the height and the width, in pixels, of images of this size.

    Args:
        image_size: The side of square images, or height and width.

    Raises:
        ValueError: If it holds another number of sizes, or one below 1.
    """
    sizes = [image_size, image_size] if isinstance(image_size, int) else list(image_size)
    if len(sizes) != 2:
        raise ValueError(f"image_size must be one number, or height and width, got {sizes}")
    if min(sizes) < 1:
        raise ValueError(f"image_size must be at least 1, got {image_size if isinstance(image_size, int) else sizes}")
    return sizes[0], sizes[1]
