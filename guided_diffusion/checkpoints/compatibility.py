"""Checks that two models share their noise schedule, value range, sample shape and classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from guided_diffusion.checkpoints.guidance_config import (
    AUTO,
    classifier_checkpoint,
    guidance_needs_classifier,
    guidance_needs_weak,
    weak_checkpoint,
)
from guided_diffusion.checkpoints.judge_file import holds_judge, judge_spec
from guided_diffusion.checkpoints.record import ModelSpec, SavedModel
from guided_diffusion.data import kind_of
from guided_diffusion.utils.validation import DoesNotSuit


def read_spec(checkpoint: str | Path, kind: str, trusted: Sequence[str] = ()) -> ModelSpec:
    """Return the properties of the model in a checkpoint without rebuilding it; raises the errors of ``load``."""
    return SavedModel.read(checkpoint, kind, ("schedule",), trusted).spec


def check_match(one: ModelSpec, other: ModelSpec) -> None:
    """Raise ``ValueError`` unless both models are for the same schedule, range, shape and classes."""
    kind = kind_of(one.shape) if kind_of(one.shape) == kind_of(other.shape) else "samples"
    names = {
        "schedule": "schedule",
        "value_range": f"range of {'coordinates' if kind == 'points' else 'pixels'}",
        "shape": f"shape of {kind}",
        "class_names": "classes",
    }
    for field, name in names.items():
        first, second = getattr(one, field), getattr(other, field)
        if first != second:
            raise ValueError(
                f"{one.source} and {other.source} can't work together: {name} of the first: {_format(first)}; "
                f"of the second: {_format(second)}"
            )


def check_guidance(node: DictConfig | dict[str, Any], spec: ModelSpec, trusted: Sequence[str] = ()) -> None:
    """Raise ``ValueError`` if a guidance needs another model and names none, or one that does not match the model.

    That is a classifier or a weaker diffusion model. The classifier of ``auto`` is made for the model.
    ``trusted`` names the packages that the other model's checkpoint may use, as for ``load``.
    """
    if guidance_needs_classifier(node):
        path = classifier_checkpoint(node)
        if not path:
            raise DoesNotSuit(
                "guidance.classifier is missing: add guidance.classifier=PATH, the checkpoint of a classifier, or "
                "classifier=auto, which trains one"
            )
        if path != AUTO:
            is_judge = holds_judge(path)
            check_match(spec, judge_spec(path, spec.schedule) if is_judge else read_spec(path, "classifier", trusted))
    if guidance_needs_weak(node):
        path = weak_checkpoint(node)
        if not path:
            raise DoesNotSuit(
                "guidance.weak is missing: add weak=PATH, the checkpoint of a smaller or less trained diffusion model"
            )
        check_match(spec, read_spec(path, "diffusion", trusted))


def _format(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
