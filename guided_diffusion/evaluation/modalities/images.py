"""Images: measured by a judge and in its features, drawn side by side on the fixed range [-1, 1]."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from guided_diffusion.data import LabelledDataModule, denormalise
from guided_diffusion.evaluation.judge import Judge, accuracy, check_judge
from guided_diffusion.evaluation.metrics.images import Measurement, Reference, measure
from guided_diffusion.evaluation.metrics.inception import Inception, measure_with_inception
from guided_diffusion.evaluation.modalities.base import Examination, Finding, Gallery, JudgeSource, Modality, ScaleCurve
from guided_diffusion.evaluation.plan import LabelledSamples, Plan
from guided_diffusion.evaluation.plots import image_evaluation
from guided_diffusion.evaluation.plots.curves import curves
from guided_diffusion.evaluation.plots.image_grid import (
    MAX_VIDEO_SIDE,
    columns_within,
    grid,
    save_labelled_grid,
    side_by_side,
)
from guided_diffusion.evaluation.proportions import EQUAL, occurrences
from guided_diffusion.evaluation.results import (
    COLUMNS,
    CROSS_COLUMNS,
    INCEPTION_COLUMNS,
    Pictures,
    Result,
    Results,
)
from guided_diffusion.evaluation.summary import (
    best_row,
    best_sentence,
    cross_check_sentences,
    floor_of,
    inception_sentences,
    labels_sentences,
    number,
    percent,
    shown,
)
from guided_diffusion.samplers import Step

SHOWN = 20
"""The number of images in a strip, and of uncertain images."""

STRIP_COLUMNS = 10


class Images(Modality):
    """Images of any number of channels."""

    columns = COLUMNS
    callbacks = "default"
    uses_judge = True
    captions: ClassVar = {
        "accuracy": "Judge accuracy against guidance scale, with 95 % intervals. Dashed: accuracy on real test images.",
        "frechet_distance": "Fréchet distance against guidance scale, with 95 % intervals. Dashed: real images.",
        "precision_recall": "Improved precision against improved recall, along the guidance scale.",
    }
    captions_of_curve: ClassVar = {
        "per_class": "Accuracy of each class against guidance scale.",
        "confusion": "The class that the judge predicts (column) for samples of each label (row).",
        "means": "Mean image of each class (column) at each scale (row).",
        "uncertain": "Samples whose label the judge finds least likely: label \N{RIGHTWARDS ARROW} predicted class, "
        "and the probability that the judge gives to the label.",
    }
    wide = ("confusion", "means", "uncertain")
    strip_class = "strip"
    strip_measures: ClassVar = {"accuracy": "accuracy", "fld": "Fréchet distance", "saturation": "saturated pixels"}
    floors: ClassVar = {
        "fld": "Fréchet floor",
        "inception_fid": "Inception FID floor",
        "inception_kid": "Inception KID floor",
    }
    figures = staticmethod(image_evaluation.figures)

    def check(self, data: Any, judge_source: JudgeSource) -> None:
        """Raise if the data or the judge can't be read, or if a new judge can't be written to the cache."""
        data.split("train")
        data.split("test")
        check_judge(judge_source, data)

    def examine(
        self,
        data: Any,
        judge_source: JudgeSource,
        samples: Sequence[LabelledSamples],
        plan: Plan,
        inception: Inception | None = None,
    ) -> Examination:
        judge = judge_source(data)
        reference = Reference.of(data, judge, plan.num_counted, plan.seed, equal=plan.drawn == EQUAL)
        findings = []
        for of_scale in samples:
            found = measure(of_scale, reference, judge, plan.seed)
            extra = {} if found.cross_accuracy is None else {"cross_accuracy": found.cross_accuracy}
            findings.append(Finding({**found.measured, **extra}, found.per_class, pictures(of_scale, found)))
        second = judge.cross_check
        cross_check = second and {"name": second.name, "ceiling": _ceiling(second, data, plan)}
        about = {"judge": judge.name, "judge_ceiling": _ceiling(judge, data, plan), "cross_check": cross_check}
        examination = Examination(findings, {"fld": reference.floor}, about, CROSS_COLUMNS if second else ())
        return examination if inception is None else _with_inception(examination, inception, samples, data, plan)

    def measure_by_scale(
        self, samples: Float[Tensor, "scales n *shape"], labels: Tensor, data: Any, judge: Judge | None, seed: int
    ) -> ScaleCurve:
        """Measure the share of samples in which the judge sees their label."""
        assert judge is not None
        accuracies = [(judge.classify(of_scale) == labels).float().mean().item() for of_scale in samples]
        return ScaleCurve(
            name="accuracy",
            values={"accuracy": accuracies},
            plotted="accuracy",
            logged=("accuracy",),
            real_column="judge_ceiling",
            real=judge.ceiling,
            real_name="real test images",
            quantity="judge accuracy",
        )

    def gallery(self, load_data: Callable[[], LabelledDataModule]) -> Gallery:
        return ImageGallery()

    def strip(self, row: Result, class_names: Sequence[str]) -> Image.Image:
        """Return the first images of a row, in grey unless they have three channels."""
        images = torch.from_numpy(row.pictures.strip[:SHOWN])
        pixels = Image.fromarray(grid(images, columns=STRIP_COLUMNS, min_size=1).numpy())
        return pixels if images.shape[1] == 3 else pixels.convert("L")

    def drawings(self, row: Result) -> dict[str, UInt8[np.ndarray, "height width 3"]]:
        return {"strip": side_by_side(row.pictures.strip), "means": side_by_side(np.nan_to_num(row.pictures.means))}

    def summary(self, results: Results) -> str:
        several, ceiling = len(curves(results)) > 1, float(results.about["judge_ceiling"])
        best = best_row(results.rows, "accuracy", lowest=False)
        closest = best_row(results.rows, "fld", lowest=True)
        above = best is not None and best.measured["accuracy"].value > ceiling
        sentences = [
            best_sentence("The best judge accuracy", best, "accuracy", several),
            f"The ceiling, its accuracy on real test images, is {percent(ceiling)}.",
            "Accuracies above the ceiling mean that the judge finds the samples easier to classify than real images."
            if above
            else "",
            *cross_check_sentences(results, several),
            best_sentence("The lowest Fréchet distance", closest, "fld", several),
            f"The floor, the distance between two sets of real images, is {number(floor_of(closest, results, 'fld'))}.",
            f"Distances are taken in the features of the judge's network, {results.about['judge']}.",
            "There is one class, from which the judge learns nothing: its features are those of random weights."
            if len(results.about["class_names"]) == 1
            else "",
            *labels_sentences(results),
            *inception_sentences(results, several),
        ]
        return " ".join(filter(None, sentences))

    def print_table(self, results: Results) -> None:
        about, floor = results.about, results.rows[0].floors["fld"]
        print(f"\njudge {about['judge']}: {about['judge_ceiling']:.1%} on real test images; Fréchet floor {floor:.2f}")
        sentences = [
            *cross_check_sentences(results, several=False),
            *labels_sentences(results),
            *inception_sentences(results, several=False),
        ]
        print("".join(f"{sentence}\n" for sentence in sentences), end="")
        heads = f"{'w':>6} {'accuracy':>20} {'fld':>22} {'density':>8} {'coverage':>9} {'saturated':>10}"
        extra = [
            name for name in ("cross_accuracy", "inception_fid", "inception_kid") if name in results.rows[0].measured
        ]
        print(f"{heads} {'nfe':>5} {'s':>7}" + "".join(f" {name:>14}" for name in extra))
        for row in results.rows:
            value = row.measured
            accuracy, fld = value["accuracy"], value["fld"]
            print(
                f"{row.scale:6g} {accuracy.value:8.2%} [{accuracy.low:.1%}, {accuracy.high:.1%}]"
                f" {fld.value:8.2f} [{fld.low:.2f}, {fld.high:.2f}] {value['density'].value:8.3f}"
                f" {value['coverage'].value:9.3f} {value['saturation'].value:10.2%} {row.nfe:5g} {row.seconds:7.1f}"
                + "".join(f" {shown(name, value[name].value):>14}" for name in extra)
            )


def _with_inception(
    examination: Examination, inception: Inception, samples: Sequence[LabelledSamples], data: Any, plan: Plan
) -> Examination:
    """Return the examination with what Inception measures of the samples but the extra ones."""
    images = [denormalise(of_scale.counted.samples) for of_scale in samples]
    measured = measure_with_inception(inception, images, plan.labels[: plan.num_counted], data, plan.seed)
    findings = [
        one._replace(measured={**one.measured, **more})
        for one, more in zip(examination.findings, measured.measured, strict=True)
    ]
    floors = {**examination.floors, **measured.floors}
    columns = (*examination.columns, *INCEPTION_COLUMNS)
    return examination._replace(findings=findings, floors=floors, columns=columns, facts=measured.facts)


def _ceiling(judge: Judge, data: Any, plan: Plan) -> float:
    """Return the accuracy on the test images, each class weighted by its share of the plan's labels."""
    return accuracy(judge.network, data, balanced=True) if plan.drawn == EQUAL else judge.ceiling


