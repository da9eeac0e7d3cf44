"""Builds the object that a config node names."""

import inspect
import re
from typing import Any, cast

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf


def build(node: DictConfig | dict[str, Any], **arguments: Any) -> Any:
    """Build the object that ``_target_`` names, with plain lists and dicts, and ``arguments`` beside the node's own.

    Raises:
        ValueError: If it can't be built; the message has the key and the reason, on one line.
    """
    key = str(node._get_full_key(None)) if isinstance(node, DictConfig) else ""
    if "_target_" not in node:
        raise ValueError(f"{key or dict(node)} has no _target_: is it misspelt?")
    try:
        built = instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        message, _, key = str(error).partition("\nfull_key: ")
        reason = " ".join(str(error.__cause__ or message).split())
        source = _source(node, reason.partition(" ")[0], key)
        if source:
            raise ValueError(f"{source} {reason.partition(' ')[2]}") from error
        key = key.rpartition("recipe.")[2]  # a recipe, also that of a callback, takes its parts from the top
        raise ValueError(f"{key}: {reason}" if key and not reason.startswith(f"{key}=") else reason) from error
    _check_partials(node, key)
    return built


def _source(node: DictConfig | dict[str, Any], argument: str, key: str) -> str | None:
    """Return the other key of the config from which a node at ``key`` takes an argument, as in ``${label_dropout}``."""
    if not isinstance(node, DictConfig) or str(node._get_full_key(None)) != key or argument not in node:
        return None
    values = cast(dict[str, Any], OmegaConf.to_container(node))
    found = re.fullmatch(r"\$\{([\w.]+)\}", str(values[argument]))
    return found[1] if found else None


def _check_partials(node: Any, key: str) -> None:
    """Check the arguments of every partial now: a wrong one would fail only at the call, hours later."""
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
