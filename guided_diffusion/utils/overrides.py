"""Quotes overrides so that Hydra, a config and a shell read the intended value."""

import re
import shlex
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import OverrideParseException


def hydra_override(key: str, value: object) -> str:
    """Return the override ``key=value`` for a text or a path, in quotes if Hydra would read another value without.

    On a command line use ``shell_override``.
    """
    text = str(value)
    if _is_read_back(f"{key}={text}", text):
        return f"{key}={text}"
    literal = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)  # otherwise the config would look up a key of this name
    quote = Quote.single if '"' in text else Quote.double
    return f"{key}={QuotedString(literal, quote).with_quotes()}"


def shell_override(key: str, value: object) -> str:
    """Return ``hydra_override(key, value)`` quoted for a shell."""
    return shlex.quote(hydra_override(key, value))


def _is_read_back(override: str, text: str) -> bool:
    try:
        return "${" not in text and OverridesParser.create().parse_overrides([override])[0].value() == text
    except OverrideParseException:
        return False


def names_run(arguments: Sequence[str]) -> bool:
    """Return whether a command line resumes a run or checkpoint that it names, not the one that ``auto`` finds."""
    given = [argument.partition("=")[2] for argument in arguments if argument.lstrip("+").startswith("resume=")]
    return bool(given) and given[-1] not in ("auto", "null")
