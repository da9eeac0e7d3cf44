"""Turns the errors of Hydra and OmegaConf into one line, with the key or option that the user may have meant."""

from __future__ import annotations

import argparse
import functools
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from guided_diffusion.cli.config import CONFIG_PATH


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return ``; did you mean guidance.scale?``, or nothing if no option is near, whole or in its last part."""
    ordered = sorted(options, reverse=True)
    names = {option.rpartition(".")[2]: option for option in ordered} | {option: option for option in ordered}
    near = get_close_matches(word, names, n=1) or get_close_matches(word.rpartition(".")[2], names, n=1)
    return f"; did you mean {names[near[0]]}?" if near else ""


def explain(error: BaseException, program: str) -> str:
    """Return an error on one line that names the key."""
    match error:
        case OverrideParseException():
            return f"{error.override!r} can't be read as key=value: {str(error).splitlines()[0]}"
        case MissingConfigException() if error.missing_cfg_file:
            return _missing_option(error.missing_cfg_file, error.options or ())
        case HydraException():
            return _refused(error, program)
        case OmegaConfBaseException():
            return f"{error.full_key}: {_reason(error)}" if error.full_key else _reason(error)
        case OSError() if error.strerror:
            return f"{error.filename}: {error.strerror}"
    return _one_line(str(error))


def _missing_option(missing: str, options: Sequence[str]) -> str:
    group, _, option = missing.removesuffix(".yaml").rpartition("/")
    there_is = f" There is {', '.join(sorted(options))}" if options else ""
    return (
        f"{group or '--config-name'}={option}: there is no such option{did_you_mean(option, options) or '.'}{there_is}"
    )


def _refused(error: HydraException, program: str) -> str:
    key = re.search(r"Could not override '([^'@]+)", str(error))
    if key:
        options = _chosen_options(sys.argv[1:])
        near = {*(_keys(program, options) or _keys(program, ())), *_groups(program)} - {key[1]}
        return f"there is no {key[1]} to set{_where_it_is(key[1], program, options) or did_you_mean(key[1], near)}"
    override = re.search(r"Error merging override (\S+?)=", str(error))
    cause = error.__cause__
    if override and cause:
        return f"{override[1].lstrip('+~')}: {_reason(cause)}"
    return " ".join([_one_line(str(error)), *([_reason(cause)] if cause else [])])


def _where_it_is(key: str, program: str, options: Sequence[str]) -> str:
    """Return ``; it goes with guidance=interval``, with the options of the group that have this key, or nothing."""
    group = key.partition(".")[0]
    if group == "trainer":  # each program has its own option, and no other may be chosen
        return ""
    others = tuple(one for one in options if one.partition("=")[0] != group)
    choices = sorted(f"{group}={path.stem}" for path in (Path(CONFIG_PATH) / group).glob("*.yaml"))
    having = [choice for choice in choices if key in _keys(program, (*others, choice))]
    return f"; it goes with {' or '.join(having)}" if having else ""


def _reason(error: BaseException) -> str:
    """Return the message of an error without the lines about OmegaConf's own objects."""
    lines = [
        line for line in str(error).splitlines() if not re.match(r"\s*(full_key|object_type|reference_type)", line)
    ]
    text = _one_line(" ".join(lines))
    return re.sub(
        r"Invalid value assigned: \w+ is not a ListConfig.*", "must be a list, in brackets: [1] or [1,2]", text
    )


def _one_line(text: str) -> str:
    return " ".join(text.replace("\\'", "'").split())


@functools.cache
def _keys(program: str, options: tuple[str, ...]) -> frozenset[str]:
    """Return all keys that can be set where these options are chosen; none if the options don't fit together."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(CONFIG_PATH, version_base="1.3"):
        try:
            return frozenset(_paths(compose(program, list(options))))
        except HydraException:  # something else is wrong as well
            return frozenset()


def _groups(program: str) -> Iterator[str]:
    """Yield the groups from which a program takes an option."""
    for default in OmegaConf.load(Path(CONFIG_PATH) / f"{program}.yaml").defaults:
        if isinstance(default, DictConfig):
            yield from (str(group).removeprefix("override ") for group in default)
    if program == "train":
        yield "+experiment"


def _chosen_options(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the overrides that choose one option of a group, for instance ``network=unet_28``."""
    overrides = [one for one in arguments if "=" in one and not one.startswith("-")]
    parsed = OverridesParser.create().parse_overrides(overrides)
    return tuple(
        one.input_line or ""
        for one in parsed
        if (Path(CONFIG_PATH) / one.key_or_group).is_dir() and not one.is_sweep_override()
    )


def _paths(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of a config, without those below an interpolation, which are copies."""
    for name in map(str, config):
        key = f"{prefix}{name}"
        yield key
        if not OmegaConf.is_interpolation(config, name) and isinstance(config._get_node(name), DictConfig):
            yield from _paths(config[name], f"{key}.")


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
