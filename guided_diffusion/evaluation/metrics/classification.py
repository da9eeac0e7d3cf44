"""Accuracy, precision, recall and F1 of the judge's classes against the labels, with confidence intervals."""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from guided_diffusion.evaluation.metrics.bootstrap import percentile_interval, resampled_rows, row_counts
from guided_diffusion.evaluation.results import Interval


class Scores(NamedTuple):
    """The scores that follow from a confusion matrix, in float64."""

    accuracy: Float[Tensor, "*batch"]
    precision: Float[Tensor, "*batch classes"]
    recall: Float[Tensor, "*batch classes"]
    f1: Float[Tensor, "*batch classes"]


def scores(confusion: Float[Tensor, "*batch classes classes"] | Int[Tensor, "*batch classes classes"]) -> Scores:
    """Return the accuracy, and precision, recall and F1 = 2 TP / (2 TP + FP + FN) of each class; 0 where they are 0/0.

    Rows of the confusion matrix are labels, columns are predictions.
    """
    confusion = confusion.double()
    right = confusion.diagonal(dim1=-2, dim2=-1)
    asked, seen = confusion.sum(-1), confusion.sum(-2)
    accuracy = right.sum(-1) / asked.sum(-1)
    return Scores(accuracy, *(right / total.clamp(min=0.5) for total in (seen, asked, (seen + asked) / 2)))


def macro_average(
    confusion: Int[Tensor, "*batch classes classes"], values: Float[Tensor, "*batch classes"]
) -> Float[Tensor, "*batch"]:
    """Return the mean over the classes that occur as a label or a prediction, as torchmetrics does."""
    occurs = confusion.sum(-1) + confusion.sum(-2) > 0
    return values.where(occurs, 0).sum(-1) / occurs.sum(-1)


def classification_intervals(
    predictions: Int[Tensor, " n"], labels: Int[Tensor, " n"], num_classes: int, seed: int
) -> dict[str, Interval]:
    """Return the accuracy and the macro averages of precision, recall and F1, with intervals from resampled samples."""
    cells = (labels * num_classes + predictions)[resampled_rows(len(labels), seed)]
    value = _averages(multiclass_confusion_matrix(predictions, labels, num_classes, validate_args=False))
    resampled = _averages(row_counts(cells, num_classes**2).unflatten(1, (num_classes, num_classes)))
    return {name: percentile_interval(value[name].item(), resampled[name]) for name in value}


def _averages(confusion: Int[Tensor, "*batch classes classes"]) -> dict[str, Float[Tensor, "*batch"]]:
    accuracy, *by_class = scores(confusion)
    averages = (macro_average(confusion, values) for values in by_class)
    return {"accuracy": accuracy, **dict(zip(Scores._fields[1:], averages, strict=True))}
