"""The measures of images at one scale with their confidence intervals: accuracy, Fréchet distance, and others.

Fréchet and kernel distance, manifold scores and diversity are measured on the judge's features, so values from
different judges can't be compared. Intervals cover the choice of samples only, not that of the model or the judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

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
    percentile_interval,
    resampled_rows,
    row_counts,
)
from guided_diffusion.evaluation.metrics.classification import classification_intervals, scores
from guided_diffusion.evaluation.metrics.features import (
    Gaussian,
    fit_gaussian,
    frechet_distance,
    kernel_distance,
    manifold_scores,
    mean_over_pairs,
    nearest_distances,
    squared_mmd_up_to_a_constant,
    within_class_diversity,
)
from guided_diffusion.evaluation.plan import LabelledSamples
from guided_diffusion.evaluation.results import Interval
from guided_diffusion.utils.rng import generator_for

MANIFOLD_LIMIT = 10_000  # the largest number of reference features for manifold scores
NEAREST_LIMIT = 2_000  # the largest number of images whose nearest training image is searched
FRECHET_RESAMPLES = 50  # each of them solves an eigenvalue problem


@dataclass(frozen=True)
class Reference:
    """The real images and features that all samples of an evaluation are compared with."""

    features: Float[Tensor, "test d"]
    """The features of the test images."""
    train_features: Float[Tensor, "some d"]
    """The features of as many training images as there are samples, or of all if there are fewer."""
    train_images: UInt8[Tensor, "train c h w"]
    nearest_test: float
    """The mean distance of test images, 2,000 at most, to the nearest training image."""
    class_names: tuple[str, ...]

    @classmethod
    def of(cls, data: ImageDataModule, judge: Judge, num_samples: int, seed: int) -> Reference:
        """Return the reference for ``num_samples`` samples of this data; ``seed`` picks a subset of images."""
        train, test = data.split("train").samples, data.split("test").samples
        nearest = nearest_distances(normalise(test[_random_rows(len(test), NEAREST_LIMIT, seed)]), normalise(train))
        return cls(
            features=judge.features(normalise(test)),
            train_features=judge.features(normalise(train[_random_rows(len(train), num_samples, seed)])),
            train_images=train,
            nearest_test=nearest.mean().item(),
            class_names=tuple(data.class_names),
        )

    @cached_property
    def gaussian(self) -> Gaussian:
        """The Gaussian fitted to the test features."""
        return fit_gaussian(self.features)

    @cached_property
    def floor(self) -> float:
        """The Fréchet distance of training to test features, which as many perfect samples would reach."""
        return frechet_distance(self.gaussian, fit_gaussian(self.train_features))


@dataclass(frozen=True)
class Measurement:
    """The result of ``measure``.

    ``measured`` holds values with 95 % intervals:

        accuracy                         share of samples that the judge classifies as their label
        precision, recall, f1            mean over the classes, of the judge's classes against the labels
        judge_probability                mean probability that the judge gives to the label
        fld, kid                         Fréchet and kernel distance to the test images
        improved_precision, density      how far samples lie within the test images, 10,000 of them at most
        improved_recall, coverage        how far these test images lie within the samples
        diversity                        mean distance of two samples of a class, averaged over the classes
        saturation                       share of |x| > 1 before clamping
        nearest                          mean distance of samples, 2,000 at most, to the nearest training image, divided
                                         by that of test images: well below 1 for copies

    Intervals come from resampled samples, except that ``improved_recall`` and ``coverage`` are means over test images,
    which are resampled instead. ``diversity`` is resampled within each class. The interval of ``fld`` is moved to the
    value, because repeated samples bias it upwards; that of ``kid`` is moved to the mean over its subsets and is too
    wide, by half or more, where that mean is near 0. Values that need more samples are nan.
    """

    measured: Mapping[str, Interval]
    per_class: Sequence[Mapping[str, Any]]
    """For each class ``class``, ``class_name``, ``count`` and its measures, nan where it has too few samples."""
    confusion: Int[Tensor, "classes classes"]
    """The number of samples by label (rows) and predicted class (columns)."""
    predictions: Int[Tensor, " n"]
    probabilities: Float[Tensor, " n"]
    """The probability that the judge gives to the label."""
    cross_accuracy: Interval | None
    """The accuracy by the judge's ``cross_check``; None without one."""


