"""Log metrics against the guidance scale, in the same way in training and evaluation."""

from collections.abc import Mapping
from typing import Any

SCALE = "guidance/scale"


def metrics_by_scale(key: str, values: Mapping[float, float]) -> dict[str, float]:
    """Return one metric for each scale, such as ``guidance/accuracy_w3``, for loggers whose only axis is the step."""
    return {f"{key}_w{scale:g}": value for scale, value in values.items()}


def log_against_scale(run: Any, scale: float, values: Mapping[str, Any]) -> None:
    """Log values to a W&B run, at a point of the axis ``guidance/scale``."""
    # Each key by name: of the patterns guidance/* and * (which Lightning defines) W&B would pick one at random.
    run.define_metric(SCALE)
    for key in values:
        run.define_metric(key, step_metric=SCALE)
    run.log({SCALE: scale, **values})
