"""A research framework for guided diffusion."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guided_diffusion.checkpoints import load, load_classifier
    from guided_diffusion.cli import notebook

__all__ = ["load", "load_classifier", "notebook"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import ``load``, ``load_classifier`` and ``notebook`` on first use: the core needs none of their dependencies."""
    if name == "notebook":
        return import_module("guided_diffusion.cli.notebook")
    if name in __all__:
        return getattr(import_module("guided_diffusion.checkpoints"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
