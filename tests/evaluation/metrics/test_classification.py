import time

import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from guided_diffusion.evaluation.metrics.bootstrap import bootstrap
from guided_diffusion.evaluation.metrics.classification import classification_intervals, macro_average, scores

REFERENCES = {
    "accuracy": lambda *pair: multiclass_accuracy(*pair, 4, average="micro"),
    "precision": lambda *pair: multiclass_precision(*pair, 4),
    "recall": lambda *pair: multiclass_recall(*pair, 4),
    "f1": lambda *pair: multiclass_f1_score(*pair, 4),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_values_and_intervals_are_those_of_torchmetrics_on_resampled_rows(name):
    predictions, labels = torch.randint(4, (50,)), torch.randint(3, (50,))

    def by_rows(rows):
        return REFERENCES[name](predictions[rows], labels[rows]).item()

    found = classification_intervals(predictions, labels, 4, seed=0)
    assert found.keys() == REFERENCES.keys()
    assert found[name] == pytest.approx(bootstrap(by_rows, 50, seed=0), abs=1e-6)


@pytest.mark.parametrize("average", ["none", "macro"])
def test_classes_that_never_occur_are_treated_as_torchmetrics_treats_them(average):
    labels, predictions = torch.tensor([0, 0, 1, 3]), torch.tensor([0, 1, 1, 0])  # 2 and 4 never, 3 never predicted
    confusion = torch.zeros(5, 5, dtype=torch.int64).index_put_((labels, predictions), torch.tensor(1), accumulate=True)
    functions = multiclass_precision, multiclass_recall, multiclass_f1_score
    for values, function in zip(scores(confusion)[1:], functions, strict=True):
        expected = function(predictions, labels, 5, average=average).double()
        found = macro_average(confusion, values) if average == "macro" else values
        torch.testing.assert_close(found, expected)


def test_ten_thousand_samples_are_resampled_within_a_second():
    predictions, labels = torch.randint(10, (2, 10_000))
    start = time.process_time()
    classification_intervals(predictions, labels, 10, seed=0)
    assert time.process_time() - start < 1
