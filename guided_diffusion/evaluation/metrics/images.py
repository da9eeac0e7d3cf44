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
from jaxtyping import Bool, Float, Int, UInt8
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
from guided_diffusion.evaluation.metrics.classification import classification_intervals
from guided_diffusion.evaluation.metrics.features import (
    Gaussian,
    fit_gaussian,
    frechet_distance,
    kernel_distance,
    manifold_scores,
    mean_over_pairs,
    nearest_distances,
    squared_mmd,
    squared_mmd_up_to_a_constant,
    within_class_diversity,
)
from guided_diffusion.evaluation.metrics.per_class import measure_classes
from guided_diffusion.evaluation.metrics.shares import share_interval
from guided_diffusion.evaluation.plan import LabelledSamples
from guided_diffusion.evaluation.proportions import apportion
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
    weights: Float[Tensor, " test"] | None
    """The weights of the test images in means, shares and distances; None if all are equal."""
    train_features: Float[Tensor, "some d"]
    """The features of training images, as many of each class as there are samples, or all where there are fewer."""
    train_weights: Float[Tensor, " some"] | None
    """The weights that give the training images the proportions of the samples; None if all are equal."""
    train_images: UInt8[Tensor, "train c h w"]
    nearest_test: float
    """The mean distance of test images, 2,000 at most, to the nearest training image."""
    class_names: tuple[str, ...]
    known: Bool[Tensor, " classes"]
    """Whether a class has test images."""

    @classmethod
    def of(cls, data: ImageDataModule, judge: Judge, num_samples: int, seed: int, equal: bool = False) -> Reference:
        """Return the reference for ``num_samples`` samples of this data; ``seed`` picks a subset of images.

        The samples have labels in the proportions of the test images. With ``equal`` they have equally many of each
        class, and the images are weighted so that every class counts the same.
        """
        (train, train_labels), (test, test_labels) = data.split("train"), data.split("test")
        sizes = data.class_counts("test")
        frequencies = (sizes > 0).long() if equal else sizes
        wanted = apportion(num_samples, frequencies)
        train_rows = rows_of_classes(train_labels, wanted, seed)
        test_rows = _random_rows(len(test), NEAREST_LIMIT, seed)
        weights = _weights(test_labels, frequencies)
        nearest = nearest_distances(normalise(test[test_rows]), normalise(train))
        return cls(
            features=judge.features(normalise(test)),
            weights=weights,
            train_features=judge.features(normalise(train[train_rows])),
            train_weights=_weights(train_labels[train_rows], wanted),
            train_images=train,
            nearest_test=_mean(nearest, _weights_at(weights, test_rows)),
            class_names=tuple(data.class_names),
            known=sizes > 0,
        )

    @cached_property
    def gaussian(self) -> Gaussian:
        """The Gaussian fitted to the test features."""
        return fit_gaussian(self.features, self.weights)

    @cached_property
    def floor(self) -> float:
        """The Fréchet distance of training to test features, which as many perfect samples would reach."""
        return frechet_distance(self.gaussian, fit_gaussian(self.train_features, self.train_weights))


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

    Shares (accuracy, precision, recall, f1, and all of the manifold scores but ``density``) have Wilson intervals;
    those of ``improved_recall`` and ``coverage`` are shares of test images. Other intervals come from resampled
    samples. ``diversity`` is resampled within each class. The interval of ``fld`` is moved to the value, because
    repeated samples bias it upwards; that of ``kid`` is moved to the mean over its subsets and is too wide, by half or
    more, where that mean is near 0. Values that need more samples are nan.

    Samples of a class without test images are left out of the comparisons with images, from ``fld`` to ``coverage``
    and ``nearest``. Extra samples count in ``diversity``, ``per_class`` and ``confusion`` only.
    """

    measured: Mapping[str, Interval]
    per_class: Sequence[Mapping[str, Any]]
    """For each class ``class``, ``class_name``, ``count`` and its measures, nan where it has too few samples. Precision
    and F1 use the proportions of the labels without the extra samples."""
    confusion: Int[Tensor, "classes classes"]
    """The number of samples by label (rows) and predicted class (columns)."""
    predictions: Int[Tensor, " n"]
    """The predicted class of each sample but the extra ones."""
    probabilities: Float[Tensor, " n"]
    """The probability that the judge gives to the label, for the same samples."""
    cross_accuracy: Interval | None
    """The accuracy by the judge's ``cross_check``; None without one."""


