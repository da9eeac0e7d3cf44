"""Accuracy, precision, recall and F1 of the judge's classes against the labels, with confidence intervals."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from guided_diffusion.evaluation.metrics.shares import share_interval, wilson
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
    accuracy = right.sum(-1) / confusion.sum((-2, -1))
    return Scores(accuracy, *(torch.where(total > 0, right / total, 0) for total in _trials(confusion)))


def _trials(confusion: Float[Tensor, "*batch classes classes"]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the denominators of the precision, the recall and the F1 of each class."""
    labelled, predicted = confusion.sum(-1), confusion.sum(-2)
    return predicted, labelled, (predicted + labelled) / 2


def macro_average(
    confusion: Int[Tensor, "*batch classes classes"], values: Float[Tensor, "*batch classes"]
) -> Float[Tensor, "*batch"]:
    """Return the mean over the classes that occur as a label or a prediction, as torchmetrics does."""
    occurs = confusion.sum(-1) + confusion.sum(-2) > 0
    return values.where(occurs, 0).sum(-1) / occurs.sum(-1)


def classification_intervals(
    predictions: Int[Tensor, " n"], labels: Int[Tensor, " n"], num_classes: int
) -> dict[str, Interval]:
    """Return the accuracy and the macro averages of precision, recall and F1, with Wilson intervals.

    A macro average over C classes is a weighted share of successes: each of the n_c trials of class c (its labels for
    recall, its predictions for precision, half of both for F1) weighs 1 / n_c. Its interval is that of the effective
    number of trials, C^2 / sum_c 1 / n_c. This is approximate: it takes all classes for equally hard. If a rare class
    is much harder than the others, the interval is too narrow, as for 10 of 1,000 labels with a recall of one half
    (89 % in place of 95 %). A class without a trial counts as one failed trial.
    """
    confusion = multiclass_confusion_matrix(predictions, labels, num_classes, validate_args=False)
    _, *by_class = scores(confusion)
    occurs = confusion.sum(-1) + confusion.sum(-2) > 0
    found = {"accuracy": share_interval(predictions == labels)}
    for name, values, trials in zip(Scores._fields[1:], by_class, _trials(confusion.double()), strict=True):
        count = occurs.sum() ** 2 / (1 / trials[occurs].clamp(min=1)).sum()
        found[name] = wilson(macro_average(confusion, values).clamp(0, 1).item(), count.item())
    return found
