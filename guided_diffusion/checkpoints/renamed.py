"""Earlier names of this package's classes and functions, so that configs written with them can still be read."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from guided_diffusion.checkpoints.guidance_config import classifier_node

RENAMED = MappingProxyType(
    {
        "guided_diffusion.callbacks.StopWhereNotFinite": "guided_diffusion.training.callbacks.TerminateOnNonFinite",
        "guided_diffusion.loggers.CSVLogger": "guided_diffusion.training.loggers.csv.CSVLogger",
        "guided_diffusion.loggers.tensorboard_logger": (
            "guided_diffusion.training.loggers.tensorboard.tensorboard_logger"
        ),
        "guided_diffusion.loggers.wandb_logger": "guided_diffusion.training.loggers.wandb.wandb_logger",
        "guided_diffusion.callbacks": "guided_diffusion.training.callbacks",
        "guided_diffusion.metrics": "guided_diffusion.evaluation.judge",
        "guided_diffusion.modules": "guided_diffusion.training.modules",
        "guided_diffusion.programs.NoteNewFolders": "guided_diffusion.cli.output_folders.NoteOutputFolders",
        "guided_diffusion.sampling": "guided_diffusion.recipe",
        "guided_diffusion.strategies": "guided_diffusion.training.trainer",
        "guided_diffusion.sweeps": "guided_diffusion.cli.sweeps",
        "guided_diffusion.targets": "guided_diffusion.oracles.powered_mixture",
    }
)
"""The present name of each earlier one: single objects first, then modules with everything in them."""


LOADED_A_CLASSIFIER = MappingProxyType(
    {
        "guided_diffusion.checkpoints.classifier_guidance": "guided_diffusion.guidance.ClassifierGuidance",
        "guided_diffusion.checkpoints.combined_guidance": "guided_diffusion.guidance.Combined",
    }
)
"""The functions that built guidance from the path of a classifier, and the class that now takes the classifier."""


def update_targets(node: Any) -> Any:
    """Return a copy of a config in which every ``_target_`` has its present name.

    Args:
        node: The config, or any part of it, as plain data.
    """
    if isinstance(node, list):
        return [update_targets(child) for child in node]
    if not isinstance(node, dict):
        return node
    updated = {key: update_targets(child) for key, child in node.items()}
    if isinstance(target := node.get("_target_"), str):
        updated["_target_"] = _present_name(target)
    if target in LOADED_A_CLASSIFIER:
        updated["classifier"] = classifier_node(node.get("classifier"))
    return updated


def _present_name(target: str) -> str:
    if target in LOADED_A_CLASSIFIER:
        return LOADED_A_CLASSIFIER[target]
    earlier = next((name for name in RENAMED if f"{target}.".startswith(f"{name}.")), None)
    return RENAMED[earlier] + target.removeprefix(earlier) if earlier else target