def measure(samples: LabelledSamples, reference: Reference, judge: Judge, seed: int = 0) -> Measurement:
    """Measure at least one sample as ``Measurement`` describes; ``seed`` decides all that is drawn at random."""
    probabilities, features = judge.probabilities(samples.samples), judge.features(samples.samples)
    predictions = probabilities.argmax(1)
    num_classes, counted = len(reference.class_names), samples.counted
    label_probabilities = probabilities.gather(1, samples.labels[:, None]).squeeze(1)
    diversity = within_class_diversity(features, samples.labels, num_classes)
    confusion = multiclass_confusion_matrix(predictions, samples.labels, num_classes, validate_args=False)
    count = len(counted.labels)
    compared = reference.known[counted.labels].nonzero().squeeze(1)
    return Measurement(
        measured={
            **classification_intervals(predictions[:count], counted.labels, num_classes),
            "judge_probability": bootstrap_mean(label_probabilities[:count], seed),
            **_distance_intervals(features[compared], reference, seed),
            "diversity": _diversity_interval(features, samples.labels, diversity, seed),
            "saturation": bootstrap_mean(counted.saturation, seed),
            "nearest": _nearest_interval(counted.samples[compared], reference, seed),
        },
        per_class=measure_classes(samples, reference.class_names, confusion, label_probabilities, diversity),
        confusion=confusion,
        predictions=predictions[:count],
        probabilities=label_probabilities[:count],
        cross_accuracy=_cross_accuracy(counted, judge),
    )


def _distance_intervals(features: Float[Tensor, "n d"], reference: Reference, seed: int) -> dict[str, Interval]:
    return {
        "fld": _frechet_interval(reference.gaussian, features, seed),
        "kid": kernel_distance_interval(reference.features, features, seed, reference.weights),
        **_manifold_intervals(reference, features, seed),
    }


def _frechet_interval(real: Gaussian, generated: Float[Tensor, "n d"], seed: int) -> Interval:
    def distance(rows: Int[Tensor, " n"]) -> float:
        return frechet_distance(real, fit_gaussian(generated[rows]))

    value, low, high = bootstrap(distance, len(generated), seed, FRECHET_RESAMPLES, centred=True)
    return Interval(value, max(low, 0.0), high)


def kernel_distance_interval(
    real: Float[Tensor, "m d"], generated: Float[Tensor, "n d"], seed: int, weights: Float[Tensor, " m"] | None = None
) -> Interval:
    """Return the kernel distance, with an interval from the squared MMD of all samples, resampled.

    With weights of the real features, the value too is the squared MMD of all samples, because subsets would lack rare
    classes. It is a little too low where a class has few real features, as a feature makes no pair with itself.
    """
    if weights is None:
        value = kernel_distance(real, generated, seed=seed)
    else:
        value = squared_mmd(real, generated, torch.ones(1, len(generated)), real_weights=weights).item()
    return interval_around(value, real, generated, seed, weights)


def interval_around(
    value: float,
    real: Float[Tensor, "m d"],
    generated: Float[Tensor, "n d"],
    seed: int,
    weights: Float[Tensor, " m"] | None = None,
) -> Interval:
    """Return a kernel distance with the interval of the squared MMD of resampled samples, moved to this value."""
    drawn = row_counts(resampled_rows(len(generated), seed), len(generated)).double()
    resampled = squared_mmd_up_to_a_constant(real, generated, drawn, real_weights=weights)  # centring removes constants
    return percentile_interval(value, resampled, centred=True)


def _manifold_intervals(reference: Reference, generated: Float[Tensor, "n d"], seed: int) -> dict[str, Interval]:
    rows = _random_rows(len(reference.features), MANIFOLD_LIMIT, seed)
    found, weights = manifold_scores(reference.features[rows], generated), _weights_at(reference.weights, rows)
    return {
        "improved_precision": share_interval(found.precision),
        "improved_recall": share_interval(found.recall, weights),
        "density": bootstrap_mean(found.density, seed),
        "coverage": share_interval(found.coverage, weights),
    }


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


def _cross_accuracy(samples: LabelledSamples, judge: Judge) -> Interval | None:
    if judge.cross_check is None:
        return None
    return share_interval(judge.cross_check.classify(samples.samples) == samples.labels)


def _random_rows(count: int, limit: int, seed: int) -> Int[Tensor, " rows"]:
    """Return sorted row numbers: all of them, or ``limit`` drawn at random."""
    return torch.randperm(count, generator=generator_for("cpu", seed))[:limit].sort().values


def rows_of_classes(labels: Int[Tensor, " n"], wanted: Int[Tensor, " classes"], seed: int) -> Int[Tensor, " rows"]:
    """Return sorted random row numbers: as many of each class as wanted, or all where a class has fewer."""
    order = torch.randperm(len(labels), generator=generator_for("cpu", seed))
    rows = [order[labels[order] == label][:count] for label, count in enumerate(wanted.tolist())]
    return torch.cat(rows).sort().values


def _weights(labels: Int[Tensor, " n"], frequencies: Int[Tensor, " classes"]) -> Float[Tensor, " n"] | None:
    """Return the weights of rows that give the classes these frequencies; None if all are equal."""
    weights = (frequencies / labels.bincount(minlength=len(frequencies)))[labels].double()
    return None if (weights == weights[:1]).all() else weights


def _weights_at(weights: Float[Tensor, " n"] | None, rows: Int[Tensor, " rows"]) -> Float[Tensor, " rows"] | None:
    return None if weights is None else weights[rows]


def _mean(values: Float[Tensor, " n"], weights: Float[Tensor, " n"] | None) -> float:
    """Return the weighted mean, or the plain one without weights."""
    return (values.mean() if weights is None else (values * weights).sum() / weights.sum()).item()
