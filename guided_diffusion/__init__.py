"""A research framework for guided diffusion."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guided_diffusion.checkpoints import load

__all__ = ["load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``guided_diffusion.load``, imported when it is used: the core needs none of what loading needs."""
    if name == "load":
        from guided_diffusion.checkpoints import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
