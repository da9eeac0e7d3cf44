"""Whether two models share schedule, range, shape and classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from guided_diffusion.schedules import Schedule

VALUE_RANGE = (-1.0, 1.0)
"""Of the pixels, or the coordinates, that every model of this package sees."""


@dataclass(frozen=True)
class ModelSpec:
    """What two models must have in common to work together."""

    source: str
    """Where the model is from, for messages."""
    schedule: Schedule
    shape: tuple[int, ...]
    """Of one sample: channels, height, width of an image, coordinates of a point."""
    class_names: tuple[str, ...]
    value_range: tuple[float, float] = VALUE_RANGE
    """Of the pixels."""


def check_match(one: ModelSpec, other: ModelSpec) -> None:
    """Raise ``ValueError`` unless both are for the same noise, range, images and classes."""
    for spec, name in (
        ("schedule", "schedule"),
        ("value_range", "range of pixels"),
        ("shape", "shape of images"),
        ("class_names", "classes"),
    ):
        values = getattr(one, spec), getattr(other, spec)
        if values[0] != values[1]:
            raise ValueError(
                f"{one.source} and {other.source} can't work together: {name} of the first: {_shown(values[0])}; "
                f"of the second: {_shown(values[1])}"
            )


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
