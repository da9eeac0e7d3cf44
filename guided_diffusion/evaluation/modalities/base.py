"""The interface of a modality: all that an evaluation, a report or a callback does differently by kind of data."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from guided_diffusion.data import LabelledDataModule
from guided_diffusion.evaluation.judge import Judge
from guided_diffusion.evaluation.metrics.images import LabelledSamples
from guided_diffusion.evaluation.metrics.inception import Inception
from guided_diffusion.evaluation.plan import Plan
from guided_diffusion.evaluation.plots.curves import save_figures
from guided_diffusion.evaluation.results import Interval, Result, Results
from guided_diffusion.samplers import Step

JudgeSource = Callable[[Any], Judge]
"""A function that returns the judge for a DataModule."""


class Finding(NamedTuple):
    """The measurements of the samples of one scale."""

    measured: Mapping[str, Interval]
    per_class: Sequence[Mapping[str, Any]]
    pictures: Any


class Examination(NamedTuple):
    """The measurements of a whole evaluation."""

    findings: Sequence[Finding]
    """The finding of each scale."""
    floors: Mapping[str, float]
    """The value that as many real samples reach, by measure."""
    about: Mapping[str, Any]
    """Facts about the whole evaluation, for ``Results.about``."""
    columns: tuple[str, ...] = ()
    """The columns of results.csv that follow those of the modality."""
    facts: Mapping[str, str | int] = MappingProxyType({})
    """Facts for ``Result.facts``."""


@dataclass(frozen=True, kw_only=True)
class ScaleCurve:
    """Quick measures of samples at several scales, taken during a training."""

    name: str
    """The first word of the file name, as in ``accuracy_by_scale.csv``."""
    values: Mapping[str, Sequence[float]]
    """The columns of the table: a value for each scale."""
    plotted: str
    """The column in the plot, a share."""
    logged: Sequence[str]
    """The columns that the loggers get."""
    real_column: str
    """The name of the last column, which holds ``real``."""
    real: float
    """The plotted share for real data."""
    real_name: str
    quantity: str
    """The name of the plotted share in words; ``real_name`` is that of the real data."""


@runtime_checkable
class Gallery(Protocol):
    """A way to draw samples of some classes."""

    num_samples: ClassVar[int]
    """The default number of samples of each class."""

    def animated(self, num_classes: int) -> int:
        """Return the number of samples of each class that fit into an animation."""

    def save(self, samples: Float[Tensor, "classes n *shape"], names: Sequence[str], path: Path) -> None:
        """Write a PNG of samples of the named classes."""

    def save_by_scale(
        self, samples: Float[Tensor, "scales classes n *shape"], rows: Sequence[str], names: Sequence[str], path: Path
    ) -> None:
        """Write a PNG with a row for each scale and a column for each of the named classes."""

    def save_stages(
        self, stages: Mapping[str, Float[Tensor, "classes n *shape"]], names: Sequence[str], path: Path
    ) -> None:
        """Write a PNG of several stages of the same samples, such as before and after; n may differ between stages."""

    def frames(self, steps: Sequence[Step], names: Sequence[str]) -> Iterator[UInt8[Tensor, "height width 3"]]:
        """Yield a frame for each sampler step, x_t above the estimate of x_0; each class has equally many samples."""


class Modality(ABC):
    """The part of an evaluation that depends on the kind of its data, images or points."""

    columns: ClassVar[tuple[str, ...]]
    """The columns of results.csv."""
    callbacks: ClassVar[str]
    """The option of the config group ``callbacks`` for such data."""
    uses_judge: ClassVar[bool]
    """Whether a judge, a trained classifier, measures the samples."""
    captions: ClassVar[Mapping[str, str]]
    captions_of_curve: ClassVar[Mapping[str, str]]
    """The captions of the plots that show all curves, and of those that show one, by plot."""
    wide: ClassVar[tuple[str, ...]]
    """The plots of one curve that need the whole width of a page."""
    strip_class: ClassVar[str]
    """The CSS class of the strip."""
    strip_measures: ClassVar[Mapping[str, str]]
    """The measures below a strip, with their names in words."""
    floors: ClassVar[Mapping[str, str]]
    """The floors that have a column in the page's table, with the heading."""

    @abstractmethod
    def check(self, data: Any, judge_source: JudgeSource) -> None:
        """Raise if samples can't be measured, before any is drawn."""

    @abstractmethod
    def examine(
        self,
        data: Any,
        judge_source: JudgeSource,
        samples: Sequence[LabelledSamples],
        plan: Plan,
        inception: Inception | None = None,
    ) -> Examination:
        """Measure the samples of each scale of the plan; ``inception`` adds its measures to those of images."""

    @abstractmethod
    def measure_by_scale(
        self, samples: Float[Tensor, "scales n *shape"], labels: Tensor, data: Any, judge: Judge | None, seed: int
    ) -> ScaleCurve:
        """Measure quickly what matters most; labels have shape (n,), and ``judge`` is given if ``uses_judge``."""

    @abstractmethod
    def gallery(self, load_data: Callable[[], LabelledDataModule]) -> Gallery:
        """Return a gallery; ``load_data`` is called only if the gallery needs the data of the training."""

    @abstractmethod
    def figures(self, results: Results) -> Iterable[tuple[str, Figure]]:
        """Return all plots with their names."""

    def save_plots(self, results: Results, folder: Path) -> dict[str, Path]:
        """Write all plots to ``folder/plots`` as PNG and PDF; return the paths of the PNGs by name."""
        return save_figures(self.figures(results), folder / "plots")

    @abstractmethod
    def strip(self, row: Result, class_names: Sequence[str]) -> Image.Image:
        """Return a picture of the samples of a row."""

    @abstractmethod
    def drawings(self, row: Result) -> dict[str, UInt8[np.ndarray, "height width 3"]]:
        """Return the pictures of a row that dashboards show."""

    @abstractmethod
    def summary(self, results: Results) -> str:
        """Return a paragraph of plain text: the best scales, and the values of real data."""

    @abstractmethod
    def print_table(self, results: Results) -> None:
        """Print the main measures of each row, and those of real data."""
