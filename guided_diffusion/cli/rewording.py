"""Messages of Hydra, OmegaConf and Lightning in the user's words: how to quote, and what to use instead."""

import itertools
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from guided_diffusion.utils.overrides import shell_override

REWORDED: Mapping[str, str] = MappingProxyType(
    {
        r"Invalid value assigned: \w+ is not a ListConfig.*": "must be a list, in brackets: [A] or [A,B]",
        r"Value '(.*)' of type '\w+' could not be converted to Float": r"must be a number, got '\1'",
        r"Value '(.*)' of type '\w+' could not be converted to Integer": r"must be a whole number, got '\1'",
        r"Value '(.*)' is not a valid bool.*": r"must be true or false, got '\1'",
        r"field '.*' is not Optional": "must have a value, got null",
        r"Cannot convert '(list|dict)\w*' to string: .*": "must be a text; brackets and braces in it need quotes",
        r"Interpolation key '(.*)' not found": r"there is no key \1 for ${\1}",
        r"(trainer: )?No supported gpu backend found!": "trainer.accelerator: there is no GPU here; use cpu or auto",
        r"(trainer: )?`(CUDA|MPS|TPU|XLA)Accelerator` can not run on your system.*": (
            r"trainer.accelerator: there is no \2 here; use cpu or auto"
        ),
        r"(trainer: )?Requirement 'torch_xla.*": "trainer.accelerator=tpu: torch_xla is not installed; use cpu or auto",
    }
)
"""The patterns of messages of other libraries, and what is said instead."""


def reworded(message: str) -> str:
    """Return a message on one line, in this program's words where it is a known one of another library."""
    line = " ".join(message.replace("\\'", "'").split())
    for pattern, words in REWORDED.items():
        line = re.sub(pattern, words, line)
    return line


def unreadable(override: str, reason: str) -> str:
    """Return the message for an argument that is not in Hydra's grammar, with its quoted form if it may be a text."""
    key, equals, value = override.partition("=")
    text = f"{override!r} can't be read as key=value"
    if equals and value[:1] not in ("[", "{", '"', "'"):
        return f"{text}: quote it for Hydra and for the shell: {_quoted(key, value)}"
    if not equals and (start := _argument_before(override)):
        return f"{text}: if it is a part of {start.partition('=')[0]}, quote it: {_quoted_parts(start, override)}"
    return f"{text}: {reason}"


def ambiguous(key: str, value: str) -> str:
    """Return the message for a value with commas outside of a sweep."""
    return (
        f"{key}={value} may mean three things: for a sweep add -m, for a list write {key}=[{value}], and for a text "
        f"with a comma {_quoted(key, value)}"
    )


def _quoted(key: str, value: str) -> str:
    """Return an override for the shell, with the home folder in place of a tilde."""
    return shell_override(key, Path(value).expanduser() if value.startswith("~/") else value)


def _quoted_parts(start: str, rest: str) -> str:
    key, _, value = start.partition("=")
    return _quoted(key, f"{value} {rest}")


def _argument_before(override: str) -> str | None:
    """Return the command line's argument before this one if it is an override, as a shell splits at a space."""
    before = [one for one, following in itertools.pairwise(sys.argv[1:]) if following == override]
    return next((one for one in before if "=" in one), None)
