"""The two kinds of data, images and points, and how samples of each are measured, drawn and described."""

from guided_diffusion.evaluation.modalities.base import Examination, Finding, Gallery, JudgeSource, Modality, ScaleCurve
from guided_diffusion.evaluation.modalities.images import Images
from guided_diffusion.evaluation.modalities.points import Points

__all__ = ["Examination", "Finding", "Gallery", "Images", "JudgeSource", "Modality", "Points", "ScaleCurve", "modality"]


def modality(kind: str) -> Modality:
    """Return the modality of a kind of data, ``images`` or ``points``."""
    modalities: dict[str, type[Modality]] = {"images": Images, "points": Points}
    return modalities[kind]()
