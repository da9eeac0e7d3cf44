"""A research framework for guided diffusion."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guided_diffusion.checkpoints import load, load_classifier

__all__ = ["load", "load_classifier"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``load`` and ``load_classifier``, imported when they are used: the core needs none of what loading needs."""
    if name in __all__:
        from guided_diffusion import checkpoints

        return getattr(checkpoints, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
