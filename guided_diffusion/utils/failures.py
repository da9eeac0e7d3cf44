"""Reports errors after the main work is done, on one line that says which results are kept."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def keeping(what_is_kept: str) -> Iterator[None]:
    """Raise an error of the block as a ``ValueError`` on one line: the reason, and then what is kept."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{reason(error)}; {what_is_kept}") from error


def reason(error: Exception) -> str:
    """Return the message of an error on one line, after its type unless that is ``ValueError`` or ``OSError``."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError | OSError) and text else f"{type(error).__name__}: {text}"
