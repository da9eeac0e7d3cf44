"""Removes settings of an experiment that belong to an option which the command line replaces by another."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from guided_diffusion.cli.config import CONFIG_PATH


def drop_unused_settings(config: DictConfig, overrides: Sequence[str]) -> list[str]:
    """Remove what the experiment sets for options that the command line's ``overrides`` replace; return the keys.

    For instance ``+experiment=cfg_cifar10 callbacks=minimal``: the experiment sets an interval of ``sample_grid``,
    which the minimal callbacks lack. A key that no option of the group has stays: the check of the config refuses it.
    """
    parsed = {one.key_or_group: one for one in OverridesParser.create().parse_overrides(list(overrides))}
    if "experiment" not in parsed:
        return []
    dropped: list[str] = []
    for group, override in parsed.items():
        names: Any = override.value()
        chosen = [_option(group, str(name)) for name in (names if isinstance(names, list) else [names])]
        key = group.replace("/", ".")
        if isinstance(node := OmegaConf.select(config, key), DictConfig) and all(chosen):
            options = [_option(group, path.stem) for path in sorted((Path(CONFIG_PATH) / group).glob("*.yaml"))]
            dropped += _drop(node, OmegaConf.merge(*chosen), OmegaConf.merge(*options), f"{key}.")
    return dropped


def _drop(node: DictConfig, chosen: Any, options: Any, prefix: str) -> list[str]:
    """Remove the keys that the chosen option lacks and another option has; return them with the prefix."""
    dropped = []
    for name in list(node):
        if name not in chosen and name in options:
            with open_dict(node):
                del node[name]
            dropped.append(f"{prefix}{name}")
        elif name in chosen and all(_has_keys(one, name) for one in (node, chosen, options)):
            dropped += _drop(node[name], chosen[name], options[name], f"{prefix}{name}.")
    return dropped


def _has_keys(node: Any, name: Any) -> bool:
    """Return whether the value of ``name`` is a node with keys of its own, and no interpolation."""
    return not OmegaConf.is_interpolation(node, name) and OmegaConf.is_dict(node[name])


def _option(group: str, name: str) -> Any:
    """Return the config of an option, with those that its defaults name; empty if ``conf/`` has no such option."""
    path = Path(CONFIG_PATH) / group / f"{name}.yaml"
    merged: Any = OmegaConf.create()
    if not path.is_file():
        return merged
    own: Any = OmegaConf.load(path)
    if path.read_text(encoding="utf-8").startswith("# @package module\n"):  # the option of a group inside it
        own = own[Path(group).name]
    for default in own.pop("defaults", None) or []:
        if OmegaConf.is_dict(default):  # an option of a group inside this one, which is chosen on its own
            continue
        base, _, package = str(default).partition("@")
        if base != "_self_":
            node = _option(group, base)
            merged = OmegaConf.merge(merged, {package: node} if package else node)
    return OmegaConf.merge(merged, own)
