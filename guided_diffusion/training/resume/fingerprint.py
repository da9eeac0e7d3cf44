"""The comparison of training configs: whether they are equal, and whether they lead to the same weights."""

import math
import re
from collections.abc import Iterable
from types import MappingProxyType
from typing import Any

from guided_diffusion.utils.files import content_hash

WEIGHT_KEYS = (
    *("seed", "label_dropout", "data", "network", "schedule", "weighting", "time_sampling", "module", "trainer"),
    *("callbacks.ema", "init_from"),
)
"""The keys of a config that decide the weights, except for those in ``VALIDATION_KEYS`` and ``NEUTRAL_KEYS``."""

VALIDATION_KEYS = (
    *("callbacks.noise", "trainer.val_check_interval", "trainer.check_val_every_n_epoch", "trainer.limit_val_batches"),
    "trainer.num_sanity_val_steps",
)
"""The keys that leave the weights as they are, but change the validations that a training records."""

FREE_KEYS = (
    *("resume", "output_dir", "trusted", "data.root", "data.path", "data.num_workers", "trainer.max_time"),
    *("trainer.enable_model_summary", "trainer.enable_progress_bar"),
)
"""The keys that may change when a training is resumed: they affect neither the weights nor the records."""

NEUTRAL_KEYS = (
    *FREE_KEYS,
    *("name", "classifier", "weak", "scales", "untaught_scales", "guidance", "threshold"),
    *("sampler", "recipe", "judge", "guide", "logger"),
    *("callbacks.last", "callbacks.best", "callbacks.finite", "callbacks.throughput", "callbacks.progress"),
    *("callbacks.learning_rate", "callbacks.sample_grid", "callbacks.accuracy", "callbacks.distance"),
    *("callbacks.guide", "trainer.default_root_dir", "trainer.log_every_n_steps"),
)
"""The keys that leave the weights unchanged. A key in none of the lists was added by a user and may change them."""

LATER_KEYS = MappingProxyType(
    {
        "init_from": None,
        "trainer.accumulate_grad_batches": 1,
        "callbacks.ema.warm_up": 10,
        "time_sampling._target_": "guided_diffusion.losses.UniformTimes",
        "module.time_sampling._target_": "guided_diffusion.losses.UniformTimes",
        "module.adversarial": None,
        "module.optimizer.ns_steps": 5,
        "guidance.sigma_lo": 0.0,
        "guidance.sigma_hi": math.inf,
        "guidance.classifier_sigma_lo": 0.0,
        "guidance.classifier_sigma_hi": math.inf,
    }
)
"""The keys that older configs lack, with the values that mean the same."""


ABSENT = object()
"""The value of a key that a config does not have."""


def same_training(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two resolved configs are equal except for the keys that may differ when a training is resumed."""
    return not _differing(one, other)


def differing_keys(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the dotted keys that make two resolved configs different trainings, without copies.

    Where ``scales`` differs, ``callbacks.accuracy.scales`` is a copy and not listed.
    """
    keys = {re.sub(r"(\.\d+)+$", "", key) for key in _differing(one, other)}  # a list is one key
    return sorted(key for key in keys if not any(_follows(key, leading) for leading in keys - {key}))


def _follows(key: str, leading: str) -> bool:
    return key.endswith(f".{leading}") or is_below(key, [leading])


def _differing(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    """Return the flat keys that differ; where one is an older config without a node ``guide``, that does not count."""
    flat, flat_other = _without_folder(one), _without_folder(other)
    ignored = () if {"guide"} <= one.keys() & other.keys() else ("guide",)
    keys = (key for key in flat.keys() | flat_other.keys() if not is_below(key, ignored))
    return {key for key in keys if flat.get(key, ABSENT) != flat_other.get(key, ABSENT)}


def is_of_training(record: dict[str, Any], config: dict[str, Any]) -> bool:
    """Return whether a checkpoint with this record was saved by the training that a resolved config describes.

    No config describes a run that continued from a checkpoint with other settings.
    """
    same_fingerprint = training_fingerprint(record["config"]) == training_fingerprint(config)
    return same_fingerprint and "continued_from" not in record


def differing_weight_keys(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the dotted keys that decide the weights and differ between two resolved configs."""
    flat, flat_other = _flat(one), _flat(other)
    ignored = (*VALIDATION_KEYS, *NEUTRAL_KEYS)
    keys = [key for key in flat.keys() | flat_other.keys() if is_below(key, WEIGHT_KEYS) and not is_below(key, ignored)]
    return sorted(key for key in keys if flat.get(key) != flat_other.get(key))


def training_fingerprint(config: dict[str, Any]) -> str:
    """Return a hash of everything in a resolved config that may change the weights or the recorded validations."""
    values = _without_folder(config)
    return content_hash({key: value for key, value in values.items() if not is_below(key, NEUTRAL_KEYS)})


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested dicts and lists as one dict with dotted keys."""
    if not isinstance(node, dict | list):
        return {prefix: node}
    items: Iterable[tuple[Any, Any]] = node.items() if isinstance(node, dict) else enumerate(node)
    empty = {} if node else {prefix: type(node)()}
    return empty | {
        key: value
        for name, child in items
        for key, value in flatten(child, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def is_below(key: str, parents: Iterable[str]) -> bool:
    """Return whether a dotted key is one of these keys or below one."""
    return any(f"{key}.".startswith(f"{parent}.") for parent in parents)


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """Return the flat config, in which ``init_from`` is the hash of the weights, and their path is left out."""
    flat = LATER_KEYS | flatten(config)
    flat.pop("init_from.path", None)
    if "init_from.content" in flat:
        flat["init_from"] = flat.pop("init_from.content")
    return flat


def _without_folder(config: dict[str, Any]) -> dict[str, Any]:
    """Return the flat config without the keys that may differ in a resumed run, and values without the run's folder."""
    folder = str(config.get("output_dir"))
    return {
        key: value.replace(folder, "") if isinstance(value, str) else value
        for key, value in _flat(config).items()
        if not is_below(key, FREE_KEYS)
        and key != "callbacks.learning_rate._target_"  # older configs name Lightning's class
    }