def pictures(samples: LabelledSamples, found: Measurement) -> Pictures:
    """Return the pictures of the samples of one scale."""
    num_classes = len(found.confusion)
    groups = [samples.samples[samples.labels == label] for label in range(num_classes)]
    uncertain = found.probabilities.argsort()[:SHOWN]
    return Pictures(
        strip=samples.samples[_rows_of_strip(samples.labels, num_classes)].numpy(),
        means=torch.stack([group.mean(0) for group in groups]).numpy(),
        uncertain=samples.samples[uncertain].numpy(),
        uncertain_labels=samples.labels[uncertain].numpy(),
        uncertain_predictions=found.predictions[uncertain].numpy(),
        uncertain_probabilities=found.probabilities[uncertain].float().numpy(),
        confusion=found.confusion.numpy(),
        predictions=found.predictions.numpy(),
        probabilities=found.probabilities.float().numpy(),
        labels=samples.counted.labels.numpy(),
    )


def _rows_of_strip(labels: Int[Tensor, " n"], num_classes: int) -> Int[Tensor, " rows"]:
    """Return the rows of a strip: the first sample of each class, then the second of each class, and so on."""
    rounds = occurrences(labels)
    rows = (rounds * num_classes + labels).argsort()
    return rows[rounds[rows] < max(1, SHOWN // num_classes)][:SHOWN]


@dataclass(frozen=True)
class ImageGallery:
    """A grid with a row for each class and a column for each sample; in grids by scale, a row for each scale."""

    num_samples: ClassVar[int] = 8
    columns: ClassVar[int] = 10
    widest: ClassVar[int] = 20
    """The largest number of columns of a grid by scale; wider ones get a row for each class and scale."""

    def animated(self, num_classes: int) -> int:
        """Return as many samples as fit into ten columns, at least one."""
        return max(1, self.columns // num_classes)

    def save(self, samples: Float[Tensor, "classes n c h w"], names: Sequence[str], path: Path) -> None:
        save_labelled_grid(samples, path, rows=names, columns=[""] * samples.shape[1])

    def save_by_scale(
        self, samples: Float[Tensor, "scales classes n c h w"], rows: Sequence[str], names: Sequence[str], path: Path
    ) -> None:
        """Write a PNG with a row for each scale; a class takes a column for each of its samples.

        If that is wider than ``widest``, there is a row for each class and scale instead.
        """
        if samples.shape[1] * samples.shape[2] > self.widest:
            each = [f"{name}, {row}" for name in names for row in rows]
            return self.save(samples.transpose(0, 1).flatten(0, 1), each, path)
        columns = [name for name in names for _ in range(samples.shape[2])]
        save_labelled_grid(samples.flatten(1, 2), path, rows=rows, columns=columns)

    def save_stages(
        self, stages: Mapping[str, Float[Tensor, "classes n c h w"]], names: Sequence[str], path: Path
    ) -> None:
        """Write a PNG with a row for each name and the stages side by side."""
        columns = [title if n == 0 else "" for title, samples in stages.items() for n in range(samples.shape[1])]
        save_labelled_grid(torch.cat(list(stages.values()), 1), path, rows=names, columns=columns)

    def frames(self, steps: Sequence[Step], names: Sequence[str]) -> Iterator[UInt8[Tensor, "height width 3"]]:
        for step in steps:
            columns = min(len(step.x), columns_within(step.x, MAX_VIDEO_SIDE, min_size=56))
            yield grid(torch.cat([step.x[:columns], step.x0[:columns]]).cpu(), columns, min_size=56)
