"""Which trainings are the same: in all of their config, or in what decides the weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from guided_diffusion.utils.files import content_hash

DECIDING = ("seed", "label_dropout", "data", "network", "schedule", "weighting", "module", "trainer", "callbacks.ema")
"""What decides the weights, save for what is in ``OBSERVING`` and ``WATCHING``."""


OBSERVING = (
    "callbacks.noise",
    *(
        f"trainer.{name}"
        for name in ("val_check_interval", "check_val_every_n_epoch", "limit_val_batches", "num_sanity_val_steps")
    ),
)
"""What changes nothing of the weights, but what a training leaves beside them: its validations."""


WATCHING = (
    "name",
    "output_dir",
    "resume",
    "classifier",
    "scales",
    "untaught_scales",
    "guidance",
    "threshold",
    "sampler",
    "recipe",
    "judge",
    "logger",
    *(
        f"callbacks.{name}"
        for name in (
            "last",
            "best",
            "finite",
            "throughput",
            "progress",
            "learning_rate",
            "sample_grid",
            "accuracy",
            "distance",
            "guide",
        )
    ),
    "data.root",
    *(
        f"trainer.{name}"
        for name in (
            "default_root_dir",
            "log_every_n_steps",
            "enable_model_summary",
            "enable_progress_bar",
        )
    ),
)
"""What changes nothing of the weights. A key that is nowhere is one that a user has added: it may decide them."""


def same_training(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two resolved configs are equal in all but where the outputs are."""
    return _placeless(one) == _placeless(other)


def deciding_differences(config: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The keys in which two resolved configs differ, of those that decide the weights."""
    one, two = flat(config), flat(other)
    return sorted(key for key in one.keys() | two.keys() if _decides(key) and one.get(key) != two.get(key))


def training_fingerprint(config: dict[str, Any]) -> str:
    """Of all of a resolved config that may decide the weights, or what a training leaves beside them."""
    return content_hash({key: value for key, value in _placeless(config).items() if not within(key, WATCHING)})


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts and lists as one, by dotted keys."""
    if not isinstance(node, dict | list):
        return {prefix: node}
    items: Iterable[tuple[Any, Any]] = node.items() if isinstance(node, dict) else enumerate(node)
    empty = {} if node else {prefix: type(node)()}
    return empty | {
        key: value
        for name, child in items
        for key, value in flat(child, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def within(key: str, parts: Iterable[str]) -> bool:
    """Whether a dotted key is one of these or below one."""
    return any(f"{key}.".startswith(f"{part}.") for part in parts)


def _placeless(config: dict[str, Any]) -> dict[str, Any]:
    place = str(config.get("output_dir"))
    return {
        key: value.replace(place, "") if isinstance(value, str) else value
        for key, value in flat(config).items()
        if key not in ("resume", "output_dir")
    }


def _decides(key: str) -> bool:
    return within(key, DECIDING) and not within(key, (*OBSERVING, *WATCHING))
