"""Config nodes of guidance: which other model a method needs, and the checkpoint from which that is loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig

from guided_diffusion.guidance import needs_classifier, needs_weak

Node = DictConfig | dict[str, Any]

AUTO = "auto"
"""The value of ``classifier`` that asks for one which is trained when sampling first needs it."""


def expand_paths(guidance: Node) -> None:
    """Replace each path, as in ``guidance.classifier=PATH``, by the node that loads the model, if the method needs it.

    The node ``guidance`` is changed in place.
    """
    for key, model in OTHER_MODELS.items():
        path = guidance.get(key)
        if path is not None and not isinstance(path, dict | DictConfig) and model.is_needed_by(guidance):
            guidance[key] = model.node(path)


def guidance_needs_classifier(guidance: Node) -> bool:
    """Return whether the method that a config node names needs a classifier.

    It returns ``False`` if the method can't be imported; building it will raise the error.
    """
    return needs_classifier(_method(guidance))


def guidance_needs_weak(guidance: Node) -> bool:
    """Return whether the method that a config node names needs a weaker model; ``False`` as above."""
    return needs_weak(_method(guidance))


def _method(guidance: Node) -> Any:
    try:
        return get_object(str(guidance.get("_target_")))
    except Exception:  # an import may raise anything
        return None


def classifier_checkpoint(guidance: Node) -> str | None:
    """Return the path of the classifier that an expanded node names, or ``None`` where there is none."""
    return (guidance.get("classifier") or {}).get("checkpoint")


def weak_checkpoint(guidance: Node) -> str | None:
    """Return the path of the weaker model that an expanded node names, or ``None`` where there is none."""
    return (guidance.get("weak") or {}).get("checkpoint")


def classifier_node(path: Any) -> dict[str, Any]:
    """Return the node that loads the classifier of a checkpoint."""
    return {"_target_": "guided_diffusion.checkpoints.optional_classifier", "checkpoint": path}


def weak_node(path: Any) -> dict[str, Any]:
    """Return the node that loads the weaker model of a checkpoint."""
    return {"_target_": "guided_diffusion.checkpoints.optional_weak_model", "checkpoint": path}


@dataclass(frozen=True)
class OtherModel:
    """A model besides the denoiser that some methods of guidance need."""

    is_needed_by: Callable[[Node], bool]
    node: Callable[[Any], dict[str, Any]]
    """The function that returns the node that loads the model of a path."""
    option: str
    """The name of an option of the group ``guidance`` that needs it."""


OTHER_MODELS = {
    "classifier": OtherModel(guidance_needs_classifier, classifier_node, "classifier"),
    "weak": OtherModel(guidance_needs_weak, weak_node, "autoguidance"),
}
"""The models that guidance may need, by their key at the root of the config and in ``guidance``."""


def guidance_wants_guide(guidance: Node) -> bool:
    """Return whether an expanded guidance needs the classifier that ``classifier=auto`` trains."""
    return guidance_needs_classifier(guidance) and classifier_checkpoint(guidance) == AUTO
