"""Config nodes of guidance: whether one needs a classifier, and the checkpoint that the classifier comes from."""

from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig

from guided_diffusion.guidance import needs_classifier

Node = DictConfig | dict[str, Any]

AUTO = "auto"
"""The word in place of a classifier's path that asks for one which is trained when sampling first needs it."""


def expand_classifier(guidance: Node) -> None:
    """Replace, in place, a path given as ``guidance.classifier=PATH`` by the node that loads the classifier."""
    path = guidance.get("classifier")
    if path is not None and not isinstance(path, dict | DictConfig) and guidance_needs_classifier(guidance):
        guidance["classifier"] = classifier_node(path)


def guidance_needs_classifier(guidance: Node) -> bool:
    """Return whether the method that a config node names needs a classifier.

    Return ``False`` if it can't be imported; building it will raise the error.
    """
    try:
        return needs_classifier(get_object(str(guidance.get("_target_"))))
    except Exception:  # an import may raise anything
        return False


def classifier_checkpoint(guidance: Node) -> str | None:
    """Return the path of the classifier that an expanded node names, or ``None`` where there is none."""
    return (guidance.get("classifier") or {}).get("checkpoint")


def classifier_node(path: Any) -> dict[str, Any]:
    """Return the node that loads the classifier of a checkpoint."""
    return {"_target_": "guided_diffusion.checkpoints.optional_classifier", "checkpoint": path}


def guidance_wants_guide(guidance: Node) -> bool:
    """Return whether an expanded guidance needs a classifier, by ``classifier=auto``."""
    return guidance_needs_classifier(guidance) and classifier_checkpoint(guidance) == AUTO