def measure(samples: LabelledSamples, reference: Reference, judge: Judge, seed: int = 0) -> Measurement:
    """Measure at least one sample as ``Measurement`` describes; ``seed`` decides all that is drawn at random."""
    probabilities, features = judge.probabilities(samples.samples), judge.features(samples.samples)
    predictions = probabilities.argmax(1)
    num_classes = len(reference.class_names)
    label_probabilities = probabilities.gather(1, samples.labels[:, None]).squeeze(1)
    diversity = within_class_diversity(features, samples.labels, num_classes)
    confusion = multiclass_confusion_matrix(predictions, samples.labels, num_classes, validate_args=False)
    return Measurement(
        measured={
            **classification_intervals(predictions, samples.labels, num_classes, seed),
            "judge_probability": bootstrap_mean(label_probabilities, seed),
            "fld": _frechet_interval(reference.gaussian, features, seed),
            "kid": kernel_distance_interval(reference.features, features, seed),
            **_manifold_intervals(reference.features, features, seed),
            "diversity": _diversity_interval(features, samples.labels, diversity, seed),
            "saturation": bootstrap_mean(samples.saturation, seed),
            "nearest": _nearest_interval(samples.samples, reference, seed),
        },
        per_class=_per_class(samples, reference.class_names, confusion, label_probabilities, diversity),
        confusion=confusion,
        predictions=predictions,
        probabilities=label_probabilities,
        cross_accuracy=_cross_accuracy(samples, judge, seed),
    )


def _frechet_interval(real: Gaussian, generated: Float[Tensor, "n d"], seed: int) -> Interval:
    def distance(rows: Int[Tensor, " n"]) -> float:
        return frechet_distance(real, fit_gaussian(generated[rows]))

    value, low, high = bootstrap(distance, len(generated), seed, FRECHET_RESAMPLES, centred=True)
    return Interval(value, max(low, 0.0), high)


def kernel_distance_interval(real: Float[Tensor, "m d"], generated: Float[Tensor, "n d"], seed: int) -> Interval:
    """Return the kernel distance, with an interval from the squared MMD of all samples, resampled."""
    weights = row_counts(resampled_rows(len(generated), seed), len(generated)).double()
    resampled = squared_mmd_up_to_a_constant(real, generated, weights)  # centring removes any constant
    return percentile_interval(kernel_distance(real, generated, seed=seed), resampled, centred=True)


def _manifold_intervals(real: Float[Tensor, "m d"], generated: Float[Tensor, "n d"], seed: int) -> dict[str, Interval]:
    found = manifold_scores(real[_random_rows(len(real), MANIFOLD_LIMIT, seed)], generated)
    names = ("improved_precision", "improved_recall", "density", "coverage")
    return {name: bootstrap_mean(values, seed) for name, values in zip(names, found, strict=True)}


def _diversity_interval(
    features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], value: Float[Tensor, " classes"], seed: int
) -> Interval:
    """Return the mean over classes with two samples or more; each class is resampled with a generator of its own."""

    def resampled(label: int) -> Float[Tensor, " resamples"]:
        group = features[labels == label]
        rows = torch.randint(len(group), (RESAMPLES, len(group)), generator=generator_for("cpu", seed, label + 1))
        return mean_over_pairs(group, row_counts(rows, len(group)).double())

    by_class = torch.stack([resampled(label) for label in labels.unique().tolist()])
    return percentile_interval(value.nanmean().item(), by_class.nanmean(0))


def _nearest_interval(images: Float[Tensor, "n c h w"], reference: Reference, seed: int) -> Interval:
    some = images[_random_rows(len(images), NEAREST_LIMIT, seed)]
    distances = nearest_distances(some, normalise(reference.train_images))
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
    scored = {"accuracy": recall, "precision": precision, "recall": recall, "f1": f1}
    columns = {name: values * exists for name, values in scored.items()} | {
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
    """Return the unbiased variance of a pixel over the images, averaged over the pixels."""
    return images.var(0).mean() if len(images) > 1 else torch.tensor(torch.nan)


def _random_rows(count: int, limit: int, seed: int) -> Int[Tensor, " rows"]:
    """Return sorted row numbers: all of them, or ``limit`` drawn at random."""
    return torch.randperm(count, generator=generator_for("cpu", seed))[:limit].sort().values
