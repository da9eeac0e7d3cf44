"""Settings that an experiment makes for an option which the command line replaces by another."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from guided_diffusion.cli.config import CONFIG_PATH


def drop_unused_settings(config: DictConfig, overrides: Sequence[str]) -> list[str]:
    """Remove what the experiment sets for options that the command line's ``overrides`` replace; return the keys.

    For instance ``+experiment=cfg_cifar10 callbacks=minimal``: the experiment sets an interval of ``sample_grid``,
    which the minimal callbacks lack. Keys that no option of a group has are left to the check of the config.
    """
    parsed = {one.key_or_group: one for one in OverridesParser.create().parse_overrides(list(overrides))}
    dropped: list[str] = []
    for group in parsed if "experiment" in parsed else ():
        names: Any = parsed[group].value()
        chosen = [_option(group, str(name)) for name in (names if isinstance(names, list) else [names])]
        if isinstance(config.get(group), DictConfig) and all(chosen):
            every = [_option(group, path.stem) for path in sorted((Path(CONFIG_PATH) / group).glob("*.yaml"))]
            dropped += _drop(config[group], OmegaConf.merge(*chosen), OmegaConf.merge(*every), f"{group}.")
    return dropped


def _drop(node: DictConfig, own: Any, every: Any, prefix: str) -> list[str]:
    dropped = []
    for name in list(node):
        if name not in own and name in every:
            with open_dict(node):
                del node[name]
            dropped.append(f"{prefix}{name}")
        elif name in own and all(_has_group(one, name) for one in (node, own, every)):
            dropped += _drop(node[name], own[name], every[name], f"{prefix}{name}.")
    return dropped


def _has_group(node: Any, name: Any) -> bool:
    return not OmegaConf.is_interpolation(node, name) and OmegaConf.is_dict(node[name])


def _option(group: str, name: str) -> Any:
    """Return the keys of an option, and of those that it derives from, as a config; none if ``conf/`` lacks it."""
    path = Path(CONFIG_PATH) / group / f"{name}.yaml"
    merged: Any = OmegaConf.create()
    if not path.is_file():
        return merged
    own: Any = OmegaConf.load(path)
    for default in own.pop("defaults", None) or []:
        base, _, package = str(default).partition("@")
        if base != "_self_":
            node = _option(group, base)
            merged = OmegaConf.merge(merged, {package: node} if package else node)
    return OmegaConf.merge(merged, own)
