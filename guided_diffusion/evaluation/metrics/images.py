"""Everything that an evaluation measures of the samples of one method at one scale.

Distances, manifold scores and diversity are on the judge's features: they compare between rows of one judge only.
Intervals are of the samples at hand, for one model and one judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from guided_diffusion.data import ImageDataModule, normalise
from guided_diffusion.evaluation.judge import Judge
from guided_diffusion.evaluation.metrics.bootstrap import (
    RESAMPLES,
    bootstrap,
    bootstrap_mean,
    counts,
    percentile_interval,
    resampled_rows,
)
from guided_diffusion.evaluation.metrics.features import (
    Gaussian,
    frechet_distance,
    gaussian_distance,
    gaussian_of,
    kernel_discrepancies_up_to_a_constant,
    kernel_distance,
    manifold_scores,
    nearest_distances,
    pair_mean,
    within_class_diversity,
)
from guided_diffusion.evaluation.results import Interval
from guided_diffusion.utils.rng import generator_for

MANIFOLD_LIMIT = 10_000
"""Reference features that the manifold scores are measured on, at most."""


NEAREST_LIMIT = 2_000
"""Images whose nearest training image is looked for, at most."""


FRECHET_RESAMPLES = 50
"""Each costs an eigenproblem."""


class LabelledSamples(NamedTuple):
    """Generated samples, on the CPU."""

    samples: Float[Tensor, "n *shape"]
    """In [-1, 1]."""
    labels: Int[Tensor, " n"]
    """The classes that were asked for."""
    saturation: Float[Tensor, " n"]
    """The share of each sample's numbers with |x| > 1, before they were clamped."""


class Scores(NamedTuple):
    """What follows from a confusion matrix, in float64."""

    accuracy: Float[Tensor, "*batch"]
    precision: Float[Tensor, "*batch classes"]
    recall: Float[Tensor, "*batch classes"]
    f1: Float[Tensor, "*batch classes"]


@dataclass(frozen=True)
class Reference:
    """The real images that samples are compared with, made once per evaluation."""

    features: Float[Tensor, "test d"]
    """Of the test images."""
    train_features: Float[Tensor, "some d"]
    """Of as many training images as there are samples, or of all if there are fewer."""
    floor: float
    """The Fréchet distance of these to the test features: what so many perfect samples would reach."""
    train_images: UInt8[Tensor, "train c h w"]
    nearest_test: float
    """The mean distance of test images, 2,000 at most, to the nearest training image."""
    class_names: tuple[str, ...]

    @classmethod
    def of(cls, data: ImageDataModule, judge: Judge, num_samples: int, seed: int) -> Reference:
        """The reference for ``num_samples`` samples of this data; the seed is of the images that are chosen."""
        train, test = data.split("train").samples, data.split("test").samples
        test_features = judge.features(normalise(test))
        train_features = judge.features(normalise(train[_choice(len(train), num_samples, seed)]))
        nearest = nearest_distances(normalise(test[_choice(len(test), NEAREST_LIMIT, seed)]), normalise(train))
        floor = frechet_distance(test_features, train_features)
        return cls(test_features, train_features, floor, train, nearest.mean().item(), tuple(data.class_names))

    @cached_property
    def gaussian(self) -> Gaussian:
        """Of the test features, at least two."""
        return gaussian_of(self.features)


@dataclass(frozen=True)
class Measurement:
    """What ``measure`` found."""

    measured: Mapping[str, Interval]
    per_class: Sequence[Mapping[str, Any]]
    """For each class: ``class``, ``class_name``, ``count`` and measures of it, nan where it has too few samples."""
    confusion: Int[Tensor, "classes classes"]
    """Rows are labels, columns what the judge sees."""
    predictions: Int[Tensor, " n"]
    probabilities: Float[Tensor, " n"]
    """That the judge gives to the label."""
    cross_accuracy: Interval | None
    """Accuracy by the judge's ``cross_check``; None without one."""


