"""A readable error for the few places that use private names of Lightning, should a new version change them."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning


@contextmanager
def lightning_internals(meanwhile: str) -> Iterator[None]:
    """Turn an error in the block about a private name that this version of Lightning lacks into ``RuntimeError``.

    The message ends with ``meanwhile``, which says what works without that name.
    """
    try:
        yield
    except (ImportError, AttributeError, KeyError) as error:
        raise RuntimeError(
            f"pytorch-lightning {pytorch_lightning.__version__} is not supported "
            f'({error}): pip install "pytorch-lightning~=2.6.4", or {meanwhile}'
        ) from error
