"""Turns the errors of Hydra and OmegaConf into one line, with the key or option that the user may have meant."""

import argparse
import functools
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from guided_diffusion.cli.config import CONFIG_PATH, compose
from guided_diffusion.cli.rewording import ambiguous, reworded, unreadable

CAN_BE_LEFT_OUT = ("logger", "callbacks", "module/adversarial")
"""The groups without which a program works."""


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return ``; did you mean guidance.scale?``, or nothing if no option, or last part of one, is similar."""
    ordered = sorted(options, reverse=True)
    names = {option.rpartition(".")[2]: option for option in ordered} | {option: option for option in ordered}
    near = get_close_matches(word, names, n=1) or get_close_matches(word.rpartition(".")[2], names, n=1)
    return f"; did you mean {names[near[0]]}?" if near else ""


def explain(error: BaseException, program: str) -> str:
    """Return a one-line message for an error that names the key."""
    match error:
        case OverrideParseException():
            return unreadable(error.override or "", str(error).splitlines()[0])
        case MissingConfigException() if error.missing_cfg_file:
            return _missing_option(error.missing_cfg_file, error.options or ())
        case HydraException():
            return _refused(error, program)
        case OmegaConfBaseException():
            return f"{error.full_key}: {_reason(error)}" if error.full_key else _reason(error)
        case ValueError() if str(error).startswith("Config group override must be"):
            return _not_an_option(sys.argv[1:], program) or str(error)
        case OSError() if error.strerror:
            return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return reworded(str(error))


def _missing_option(missing: str, options: Sequence[str]) -> str:
    group, _, option = missing.removesuffix(".yaml").rpartition("/")
    near = did_you_mean(option, options) or "."
    there_is = f" There is {', '.join(sorted(options))}" if options else ""
    return f"{group or '--config-name'}={option}: there is no such option{near}{there_is}"


def _refused(error: HydraException, program: str) -> str:
    key = re.search(r"Could not override '([^'@]+)", str(error))
    if key:
        return f"there is no {key[1]} to set{_options_with(key[1]) or _instead(key[1], _near(key[1], program))}"
    if sweep := re.match(r"Ambiguous value for argument '([^=]+)=(.*)'$", str(error).partition("\n")[0]):
        return ambiguous(sweep[1], sweep[2])
    override = re.search(r"Error merging override (\S+?)=", str(error))
    cause = _reason(error.__cause__) if error.__cause__ else ""
    return f"{override[1].lstrip('+~')}: {cause}" if override and cause else f"{reworded(str(error))} {cause}".strip()


def _instead(key: str, keys: Iterable[str]) -> str:
    """Return the nearest key or, if none is near, all keys in the same group, as the end of a message."""
    group, _, name = key.rpartition(".")
    parts = (one.rpartition(".") for one in keys)
    beside = sorted(last for start, _, last in parts if group and start == group and not last.startswith("_"))
    near = did_you_mean(name, beside) if beside else did_you_mean(key, keys)
    if near and beside:
        return near.replace("mean ", f"mean {group}.")
    return near or (f"; {group} has {', '.join(beside)}" if beside else "")


def _options_with(key: str) -> str:
    """Return ``; it goes with guidance=interval``, with the options of the group that have this key, or nothing."""
    group = key.partition(".")[0]
    if group in (key, "experiment", "trainer"):  # each program has its own trainer, and no other may be chosen
        return ""
    options = sorted(path.relative_to(CONFIG_PATH) for path in (Path(CONFIG_PATH) / group).rglob("*.yaml"))
    having = [f"{one.parent.as_posix()}={one.stem}" for one in options if key in _keys(one.with_suffix("").as_posix())]
    return f"; it goes with {' or '.join(having)}" if having else ""


def _near(key: str, program: str) -> set[str]:
    """Return the keys and groups that can be set instead of this one, given the chosen options."""
    return {*(_keys(program, *_chosen_options(sys.argv[1:])) or _keys(program)), *_groups(program)} - {key}


def _reason(error: BaseException) -> str:
    """Return the message of an error without the lines about OmegaConf's own objects."""
    return reworded(re.sub(r"(?m)^\s*(full_key|object_type|reference_type).*$", "", str(error)))


@functools.cache
def _keys(name: str, *options: str) -> frozenset[str]:
    """Return all keys that can be set in a config with these options; none if the options don't fit together."""
    GlobalHydra.instance().clear()
    try:
        config = compose(*options, program=name)
    except HydraException:  # something else is wrong as well
        return frozenset()
    return frozenset(_paths(OmegaConf.to_container(config, resolve=False)))


def _groups(program: str) -> Iterator[str]:
    """Yield the groups from which a program takes an option."""
    for default in OmegaConf.load(Path(CONFIG_PATH) / f"{program}.yaml").defaults:
        if OmegaConf.is_dict(default):
            for group in (str(one).removeprefix("override ") for one in default):
                inside = sorted(path.name for path in (Path(CONFIG_PATH) / group).glob("*/"))
                yield from (group, *(f"{group}/{name}" for name in inside))
    if program == "train":
        yield "+experiment"


def _chosen_options(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the overrides that choose one option of a group, for instance ``network=unet_28``."""
    return tuple(one.input_line or "" for one in _group_overrides(arguments) if not one.is_sweep_override())


def _group_overrides(arguments: Sequence[str]) -> list[Override]:
    overrides = [one for one in arguments if "=" in one and not one.startswith("-")]
    parsed = OverridesParser.create().parse_overrides(overrides)
    return [one for one in parsed if (Path(CONFIG_PATH) / one.key_or_group).is_dir()]


def _not_an_option(arguments: Sequence[str], program: str) -> str:
    """Return the message for a group that is given a value instead of an option, for instance ``data=null``.

    Return an empty text for one among the values of a sweep.
    """
    given = [one for one in _group_overrides(arguments) if not one.is_delete() and not one.is_sweep_override()]
    wrong = next((one for one in given if not isinstance(one.value(), str | list)), None)
    if wrong is None:
        return ""
    group = wrong.key_or_group
    if group not in _groups(program):
        return f"{wrong.input_line}: {program} takes no {group}: leave it out"
    options = sorted(path.stem for path in (Path(CONFIG_PATH) / group).glob("*.yaml"))
    without = f"; ~{group} leaves it out" if group in CAN_BE_LEFT_OUT else ""
    return f"{wrong.input_line}: {group} must be one of {', '.join(options)}{without}"


def _paths(node: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of a config, without those below an interpolation, which are copies."""
    if isinstance(node, Mapping):
        for name, child in node.items():
            yield f"{prefix}{name}"
            yield from _paths(child, f"{prefix}{name}.")


def check_flags(arguments: Sequence[str]) -> None:
    """Raise ``ValueError`` for flags that Hydra does not have, or with a value that they do not take."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("overrides", nargs="*")
    for name in ("--help -h", "--hydra-help", "--version", "--resolve", "--run -r", "--multirun -m"):
        parser.add_argument(*name.split(), action="store_true")
    for name in ("--package -p", "--config-path -cp", "--config-name -cn", "--config-dir -cd", "--experimental-rerun"):
        parser.add_argument(*name.split())
    parser.add_argument("--shell-completion", "-sc", action="store_true")
    parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    information = ["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"]
    parser.add_argument("--info", "-i", nargs="?", choices=information)
    try:
        _, unknown = parser.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    if unknown:
        near = did_you_mean(unknown[0], parser._option_string_actions)
        raise ValueError(f"unrecognized arguments: {' '.join(unknown)}{near}")
