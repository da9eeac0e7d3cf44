"""The schema of each program's config, and how the command line changes a config."""

import functools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict

from guided_diffusion.utils.listing import data_hash
from guided_diffusion.utils.precision import fast_precision

_PACKAGE = Path(__file__).parents[1]

CONFIG_PATH = str(next(path for path in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if path.is_dir()))
"""The folder ``conf/``: inside the package in an installed wheel, beside it in a checkout."""

MODELS = ("classifier", "weak")
"""The keys of the root, and of ``guidance``, that name another model; ``OTHER_MODELS`` says more of them."""


@dataclass
class ProgramConfig:
    """The keys that ``train``, ``sample`` and ``evaluate`` share. A key without a field is an error that names it."""

    seed: int = MISSING
    output_dir: str = MISSING
    classifier: str | None = None
    weak: str | None = None
    untaught_scales: bool = False
    trusted: list[str] = field(default_factory=list)
    guidance: dict[str, Any] = field(default_factory=dict)
    guide: dict[str, Any] = field(default_factory=dict)
    threshold: dict[str, Any] = field(default_factory=dict)
    sampler: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)


@dataclass
class TrainConfig(ProgramConfig):
    """The config of ``train``."""

    name: str = MISSING
    resume: str | None = None
    init_from: Any = None
    label_dropout: float = MISSING
    scales: list[float] = MISSING
    data: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    weighting: dict[str, Any] = field(default_factory=dict)
    time_sampling: dict[str, Any] = field(default_factory=dict)
    module: dict[str, Any] = field(default_factory=dict)
    judge: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)


@dataclass
class SampleConfig(ProgramConfig):
    """The config of ``sample``."""

    checkpoint: str | None = None
    labels: list[Any] | None = None
    num_samples: int | None = None
    from_: str | None = None
    from_labels: list[Any] | None = None
    strength: float | None = None
    mask: str | None = None
    invert: bool = MISSING
    animate: bool = MISSING
    compare: bool = MISSING
    weights: str = MISSING


@dataclass
class EvaluateConfig(ProgramConfig):
    """The config of ``evaluate``."""

    name: str = MISSING
    checkpoint: str | None = None
    data_path: str | None = None
    scales: list[float] | None = None
    labels: Any = MISSING
    inception: bool | str | None = None
    effective_scale: bool = False
    num_samples: int = MISSING
    weights: str = MISSING
    judge: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)


@dataclass
class ExportConfig:
    """The config of ``export``."""

    checkpoint: str | None = None
    output: str | None = None
    weights: str = MISSING


def key_of(field_name: str) -> str:
    """Return the config key of a schema's field; an underscore that ends the field's name (``from_``) is left out."""
    return field_name.removesuffix("_")


@functools.cache
def register() -> None:
    """Register the schemas and the resolvers with Hydra; calling it again changes nothing."""
    for schema in (TrainConfig, SampleConfig, EvaluateConfig, ExportConfig):
        node = OmegaConf.structured(schema)
        with open_dict(node):
            for name in list(node):
                if name != key_of(name):
                    node[key_of(name)] = node.pop(name)
        ConfigStore.instance().store(f"{schema.__name__.removesuffix('Config').lower()}_schema", node)
    OmegaConf.register_new_resolver("short_id", lambda: secrets.token_hex(2), use_cache=True, replace=True)
    OmegaConf.register_new_resolver("data_hash", data_hash, replace=True)
    OmegaConf.register_new_resolver("fast_precision", fast_precision, replace=True)


def compose(*overrides: str, program: str = "train") -> DictConfig:
    """Return the config that ``python -m guided_diffusion.<program>`` has with these overrides."""
    register()
    with initialize_config_dir(CONFIG_PATH, version_base="1.3"):
        return hydra_compose(program, list(overrides))


def in_sweep() -> bool:
    """Return whether this process runs a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def plain(config: DictConfig) -> dict[str, Any]:
    """Return a config as plain dictionaries, with its interpolations resolved."""
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, throw_on_missing=True))


def _keys_and_groups(overrides: Sequence[str]) -> list[str]:
    return [override.key_or_group for override in OverridesParser.create().parse_overrides(list(overrides))]


def _packages(overrides: Sequence[str]) -> list[str]:
    """Return where the command line puts options of other groups, for instance ``guide.network``."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [override.package for override in parsed if override.package]


def given_keys(overrides: Sequence[str]) -> set[str]:
    """Return the keys that the command line gives a value other than null, and the groups it chooses an option of.

    An option of another group (``network@guide.network=mlp``) gives the key where it is put, ``guide.network``.
    """
    given = OverridesParser.create().parse_overrides(list(overrides))
    return {override.package or override.key_or_group for override in given if override.value() is not None}


def is_overridden(overrides: Sequence[str], key: str) -> bool:
    """Return whether the command line sets this key or chooses an option of this group."""
    return key in _keys_and_groups(overrides)


def use_recipe_of_training(config: DictConfig, trained: dict[str, Any], overrides: Sequence[str]) -> None:
    """Replace the recipe in ``config`` by the training's, changed by what the command line sets.

    A group whose option the command line chooses (``sampler=heun``) stays as it is in ``config``; of an option that it
    chooses inside a group (``sampler/times=karras``, ``network@guide.network=mlp``) nothing of the training's remains.
    The settings of a guide's training also belong to the recipe, and in an evaluation the judge; older trainings may
    have neither.
    """
    overridden = _keys_and_groups(overrides)
    groups = {"guidance", "threshold", "sampler", *({"guide", "judge"} & trained.keys() & config.keys())}
    for group in groups.difference(overridden):
        node = OmegaConf.create(trained[group])
        for key in _packages(overrides):
            if key.startswith(f"{group}."):
                OmegaConf.update(node, key.removeprefix(f"{group}."), OmegaConf.select(config, key), merge=False)
        for key in overridden:
            if key.startswith((f"{group}.", f"{group}/")):
                path, merge = key.replace("/", "."), "/" not in key
                OmegaConf.update(node, path.removeprefix(f"{group}."), OmegaConf.select(config, path), merge=merge)
        config[group] = node
    for key in MODELS:
        if config.guidance.get(key) is not None and key in overridden:
            config.guidance[key] = config[key]


def trust_packages(config: DictConfig) -> None:
    """Hand the packages in ``trusted`` to the nodes that load checkpoints: the models of the guidance, the guide.

    The packages are those that the user names in ``config``, never those of a checkpoint.
    """
    if not config.trusted:
        return
    loaders = {f"callbacks.{name}" for name, node in config.get("callbacks", {}).items() if _loads_a_guide(node)}
    loaders |= {f"guidance.{key}" for key in MODELS if isinstance(config.guidance.get(key), DictConfig)}
    for key in loaders:
        OmegaConf.update(config, f"{key}.trusted", list(config.trusted), force_add=True)


def _loads_a_guide(node: Any) -> bool:
    return isinstance(node, DictConfig) and bool(node.get("guide"))