def measure(samples: LabelledSamples, reference: Reference, judge: Judge, seed: int = 0) -> Measurement:
    """Everything about these samples, at least one of them.

    ``measured`` holds, with 95 % intervals,

        accuracy                         share of samples in which the judge sees their label
        precision, recall, f1            mean over the classes, of the judge's classes against the labels
        judge_probability                mean probability that the judge gives to the label
        fld, kid                         Fréchet and kernel distance to the test images
        improved_precision, density      how far samples lie within the test images, 10,000 of them at most
        improved_recall, coverage        how far these lie within the samples
        diversity                        mean distance of two samples of a class, over the classes
        saturation                       share of |x| > 1 before clamping
        nearest                          mean distance of samples, 2,000 at most, to the nearest training image, divided
                                         by that of test images: well below 1 for copies

    Intervals come from resampled samples, with these particulars: that of ``fld`` is moved to the value, from which
    samples drawn twice push it up, that of ``kid`` to the mean over its subsets, and where this is near 0 it is too
    wide, by half or more; ``diversity`` is resampled within each class; ``improved_recall`` and ``coverage`` are means
    over test images, which are resampled instead. What too few samples leave undefined is nan.
    """
    probabilities, features = judge.probabilities(samples.samples), judge.features(samples.samples)
    predictions = probabilities.argmax(1)
    of_label = probabilities.gather(1, samples.labels[:, None]).squeeze(1)
    diversity = within_class_diversity(features, samples.labels, len(reference.class_names))
    measured = {
        **_classification(predictions, samples.labels, len(reference.class_names), seed),
        "judge_probability": bootstrap_mean(of_label, seed),
        "fld": _fld(reference, features, seed),
        "kid": _kid(reference.features, features, seed),
        **_manifold(reference.features, features, seed),
        "diversity": _diversity(features, samples.labels, diversity, seed),
        "saturation": bootstrap_mean(samples.saturation, seed),
        "nearest": _nearest(samples.samples, reference, seed),
    }
    confusion = _confusion(predictions, samples.labels, len(reference.class_names))
    return Measurement(
        measured,
        _per_class(samples, reference.class_names, confusion, of_label, diversity),
        confusion,
        predictions,
        of_label,
        _cross_accuracy(samples, judge, seed),
    )


def scores(confusion: Float[Tensor, "*batch classes classes"] | Int[Tensor, "*batch classes classes"]) -> Scores:
    """Accuracy of all, and precision, recall and F1 = 2 TP / (2 TP + FP + FN) of each class; 0 where they are 0/0."""
    confusion = confusion.double()
    right = confusion.diagonal(dim1=-2, dim2=-1)
    asked, seen = confusion.sum(-1), confusion.sum(-2)
    accuracy = right.sum(-1) / asked.sum(-1)
    return Scores(accuracy, *(right / total.clamp(min=0.5) for total in (seen, asked, (seen + asked) / 2)))


def macro(
    confusion: Int[Tensor, "*batch classes classes"], values: Float[Tensor, "*batch classes"]
) -> Float[Tensor, "*batch"]:
    """The mean over the classes that were asked for or seen, as torchmetrics takes it."""
    occurs = confusion.sum(-1) + confusion.sum(-2) > 0
    return values.where(occurs, 0).sum(-1) / occurs.sum(-1)


def _classification(
    predictions: Int[Tensor, " n"], labels: Int[Tensor, " n"], num_classes: int, seed: int
) -> dict[str, Interval]:
    value = _averages(_confusion(predictions, labels, num_classes))
    resampled = _averages(_resampled_confusions(predictions, labels, num_classes, seed))
    return {name: percentile_interval(value[name].item(), resampled[name]) for name in value}


def _averages(confusion: Int[Tensor, "*batch classes classes"]) -> dict[str, Float[Tensor, "*batch"]]:
    accuracy, *by_class = scores(confusion)
    averages = (macro(confusion, values) for values in by_class)
    return {"accuracy": accuracy, **dict(zip(Scores._fields[1:], averages, strict=True))}


def _confusion(
    predictions: Int[Tensor, " n"], labels: Int[Tensor, " n"], num_classes: int
) -> Int[Tensor, "{num_classes} {num_classes}"]:
    return multiclass_confusion_matrix(predictions, labels, num_classes)


def _resampled_confusions(
    predictions: Int[Tensor, " n"], labels: Int[Tensor, " n"], num_classes: int, seed: int
) -> Int[Tensor, "resamples {num_classes} {num_classes}"]:
    """The confusion matrices of resampled samples: the count of each of their cells."""
    cells = (labels * num_classes + predictions)[resampled_rows(len(labels), seed)]
    return counts(cells, num_classes**2).unflatten(1, (num_classes, num_classes))


