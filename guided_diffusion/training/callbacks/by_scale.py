"""A callback that measures samples at every guidance scale: judge accuracy of images, distance of points."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer

from guided_diffusion.evaluation.modalities import JudgeSource, ScaleCurve, modality
from guided_diffusion.evaluation.plots.curves import save_share_plot
from guided_diffusion.evaluation.proportions import apportion, interleave
from guided_diffusion.evaluation.summary import percent, shown
from guided_diffusion.recipe import Recipe
from guided_diffusion.training.callbacks.base import SamplingCallback, Sweep
from guided_diffusion.training.loggers.log import log_curve, log_image
from guided_diffusion.utils.files import atomic_write


class MeasureByScale(SamplingCallback):
    """A callback that writes ``accuracy_by_scale.csv`` for images or ``distance_by_scale.csv`` for points, with a plot.

    For images ``accuracy`` is the share of samples in which the judge sees their label, and ``judge_ceiling`` that of
    real test images. For points ``off_curve`` is the share further than 0.05 from the curve of their label, and
    ``off_curve_floor`` that of true points. All scales have the same noise and labels, which are drawn in the
    proportions of the test split.

    Args:
        judge: A function that returns the judge for a DataModule; images need it, points must not have it.

    Other arguments are those of ``SamplingCallback``.

    Raises:
        ValueError: As ``SamplingCallback``; in ``setup`` also if ``judge`` does not suit the data.
    """

    def __init__(
        self,
        recipe: Recipe,
        scales: Sequence[float],
        output_dir: str,
        every_n_steps: int = 0,
        seed: int = 0,
        guide: str | None = None,
        num_samples: int = 500,
        judge: JudgeSource | None = None,
        trusted: Sequence[str] = (),
    ) -> None:
        super().__init__(recipe, scales, output_dir, every_n_steps, seed, guide, num_samples, trusted)
        self.judge = judge

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Check that there is a judge if, and only if, the data need one."""
        super().setup(trainer, pl_module, stage)
        kind = trainer.datamodule.kind  # type: ignore[attr-defined]
        if (self.judge is not None) != modality(kind).uses_judge:
            raise ValueError(
                f"{type(self).__name__} is set up for other data, and the data are {kind}: "
                f"add callbacks={modality(kind).callbacks}"
            )

    def check(self, data: Any) -> None:
        """Raise if the judge can't be used: its file is for other data, or the cache can't be written."""
        if self.judge is not None and modality(data.kind).uses_judge:
            modality(data.kind).check(data, self.judge)

    def sample(self, trainer: Trainer, sweep: Sweep, data: Any) -> None:
        """Measure, write, print and log the samples of every scale."""
        judge = self.judge(data) if self.judge else None  # first: no samples are drawn in vain if it can't be had
        labels = interleave(apportion(self.num_samples, data.class_counts("test")))
        curve = modality(data.kind).measure_by_scale(sweep(labels), labels, data, judge, self.seed)
        table = self.output_dir / f"{curve.name}_by_scale.csv"
        self._write(curve, table)
        points = list(zip(self.scales, curve.values[curve.plotted], strict=True))
        plot = table.with_suffix(".png")
        save_share_plot({"samples": points}, curve.real, plot, curve.quantity, curve.real_name)
        self._print(curve)
        for name in curve.logged:
            log_curve(trainer, f"guidance/{name}", self.scales, curve.values[name])
        log_image(trainer, f"guidance/{plot.stem}", plot)

    def _write(self, curve: ScaleCurve, table: Path) -> None:
        with atomic_write(table) as path, path.open("w", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["scale", *curve.values, "num_samples", curve.real_column])
            for scale, *values in zip(self.scales, *curve.values.values(), strict=True):
                texts = [f"{value:.6f}" for value in values]
                rows.writerow([f"{scale:g}", *texts, self.num_samples, f"{curve.real:.6f}"])

    def _print(self, curve: ScaleCurve) -> None:
        print(f"\n{curve.quantity}, {self.num_samples} samples ({curve.real_name}: {percent(curve.real)})")
        for scale, *values in zip(self.scales, *curve.values.values(), strict=True):
            measures = (f"{name} {shown(name, value)}" for name, value in zip(curve.values, values, strict=True))
            print(f"  w = {scale:<5g} {', '.join(measures)}")
