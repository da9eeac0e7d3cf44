"""Earlier names of this package's classes and functions, so that configs written with them can still be read."""

from types import MappingProxyType
from typing import Any

from guided_diffusion.checkpoints.guidance_config import classifier_node

RENAMED = MappingProxyType(
    {
        "callbacks.StopWhereNotFinite": "training.callbacks.TerminateOnNonFinite",
        "checkpoints.classifier_guidance": "guidance.ClassifierGuidance",
        "checkpoints.combined_guidance": "guidance.Combined",
        "loggers.CSVLogger": "training.loggers.csv.CSVLogger",
        "loggers.tensorboard_logger": "training.loggers.tensorboard.tensorboard_logger",
        "loggers.wandb_logger": "training.loggers.wandb.wandb_logger",
        "programs.NoteNewFolders": "cli.output_folders.NoteOutputFolders",
        "callbacks": "training.callbacks",
        "metrics": "evaluation.judge",
        "modules": "training.modules",
        "sampling": "recipe",
        "strategies": "training.trainer",
        "sweeps": "cli.sweeps",
        "targets": "oracles.powered_mixture",
    }
)
"""The present name of each earlier one in this package: single objects first, then modules with everything in them."""
ADDED_TO_DATA = MappingProxyType({"balance": False, "num_workers": 0})
"""The settings that datasets of this package did not have at first, with the values that change nothing."""
TOOK_A_PATH = ("guided_diffusion.checkpoints.classifier_guidance", "guided_diffusion.checkpoints.combined_guidance")
"""The functions that built guidance from the path of a classifier; their present classes take the classifier."""


def update_targets(node: Any) -> Any:
    """Return a copy of a config, or any part of it as plain data, in which every ``_target_`` has its present name."""
    if isinstance(node, list):
        return [update_targets(child) for child in node]
    if not isinstance(node, dict):
        return node
    updated = {key: update_targets(child) for key, child in node.items()}
    if isinstance(target := node.get("_target_"), str):
        updated["_target_"] = _present_name(target)
        if target.startswith("guided_diffusion.data."):
            updated = {**ADDED_TO_DATA, **updated}
    if target in TOOK_A_PATH:
        updated["classifier"] = classifier_node(node.get("classifier"))
    return updated


def _present_name(target: str) -> str:
    for earlier, present in RENAMED.items():
        if f"{target}.".startswith(f"guided_diffusion.{earlier}."):
            return target.replace(earlier, present, 1)
    return target
