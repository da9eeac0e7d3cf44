"""Checks that two models share their noise schedule, value range, sample shape and classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from guided_diffusion.checkpoints.guidance_config import classifier_checkpoint, guidance_needs_classifier
from guided_diffusion.checkpoints.record import TRUSTED, VALUE_RANGE, SavedModel
from guided_diffusion.schedules import Schedule


@dataclass(frozen=True)
class ModelSpec:
    """The properties that two models must share to work together."""

    source: str
    """The file or training that the model is from, for messages."""
    schedule: Schedule
    shape: tuple[int, ...]
    """The shape of one sample: channels, height and width of an image, or the number of coordinates of a point."""
    class_names: tuple[str, ...]
    value_range: tuple[float, float] = VALUE_RANGE
    """The range of the pixels, or the coordinates."""

    @classmethod
    def of(cls, saved: SavedModel) -> ModelSpec:
        """Return the properties of a model in a file."""
        return cls(str(saved.path), saved.schedule(), saved.shape, saved.class_names, saved.value_range)


def read_spec(checkpoint: str | Path, kind: str, trusted: tuple[str, ...] = TRUSTED) -> ModelSpec:
    """Return the properties of the model in a checkpoint without rebuilding it; raises the errors of ``load``."""
    return ModelSpec.of(SavedModel.read(Path(checkpoint), kind, ("schedule",), trusted))


def check_match(one: ModelSpec, other: ModelSpec) -> None:
    """Raise ``ValueError`` unless both models are for the same schedule, range, shape and classes."""
    for field, name in (
        ("schedule", "schedule"),
        ("value_range", "range of pixels"),
        ("shape", "shape of images"),
        ("class_names", "classes"),
    ):
        first, second = getattr(one, field), getattr(other, field)
        if first != second:
            raise ValueError(
                f"{one.source} and {other.source} can't work together: {name} of the first: {_format(first)}; "
                f"of the second: {_format(second)}"
            )


def check_guidance(node: DictConfig | dict[str, Any], spec: ModelSpec) -> None:
    """Raise ``ValueError`` if a guidance needs a classifier and names none, or one that does not match the model."""
    if not guidance_needs_classifier(node):
        return
    path = classifier_checkpoint(node)
    if not path:
        raise ValueError("guidance.classifier is missing: add guidance.classifier=PATH, the checkpoint of a classifier")
    check_match(spec, read_spec(path, "classifier"))


def _format(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
