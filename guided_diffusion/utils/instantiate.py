"""Building the object that a config node names."""

import inspect
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig


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
        raise ValueError(f"{key}: {reason}" if key else reason) from error
    _check_partials(node, key)
    return built


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
