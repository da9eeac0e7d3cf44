"""Checks a config against the signatures of the classes it names: argument names and types, before building any."""

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from beartype import BeartypeConf
from beartype.door import is_bearable
from beartype.roar import BeartypeException
from hydra.utils import get_object
from torch import Tensor

from guided_diffusion.cli.config import CONFIG_PATH, key_of
from guided_diffusion.cli.errors import did_you_mean

WORDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null"}
"""The names of types in messages."""
INTEGERS_ARE_FLOATS = BeartypeConf(is_pep484_tower=True)


def check_config(config: Mapping[str, Any], schema: type) -> None:
    """Raise ``ValueError`` for an unknown key at the top, an empty text, or an argument of the wrong name or type."""
    keys = [key_of(field.name) for field in dataclasses.fields(schema)]
    for key in config:
        if key not in keys:
            raise ValueError(f"there is no {key} to set{did_you_mean(key, keys)}")
    _check_not_empty(config, "")
    for key in sorted(config, key=lambda key: key != "trainer"):  # others take values from the trainer's
        check_node(config[key], key)


def check_node(node: Any, path: str) -> None:
    """Raise ``ValueError`` for arguments of the wrong name or type for a ``_target_``, here or below."""
    if isinstance(node, list):
        for index, child in enumerate(node):
            check_node(child, f"{path}[{index}]")
    elif isinstance(node, dict):
        if "_target_" in node:
            _check_arguments(node, path)
        for name, child in node.items():
            check_node(child, f"{path}.{name}")


def _check_arguments(node: Mapping[str, Any], path: str) -> None:
    target = _target(str(node["_target_"]), path)
    parameters = inspect.signature(target).parameters
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    hints = _hints(target)
    if target.__module__.startswith("guided_diffusion."):  # to others an empty text may mean something
        _check_not_empty(node, f"{path}.")
    for name, value in node.items():
        if name.startswith("_") and name.endswith("_"):
            continue
        if name not in parameters and not takes_any:
            raise ValueError(f"{path}: unexpected keyword argument '{name}'{did_you_mean(name, parameters)}")
        if value != value:
            raise ValueError(f"{path}.{name} must be finite, got {value}")
        if not fits(value, hints.get(name, Any)):
            wrong = f"{path}.{name} must be {describe(hints[name])}, got {value!r}"
            raise ValueError(f"{wrong}{_as_option(f'{path}.{name}', value)}")


def _as_option(key: str, value: Any) -> str:
    """Return how to choose an option of this name, as the end of a message, if the key is that of a group."""
    group = key.replace(".", "/")
    return f"; an option is chosen with a slash: {group}={value}" if (Path(CONFIG_PATH) / group).is_dir() else ""


def _check_not_empty(node: Mapping[str, Any], prefix: str) -> None:
    empty = next((name for name, value in node.items() if value == ""), None)
    if empty:
        raise ValueError(f"{prefix}{empty} is empty: leave it out, or give it a value")


def _target(name: str, path: str) -> Callable[..., Any]:
    try:
        return get_object(name)
    except Exception as error:  # whatever its import raises
        raise ValueError(f"{path}._target_: {name} can't be imported: {error}") from error


def _hints(target: Callable[..., Any]) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError):  # names that are imported for a type checker alone
        return {}


def fits(value: Any, hint: Any) -> bool:
    """Return whether a plain value suits a parameter of this type; a node with a ``_target_`` always does."""
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if isinstance(value, dict):
        return "_target_" in value or origin not in (*WORDS, Literal)
    if isinstance(value, bool) and origin in (int, float):
        return False
    if isinstance(value, list) and origin is tuple and inner and inner[-1] is not Ellipsis:
        return len(value) == len(inner) and all(map(fits, value, inner))
    if isinstance(value, list) and inner:
        return (_bears([], hint) or _bears((), hint)) and all(fits(item, inner[0]) for item in value)
    return any(_bears(one, hint) for one in ([value, Path(value)] if isinstance(value, str) else [value]))


def _bears(value: Any, hint: Any) -> bool:
    try:
        return is_bearable(value, hint, conf=INTEGERS_ARE_FLOATS)
    except BeartypeException:  # an annotation that can't be checked
        return True


def describe(hint: Any) -> str:
    """Return a type in the user's words, for instance ``a whole number or null``."""
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, UnionType):
        literals = tuple(value for one in inner if get_origin(one) is Literal for value in get_args(one))
        others = [describe(one) for one in inner if get_origin(one) is not Literal and one is not Tensor]
        return " or ".join(dict.fromkeys([*([_one_of(literals)] if literals else []), *others]))
    if origin is Literal:
        return _one_of(inner)
    if inspect.isclass(origin) and issubclass(list, origin) and origin is not object:
        return f"a list, each {describe(inner[0])}" if inner else "a list"
    return WORDS.get(origin, getattr(origin, "__name__", str(origin)))


def _one_of(values: Iterable[object]) -> str:
    return f"one of {', '.join(dict.fromkeys(map(str, values)))}"
