"""A config against the signatures of what it builds: names and types of arguments, before anything is built."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from hydra.utils import get_object

from guided_diffusion.cli.errors import did_you_mean

Plain = Mapping[str, Any]


WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    NoneType: "null",
}
"""How messages call a type."""


SCALARS = {int, float, bool, str, NoneType, Literal}


def check_config(config: Plain, schema: type) -> None:
    """Raise ``ValueError`` for a key at the top that the schema lacks, an empty text, or an argument that misfits."""
    keys = [field.name for field in dataclasses.fields(schema)]
    for key in config:
        if key not in keys:
            raise ValueError(f"there is no {key} to set{did_you_mean(key, keys)}")
    _check_not_empty(config, "")
    for key in sorted(config, key=lambda key: key != "trainer"):  # first what others take their values from
        check_node(config[key], key)


def check_node(node: Any, path: str) -> None:
    """Raise ``ValueError`` for arguments that a ``_target_``, here or below, does not have or take."""
    if isinstance(node, list):
        for index, child in enumerate(node):
            check_node(child, f"{path}[{index}]")
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        _check_arguments(node, path)
    for name, child in node.items():
        check_node(child, f"{path}.{name}".lstrip("."))


def _check_arguments(node: Plain, path: str) -> None:
    target = _target(str(node["_target_"]), path)
    parameters = inspect.signature(target).parameters
    open_ended = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    hints = _hints(target)
    if target.__module__.startswith("guided_diffusion."):  # to others an empty text may mean something
        _check_not_empty(node, f"{path}.")
    for name, value in node.items():
        if name.startswith("_") and name.endswith("_"):
            continue
        if name not in parameters and not open_ended:
            raise ValueError(f"{path}: unexpected keyword argument '{name}'{did_you_mean(name, parameters)}")
        if value != value:
            raise ValueError(f"{path}.{name} must be finite, got {value}")
        if not fits(value, hints.get(name, Any)):
            raise ValueError(f"{path}.{name} must be {told(hints[name])}, got {value!r}")


def _check_not_empty(node: Plain, prefix: str) -> None:
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
    """Whether a plain value may be meant for a parameter with this type; what is built from a node always may."""
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if isinstance(value, dict) and ("_target_" in value or origin not in SCALARS | {Union, UnionType}):
        return True
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if origin is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(value, list):
        return _fits_list(value, origin, inner)
    return _fits_class(value, origin)


def _fits_list(values: list[Any], origin: Any, inner: tuple[Any, ...]) -> bool:
    if not (inspect.isclass(origin) and issubclass(list, origin)) and origin is not tuple:
        return not inspect.isclass(origin)
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        return len(values) == len(inner) and all(map(fits, values, inner))
    return not inner or all(fits(value, inner[0]) for value in values)


def _fits_class(value: Any, origin: Any) -> bool:
    """Of the classes the path of a file is the one that text may stand for."""
    if not inspect.isclass(origin) or (isinstance(value, str) and origin.__module__.startswith("pathlib")):
        return True
    try:
        return isinstance(value, origin)
    except TypeError:  # a protocol that can't be asked
        return True


def told(hint: Any) -> str:
    """A type, in the user's words."""
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(told(one) for one in inner))
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if inspect.isclass(origin) and issubclass(list, origin) and origin is not object:
        return f"a list, each {told(inner[0])}" if inner else "a list"
    return WORDS.get(origin, getattr(origin, "__name__", str(origin)))
