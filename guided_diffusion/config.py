"""The configuration: the schema of each program, and the one place that turns a config node into an object."""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import MISSING, DictConfig, OmegaConf

_PACKAGE = Path(__file__).parent
CONFIG_PATH = str(next(path for path in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if path.is_dir()))
"""``conf/``: inside the package in an installed wheel, beside it in a checkout."""


@dataclass
class TrainConfig:
    """What ``train`` reads. A key that is not here is an error that names it."""

    name: str = MISSING
    seed: int = MISSING
    output_dir: str = MISSING
    label_dropout: float = MISSING
    classifier: str | None = None
    scales: list[float] = MISSING
    data: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    weighting: dict[str, Any] = field(default_factory=dict)
    module: dict[str, Any] = field(default_factory=dict)
    guidance: dict[str, Any] = field(default_factory=dict)
    threshold: dict[str, Any] = field(default_factory=dict)
    sampler: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    judge: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)


@dataclass
class SampleConfig:
    """What ``sample`` reads."""

    checkpoint: str | None = None
    classifier: str | None = None
    labels: list[int] | None = None
    num_samples: int | None = None
    seed: int = MISSING
    animate: bool = MISSING
    compare: bool = MISSING
    weights: str = MISSING
    device: str = MISSING
    output_dir: str = MISSING
    guidance: dict[str, Any] = field(default_factory=dict)
    threshold: dict[str, Any] = field(default_factory=dict)
    sampler: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)


@dataclass
class EvaluateConfig:
    """What ``evaluate`` reads."""

    name: str = MISSING
    checkpoint: str | None = None
    classifier: str | None = None
    scales: list[float] | None = None
    num_samples: int = MISSING
    seed: int = MISSING
    weights: str = MISSING
    output_dir: str = MISSING
    guidance: dict[str, Any] = field(default_factory=dict)
    threshold: dict[str, Any] = field(default_factory=dict)
    sampler: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    judge: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)


def register() -> None:
    """Make the schemas and the resolvers known to Hydra; as often as one likes."""
    store = ConfigStore.instance()
    store.store("train_schema", TrainConfig)
    store.store("sample_schema", SampleConfig)
    store.store("evaluate_schema", EvaluateConfig)
    OmegaConf.register_new_resolver("short_id", lambda: secrets.token_hex(2), use_cache=True, replace=True)
    OmegaConf.register_new_resolver("fast_precision", fast_precision, replace=True)


def fast_precision(accelerator: str) -> str:
    """``bf16-mixed`` where the hardware multiplies bfloat16 itself, else ``32-true``: ``${fast_precision:auto}``."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if native else "32-true"


def build(node: DictConfig | dict[str, Any], **arguments: Any) -> Any:
    """The object that ``_target_`` names, with plain lists and dicts as arguments.

    Raises:
        ValueError: if it can't be made: the key, and what is wrong with it, on one line.
    """
    key = str(node._get_full_key(None)) if isinstance(node, DictConfig) else ""
    if "_target_" not in node:
        raise ValueError(f"{key or dict(node)} has no _target_: is it misspelt?")
    try:
        built = instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        message, _, key = str(error).partition("\nfull_key: ")
        reason = " ".join(str(error.__cause__ or message).split())
        raise ValueError(f"{key}: {reason}" if key else reason) from error
    _check_partials(node, key)
    return built


def _check_partials(node: Any, key: str) -> None:
    """A partial takes any argument and fails where it is called, hours later: compare with the signature now."""
    if not isinstance(node, dict | DictConfig):
        return
    if node.get("_partial_"):
        arguments = {str(name): value for name, value in node.items() if not str(name).startswith("_")}
        try:
            inspect.signature(get_object(node["_target_"])).bind_partial(**arguments)
        except TypeError as error:
            raise ValueError(f"{key}: {error}") from error
    for name, child in node.items():
        _check_partials(child, ".".join(filter(None, (key, str(name)))))


def chosen(overrides: Sequence[str], key: str) -> bool:
    """Whether the command line says something of this key or group."""
    return any(override.key_or_group == key for override in OverridesParser.create().parse_overrides(list(overrides)))


def use_recipe_of_training(config: DictConfig, trained: dict[str, Any], overrides: Sequence[str]) -> None:
    """Put into ``config`` how samples were made in the training, changed by what the command line says of it.

    A group that the command line chooses (``sampler=heun``) is taken from today's options instead.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    for group in ("guidance", "threshold", "sampler"):
        if any(override.key_or_group == group for override in parsed):
            continue
        node = OmegaConf.create(trained[group])
        for override in parsed:
            if override.key_or_group.startswith(f"{group}."):
                key = override.key_or_group.removeprefix(f"{group}.")
                OmegaConf.update(node, key, OmegaConf.select(config, override.key_or_group))
        config[group] = node
