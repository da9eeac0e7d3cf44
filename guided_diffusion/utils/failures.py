"""Errors that come late, in one line that says what is kept."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def keeping(what_is_kept: str) -> Iterator[None]:
    """Turn an error in the block into a ``ValueError`` of one line: the reason, and what is kept all the same."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{reason(error)}; {what_is_kept}") from error


def reason(error: Exception) -> str:
    """Return the message of an error on one line, with its type unless it is one that users cause."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError | OSError) and text else f"{type(error).__name__}: {text}"
