"""The rows of an evaluation with the keys, numbers and images that every dashboard shows."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from guided_diffusion.evaluation.modalities import modality
from guided_diffusion.evaluation.plots.curves import curves
from guided_diffusion.evaluation.results import Result, Results


@dataclass(frozen=True)
class CurveRow:
    """A row of an evaluation, as a part of its curve."""

    result: Result
    suffix: str
    """The end of its keys: the name of the curve, or nothing if there is only one curve."""
    title: str

    def key(self, quantity: str) -> str:
        """Return ``guidance/accuracy``, or with several curves ``guidance/accuracy/ClassifierFree-ddim-50``."""
        return "/".join(filter(None, ("guidance", quantity, self.suffix)))

    @property
    def numbers(self) -> dict[str, float]:
        """The values drawn against the scale."""
        measured = {name: interval.value for name, interval in self.result.measured.items()}
        return measured | {"nfe": self.result.nfe, "seconds": self.result.seconds}

    @property
    def images(self) -> dict[str, UInt8[np.ndarray, "height width 3"]]:
        """The pictures shown at every scale."""
        return modality(self.result.kind).drawings(self.result)


def rows_by_scale(results: Results) -> list[CurveRow]:
    """Return every row, in order of scale."""
    lines = curves(results)
    several = len(lines) > 1
    rows = [CurveRow(row, dotless(line.slug) if several else "", line.name) for line in lines for row in line.rows]
    return sorted(rows, key=lambda row: row.result.scale)


def dotless(name: str) -> str:
    """Return a name in which ``_`` replaces the dots, since a dot in a key of W&B is a level of nesting."""
    return name.replace(".", "_")
