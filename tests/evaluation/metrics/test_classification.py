import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from guided_diffusion.evaluation.metrics.classification import classification_intervals, macro_average, scores

REFERENCES = {
    "accuracy": lambda *pair: multiclass_accuracy(*pair, 4, average="micro"),
    "precision": lambda *pair: multiclass_precision(*pair, 4),
    "recall": lambda *pair: multiclass_recall(*pair, 4),
    "f1": lambda *pair: multiclass_f1_score(*pair, 4),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_values_are_those_of_torchmetrics(name):
    predictions, labels = torch.randint(4, (50,)), torch.randint(3, (50,))
    found = classification_intervals(predictions, labels, 4)
    assert found.keys() == REFERENCES.keys()
    assert found[name].value == pytest.approx(REFERENCES[name](predictions, labels).item(), abs=1e-6)
    assert found[name].low < found[name].value < found[name].high


def test_the_accuracy_of_500_right_samples_has_an_interval_with_a_width():
    labels = torch.arange(500) % 10
    for name, interval in classification_intervals(labels, labels, 10).items():
        assert interval == pytest.approx((1, 0.99238, 1), abs=1e-5), name


def test_averages_over_classes_of_very_different_size_are_as_uncertain_as_their_smallest_class():
    labels = torch.tensor([0] * 990 + [1] * 10)
    found = classification_intervals(labels, labels, 2)
    assert found["accuracy"].low > 0.99
    assert 0.85 < found["recall"].low == found["precision"].low == found["f1"].low < 0.95


@pytest.mark.parametrize("name", ["accuracy", "precision", "recall", "f1"])
def test_about_95_per_cent_of_the_intervals_contain_the_true_value(name):
    """Of three classes with 70, 20 and 10 per cent of the labels, which are seen right nine times of ten."""
    generator = torch.Generator().manual_seed(0)

    def draw(count):
        labels = torch.multinomial(torch.tensor([0.7, 0.2, 0.1]), count, replacement=True, generator=generator)
        wrong = torch.rand(count, generator=generator) < 0.1
        return torch.where(wrong, (labels + 1) % 3, labels), labels

    truth = classification_intervals(*draw(200_000), 3)[name].value
    intervals = [classification_intervals(*draw(200), 3)[name] for _ in range(200)]
    assert 0.9 <= sum(one.low <= truth <= one.high for one in intervals) / 200 <= 1


@pytest.mark.parametrize("average", ["none", "macro"])
def test_classes_that_never_occur_are_treated_as_torchmetrics_treats_them(average):
    labels, predictions = torch.tensor([0, 0, 1, 3]), torch.tensor([0, 1, 1, 0])  # 2 and 4 never, 3 never predicted
    confusion = torch.zeros(5, 5, dtype=torch.int64).index_put_((labels, predictions), torch.tensor(1), accumulate=True)
    functions = multiclass_precision, multiclass_recall, multiclass_f1_score
    for values, function in zip(scores(confusion)[1:], functions, strict=True):
        expected = function(predictions, labels, 5, average=average).double()
        found = macro_average(confusion, values) if average == "macro" else values
        torch.testing.assert_close(found, expected)