def _fld(reference: Reference, generated: Float[Tensor, "n d"], seed: int) -> Interval:
    if min(len(reference.features), len(generated)) < 2:
        return _undefined()

    def distance(rows: Int[Tensor, " n"]) -> float:
        return gaussian_distance(reference.gaussian, gaussian_of(generated[rows]))

    value, low, high = bootstrap(distance, len(generated), seed, FRECHET_RESAMPLES, centred=True)
    return Interval(value, max(low, 0.0), high)


def _kid(real: Float[Tensor, "m d"], generated: Float[Tensor, "n d"], seed: int) -> Interval:
    weights = counts(resampled_rows(len(generated), seed), len(generated)).double()
    resampled = kernel_discrepancies_up_to_a_constant(real, generated, weights)  # centring takes any constant out
    return percentile_interval(kernel_distance(real, generated, seed=seed), resampled, centred=True)


def _manifold(real: Float[Tensor, "m d"], generated: Float[Tensor, "n d"], seed: int) -> dict[str, Interval]:
    found = manifold_scores(real[_choice(len(real), MANIFOLD_LIMIT, seed)], generated)
    return {
        "improved_precision": bootstrap_mean(found.precision, seed),
        "improved_recall": bootstrap_mean(found.recall, seed),
        "density": bootstrap_mean(found.density, seed),
        "coverage": bootstrap_mean(found.coverage, seed),
    }


def _diversity(
    features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], value: Float[Tensor, " classes"], seed: int
) -> Interval:
    """The mean over the classes that have two samples; each class's samples are resampled by themselves."""
    groups = [(label, features[labels == label]) for label in labels.unique().tolist()]
    resampled = torch.stack([_resampled_diversity(group, seed, label) for label, group in groups])
    return percentile_interval(value.nanmean().item(), resampled.nanmean(0))


def _resampled_diversity(group: Float[Tensor, "n d"], seed: int, label: int) -> Float[Tensor, " resamples"]:
    """A draw of its own for each class."""
    rows = torch.randint(len(group), (RESAMPLES, len(group)), generator=generator_for("cpu", seed, label + 1))
    return pair_mean(group, counts(rows, len(group)).double())


def _nearest(images: Float[Tensor, "n c h w"], reference: Reference, seed: int) -> Interval:
    chosen = images[_choice(len(images), NEAREST_LIMIT, seed)]
    distances = nearest_distances(chosen, normalise(reference.train_images))
    return bootstrap_mean(distances / reference.nearest_test, seed)


def _cross_accuracy(samples: LabelledSamples, judge: Judge, seed: int) -> Interval | None:
    if judge.cross_check is None:
        return None
    return bootstrap_mean((judge.cross_check.classify(samples.samples) == samples.labels).double(), seed)


def _per_class(
    samples: LabelledSamples,
    class_names: Sequence[str],
    confusion: Int[Tensor, "classes classes"],
    probabilities: Float[Tensor, " n"],
    diversity: Float[Tensor, " classes"],
) -> list[dict[str, Any]]:
    _, precision, recall, f1 = scores(confusion)
    groups = [samples.labels == label for label in range(len(class_names))]
    count = torch.stack([group.sum() for group in groups])
    exists = torch.where(count > 0, 1, torch.nan)
    columns = {
        "accuracy": recall * exists,
        "precision": precision * exists,
        "recall": recall * exists,
        "f1": f1 * exists,
        "probability_mean": torch.stack([probabilities[group].mean() for group in groups]),
        "diversity": diversity,
        "pixel_variance": torch.stack([_pixel_variance(samples.samples[group]) for group in groups]),
    }
    return [
        {"class": label, "class_name": name, "count": int(count[label])}
        | {column: values[label].item() for column, values in columns.items()}
        for label, name in enumerate(class_names)
    ]


def _pixel_variance(images: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
    """The unbiased variance of a pixel over the images, averaged over the pixels."""
    return images.var(0).mean() if len(images) > 1 else torch.tensor(torch.nan)


def _choice(count: int, limit: int, seed: int) -> Int[Tensor, " chosen"]:
    """Rows to look at, in order: all, or ``limit`` of them by chance."""
    return torch.randperm(count, generator=generator_for("cpu", seed))[:limit].sort().values


def _undefined() -> Interval:
    return Interval(torch.nan, torch.nan, torch.nan)
