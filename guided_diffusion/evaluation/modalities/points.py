"""Points in the plane: measured against the known distribution of their class, drawn over its density."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from guided_diffusion.data import LabelledDataModule, Pattern, Patterns
from guided_diffusion.evaluation.judge import Judge
from guided_diffusion.evaluation.metrics.images import LabelledSamples
from guided_diffusion.evaluation.metrics.inception import Inception
from guided_diffusion.evaluation.metrics.points import TOLERANCE, distances_to_own, floors_of, measure_points
from guided_diffusion.evaluation.modalities.base import Examination, Finding, Gallery, JudgeSource, Modality, ScaleCurve
from guided_diffusion.evaluation.plan import Plan
from guided_diffusion.evaluation.plots import point_evaluation
from guided_diffusion.evaluation.plots.curves import curves
from guided_diffusion.evaluation.plots.scatter import LIMIT, NOISE_LIMIT, densities_of, point_frames, scatter_grid
from guided_diffusion.evaluation.proportions import apportion
from guided_diffusion.evaluation.results import POINT_COLUMNS, PointPictures, Result, Results
from guided_diffusion.evaluation.summary import best_row, best_sentence, floor_of, labels_sentences, number, percent
from guided_diffusion.samplers import Step
from guided_diffusion.utils.files import atomic_write
from guided_diffusion.utils.rng import generator_for

SHOWN = 500
"""The number of points of each class that are kept for pictures."""

FLOOR_POINTS = 5000
"""The number of true points of each class, on average, that a training compares its samples with."""


class Points(Modality):
    """Points in the plane, whose distribution is known exactly: no judge is needed."""

    columns = POINT_COLUMNS
    callbacks = "patterns"
    uses_judge = False
    captions: ClassVar = {
        "off_curve": "Share of points further than 0.05 from their curve, with 95 % intervals. Dashed: true points.",
        "distance": "Mean distance of points to their curve, with 95 % intervals. Dashed: true points.",
        "sliced_wasserstein": "Sliced Wasserstein distance to the data of the class, with 95 % intervals. Dashed: "
        "true points.",
        "total_variation": "Total variation between the histogram of the points and the exact density, with 95 % "
        "intervals. Dashed: true points.",
    }
    captions_of_curve: ClassVar = {
        "scatter": "Samples of each class (column) at each scale (row), over the density of the data.",
        "per_class": "Share of points off their curve, of each class, against guidance scale.",
    }
    wide = ("scatter",)
    strip_class = "scatter"
    strip_measures: ClassVar = {
        "off_curve": "off the curve",
        "distance_mean": "mean distance",
        "sliced_wasserstein": "sliced Wasserstein",
    }
    floors: ClassVar = {
        "off_curve": "true points off the curve",
        "sliced_wasserstein": "sliced Wasserstein of true points",
        "total_variation": "total variation of true points",
    }
    figures = staticmethod(point_evaluation.figures)

    def check(self, data: Any, judge_source: JudgeSource) -> None:
        """Do nothing: the distribution is known, so neither the data nor a judge are needed."""

    def examine(
        self,
        data: Any,
        judge_source: JudgeSource,
        samples: Sequence[LabelledSamples],
        plan: Plan,
        inception: Inception | None = None,
    ) -> Examination:
        densities = densities_of(data.patterns, LIMIT)
        fewest = int(plan.labels.bincount(minlength=data.num_classes).min())
        findings = []
        for of_scale in samples:
            found = measure_points(of_scale, data.patterns, data.class_names, plan.seed)
            classes = [
                of_scale.samples[of_scale.labels == label][: min(SHOWN, fewest)] for label in range(data.num_classes)
            ]
            shown = PointPictures(torch.stack(classes).numpy(), densities)
            findings.append(Finding(found.measured, found.per_class, shown))
        return Examination(
            findings, floors_of(data.patterns, data.class_names, plan.labels, plan.num_extra, plan.seed), {}
        )

    def measure_by_scale(
        self, samples: Float[Tensor, "scales n *shape"], labels: Tensor, data: Any, judge: Judge | None, seed: int
    ) -> ScaleCurve:
        """Measure the distance of samples to the curve of their label."""
        distances = [distances_to_own(points, labels, data.patterns) for points in samples]
        counts = apportion(FLOOR_POINTS * data.num_classes, data.class_counts("test")).tolist()
        points = (
            (one, one.generate(n, generator_for("cpu", seed, 1))) for one, n in zip(data.patterns, counts, strict=True)
        )
        true = torch.cat([pattern.distance(cloud) for pattern, cloud in points])
        return ScaleCurve(
            name="distance",
            values={
                "distance_mean": [one.mean().item() for one in distances],
                "distance_p95": [one.quantile(0.95).item() for one in distances],
                "off_curve": [share_off_curve(one) for one in distances],
            },
            plotted="off_curve",
            logged=("distance_mean", "off_curve"),
            real_column="off_curve_floor",
            real=share_off_curve(true),
            real_name="true points",
            quantity=f"further than {TOLERANCE} from the curve",
        )

    def gallery(self, load_data: Callable[[], LabelledDataModule]) -> Gallery:
        """Return a gallery over the density of the data of the training."""
        data = load_data()
        assert isinstance(data, Patterns)
        return PointGallery(data.patterns, data.class_names)

    def strip(self, row: Result, class_names: Sequence[str]) -> Image.Image:
        return point_evaluation.scatter_of(row, class_names)

    def drawings(self, row: Result) -> dict[str, UInt8[np.ndarray, "height width 3"]]:
        names = [str(one["class_name"]) for one in row.per_class]
        return {"scatter": np.asarray(point_evaluation.scatter_of(row, names))}

    def summary(self, results: Results) -> str:
        several = len(curves(results)) > 1
        on_curve = best_row(results.rows, "off_curve", lowest=True)
        closest = best_row(results.rows, "sliced_wasserstein", lowest=True)
        distance = number(floor_of(closest, results, "sliced_wasserstein"))
        share = f"The smallest share of points further than {TOLERANCE} from their curve"
        sentences = [
            best_sentence(share, on_curve, "off_curve", several),
            f"For true points it is {percent(floor_of(on_curve, results, 'off_curve'))}.",
            best_sentence("The lowest sliced Wasserstein distance", closest, "sliced_wasserstein", several),
            f"Between two sets of true points it is {distance}.",
            "Points close to their curve may still be spread over it unlike the data; the distances between sets show "
            "that.",
            *labels_sentences(results),
        ]
        return " ".join(sentences)

    def print_table(self, results: Results) -> None:
        names = ("distance_mean", "distance_p95", "sliced_wasserstein", "mmd", "total_variation", "kl")
        print("\n" + "".join(f"{sentence}\n" for sentence in labels_sentences(results)), end="")
        print(f"{'w':>6} {'off the curve':>21} {' '.join(f'{name:>18}' for name in names)} {'nfe':>5} {'s':>7}")
        floors = results.rows[0].floors
        print(f"{'true':>6} {floors['off_curve']:8.2%} {'':12} {' '.join(f'{floors[name]:18.4f}' for name in names)}")
        for row in results.rows:
            off = row.measured["off_curve"]
            values = " ".join(f"{row.measured[name].value:18.4f}" for name in names)
            interval = f"[{off.low:.1%}, {off.high:.1%}]"
            print(f"{row.scale:6g} {off.value:8.2%} {interval:12} {values} {row.nfe:5g} {row.seconds:7.1f}")


def share_off_curve(distances: Float[Tensor, " n"]) -> float:
    """Return the share of distances above the tolerance."""
    return (distances > TOLERANCE).double().mean().item()


@dataclass(frozen=True)
class PointGallery:
    """A scatter plot for each class, over the density of the data, which consists of these patterns."""

    patterns: Sequence[Pattern]
    class_names: Sequence[str]
    num_samples: ClassVar[int] = 1000
    largest: ClassVar[int] = 20
    """The largest number of panels side by side that are drawn: the first ones."""

    def animated(self, num_classes: int) -> int:
        return 400

    def save(self, samples: Float[Tensor, "classes n 2"], names: Sequence[str], path: Path) -> None:
        self.save_by_scale(samples[None], [""], names, path)

    def save_by_scale(
        self, samples: Float[Tensor, "scales classes n 2"], rows: Sequence[str], names: Sequence[str], path: Path
    ) -> None:
        samples, names = samples[:, : self.largest], names[: self.largest]
        figure = scatter_grid(samples, densities_of(self.patterns, LIMIT), rows, names, self._own(names))
        with atomic_write(path) as temporary:
            figure.savefig(temporary)

    def save_stages(self, stages: Mapping[str, Float[Tensor, "classes n 2"]], names: Sequence[str], path: Path) -> None:
        """Write a PNG with a row for each stage and a column for each distinct name, with all points of that name."""
        columns = list(dict.fromkeys(names))
        places = [torch.tensor([name == column for name in names]) for column in columns]
        count = min(int(place.sum()) * part.shape[1] for place in places for part in stages.values())
        clouds = [[part[place].flatten(0, 1)[:count] for place in places] for part in stages.values()]
        self.save_by_scale(torch.stack([torch.stack(row) for row in clouds]), list(stages), columns, path)

    def frames(self, steps: Sequence[Step], names: Sequence[str]) -> Iterator[UInt8[Tensor, "height width 3"]]:
        """Yield a frame for each step, with the paths of some points."""
        return point_frames(steps, densities_of(self.patterns, NOISE_LIMIT), self._own(names), names)

    def _own(self, names: Sequence[str]) -> list[int]:
        return [self.class_names.index(name) for name in names]
