import time
import warnings

import pytest
import torch
from torch import nn
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from guided_diffusion.data import Fake, normalise
from guided_diffusion.evaluation.judge import Judge
from guided_diffusion.evaluation.metrics.bootstrap import bootstrap, bootstrap_mean, counts
from guided_diffusion.evaluation.metrics.features import (
    frechet_distance,
    kernel_discrepancies,
    kernel_distance,
    manifold_scores,
    nearest_distances,
)
from guided_diffusion.evaluation.metrics.images import (
    LabelledSamples,
    Reference,
    _classification,
    _kid,
    macro,
    measure,
    scores,
)

CLASSES = 4
MEASURED = {
    "accuracy",
    "precision",
    "recall",
    "f1",
    "fld",
    "kid",
    "improved_precision",
    "improved_recall",
    "density",
    "coverage",
    "diversity",
    "saturation",
    "nearest",
    "judge_probability",
}


class Corner(nn.Module):
    """Its features are the pixels of the first row, its logits the first of them."""

    def features(self, images):
        return images[:, 0, 0]

    def forward(self, images):
        return 3 * images[:, 0, 0, :CLASSES]


class Opposite(Corner):
    def forward(self, images):
        return -super().forward(images)


@pytest.fixture(params=[1, 3], ids=["one channel", "three channels"])
def data(request):
    return fake(channels=request.param)


def fake(**arguments):
    return Fake(batch_size=16, validation_size=32, num_classes=CLASSES, **arguments)


def judge(**arguments):
    return Judge(Corner(), ceiling=1.0, name="Corner", **arguments)


def samples_of(data, count, labels=None):
    images = torch.rand(count, *data.shape) * 2 - 1
    return LabelledSamples(images, torch.arange(count) % CLASSES if labels is None else labels, torch.rand(count))


def measured(data, samples, seed=0, **arguments):
    reference = Reference.of(data, judge(), len(samples.labels), seed)
    return measure(samples, reference, judge(**arguments), seed), reference


# The reference


def test_the_floor_is_the_distance_of_as_many_training_images_to_the_test_images(data):
    reference = Reference.of(data, judge(), num_samples=20, seed=0)
    assert torch.equal(reference.features, judge().features(normalise(data.split("test").samples)))
    assert reference.train_features.shape == (20, 8)
    assert reference.floor == frechet_distance(reference.features, reference.train_features)


def test_the_training_images_are_chosen_by_seed_and_none_twice(data):
    def is_overridden(seed):
        return Reference.of(data, judge(), num_samples=30, seed=seed).train_features

    everything = judge().features(normalise(data.split("train").samples))
    assert torch.equal(is_overridden(0), is_overridden(0))
    assert not torch.equal(is_overridden(0), is_overridden(1))
    assert len(is_overridden(0).unique(dim=0)) == 30
    assert all((everything == row).all(1).any() for row in is_overridden(0))


def test_more_samples_than_training_images_are_compared_with_all_of_them(data):
    assert len(Reference.of(data, judge(), num_samples=10_000, seed=0).train_features) == 256 - 32


@pytest.mark.parametrize("limit", [2000, 10])
def test_the_distance_of_test_images_is_taken_of_a_limited_number(limit, data, monkeypatch):
    monkeypatch.setattr("guided_diffusion.evaluation.metrics.images.NEAREST_LIMIT", limit)
    asked = []
    monkeypatch.setattr(
        "guided_diffusion.evaluation.metrics.images.nearest_distances",
        lambda images, reference: asked.append(images) or nearest_distances(images, reference),
    )
    reference = Reference.of(data, judge(), 5, seed=0)
    assert len(asked[0]) == min(limit, 64)
    expected = nearest_distances(asked[0], normalise(data.split("train").samples)).mean().item()
    assert reference.nearest_test == expected


# What is measured


def test_these_are_measured_each_within_its_interval(data):
    found, _ = measured(data, samples_of(data, 80))
    assert found.measured.keys() == MEASURED
    for name, interval in found.measured.items():
        assert interval.low <= interval.value <= interval.high, name
        assert interval.low < interval.high, name


def test_the_judge_says_what_its_network_says(data):
    samples = samples_of(data, 40)
    found, _ = measured(data, samples)
    logits = Corner()(samples.samples)
    assert torch.equal(found.predictions, logits.argmax(1))
    of_label = logits.softmax(1)[torch.arange(40), samples.labels]
    assert torch.equal(found.probabilities, of_label)
    assert found.measured["judge_probability"] == bootstrap_mean(of_label, 0)
    assert found.measured["saturation"] == bootstrap_mean(samples.saturation, 0)


def test_accuracy_precision_recall_and_f1_are_those_of_torchmetrics(data):
    samples = samples_of(data, 50, labels=torch.randint(CLASSES - 1, (50,)))
    found, _ = measured(data, samples)
    right = (found.predictions == samples.labels).double()
    assert found.measured["accuracy"] == pytest.approx(bootstrap_mean(right, 0))
    for name, function in {
        "accuracy": lambda *pair: multiclass_accuracy(*pair, CLASSES, average="micro"),
        "precision": lambda *pair: multiclass_precision(*pair, CLASSES),
        "recall": lambda *pair: multiclass_recall(*pair, CLASSES),
        "f1": lambda *pair: multiclass_f1_score(*pair, CLASSES),
    }.items():

        def by_rows(rows, function=function):
            return function(found.predictions[rows], samples.labels[rows]).item()

        assert found.measured[name] == pytest.approx(bootstrap(by_rows, 50, seed=0), abs=1e-6), name


@pytest.mark.parametrize("average", ["none", "macro"])
def test_scores_of_classes_that_never_occur_are_as_torchmetrics_has_them(average):
    labels, predictions = torch.tensor([0, 0, 1, 3]), torch.tensor([0, 1, 1, 0])  # 2 and 4 never, 3 never seen
    confusion = torch.zeros(5, 5, dtype=torch.int64).index_put_((labels, predictions), torch.tensor(1), accumulate=True)
    functions = multiclass_precision, multiclass_recall, multiclass_f1_score
    for values, function in zip(scores(confusion)[1:], functions, strict=True):
        expected = function(predictions, labels, 5, average=average).double()
        torch.testing.assert_close(macro(confusion, values) if average == "macro" else values, expected)


def test_counts_are_taken_row_by_row():
    assert counts(torch.tensor([[0, 2, 2], [1, 1, 1]]), 3).tolist() == [[1, 0, 2], [0, 3, 0]]


def test_distances_are_those_to_the_test_features(data):
    samples = samples_of(data, 60)
    found, reference = measured(data, samples)
    features = judge().features(samples.samples)
    assert found.measured["fld"].value == pytest.approx(frechet_distance(reference.features, features))
    assert found.measured["kid"].value == kernel_distance(reference.features, features)


@pytest.mark.parametrize("count", [300, 1500])  # all in each subset, and not
def test_the_interval_of_the_kernel_distance_is_as_wide_as_samples_drawn_anew_make_it(count):
    real = torch.randn(500, 4, dtype=torch.float64)

    def draw():
        return 1.1 * torch.randn(count, 4, dtype=torch.float64)

    once = torch.ones(1, count)
    drawn_anew = torch.cat([kernel_discrepancies(real, draw(), once) for _ in range(200)])
    intervals = [_kid(real, draw(), seed) for seed in range(5)]
    width = sum(interval.high - interval.low for interval in intervals) / 5
    assert width == pytest.approx(2 * 1.96 * drawn_anew.std().item(), rel=0.25)
    assert all(low + width / 4 < value < high - width / 4 for value, low, high in intervals)


def test_training_images_as_samples_are_at_the_floor_and_copies_of_themselves(data):
    images, labels = data.split("train")
    found, reference = measured(data, LabelledSamples(normalise(images), labels, torch.zeros(len(labels))))
    assert found.measured["fld"].value == pytest.approx(reference.floor)
    assert found.measured["nearest"] == (0, 0, 0)
    assert found.measured["saturation"] == (0, 0, 0)


def test_test_images_as_samples_are_the_test_images(data):
    images, labels = data.split("test")
    found, _ = measured(data, LabelledSamples(normalise(images), labels, torch.zeros(len(labels))))
    values = {name: interval.value for name, interval in found.measured.items()}
    assert values["fld"] == pytest.approx(0, abs=1e-8)
    assert values["nearest"] == pytest.approx(1)
    assert [values[name] for name in ("improved_precision", "improved_recall", "coverage")] == [1, 1, 1]


def test_the_interval_of_the_frechet_distance_is_around_it(data):
    """LabelledSamples drawn twice only ever push it up."""
    interval = measured(data, samples_of(data, 40))[0].measured["fld"]
    assert interval.low < interval.value < interval.high


def test_manifold_scores_are_means_over_a_limited_number_of_test_features(data, monkeypatch):
    monkeypatch.setattr("guided_diffusion.evaluation.metrics.images.MANIFOLD_LIMIT", 30)
    asked = []
    monkeypatch.setattr(
        "guided_diffusion.evaluation.metrics.images.manifold_scores",
        lambda real, generated: asked.append((real, generated)) or manifold_scores(real, generated),
    )
    found, _ = measured(data, samples_of(data, 50))
    ((real, generated),) = asked
    assert (len(real), len(generated)) == (30, 50)
    expected = manifold_scores(real, generated)._asdict()
    for name in ("improved_precision", "improved_recall", "density", "coverage"):
        assert found.measured[name] == bootstrap_mean(expected[name.removeprefix("improved_")], 0), name


def test_diversity_is_the_mean_over_the_classes_that_have_two_samples():
    images = torch.zeros(5, 1, 8, 8)
    images[:, 0, 0, 7] = torch.tensor([0.0, 1.0, 0.0, 0.5, 0.3])
    samples = LabelledSamples(images, torch.tensor([0, 0, 1, 1, 2]), torch.zeros(5))
    found, _ = measured(fake(), samples)
    assert found.measured["diversity"].value == pytest.approx(0.75)
    assert [row["diversity"] for row in found.per_class] == pytest.approx([1, 0.5, torch.nan, torch.nan], nan_ok=True)


def test_the_interval_of_diversity_is_that_of_new_samples():
    """Uniform features: the standard error over many sets of samples against the width of the interval of one."""

    def diversity(spread):
        images = torch.zeros(200, 1, 8, 8)
        images[:, 0, 0, 7] = spread * torch.rand(200)
        samples = LabelledSamples(images, torch.arange(200) % 2, torch.zeros(200))
        return measure(samples, reference, judge()).measured["diversity"]

    reference = Reference.of(fake(), judge(), 200, 0)
    several = [diversity(1.0) for _ in range(12)]
    error = torch.tensor([interval.value for interval in several]).std().item()
    width = sum(interval.high - interval.low for interval in several) / len(several)
    assert sum(interval.value for interval in several) / 12 == pytest.approx(1 / 3, abs=0.02)
    assert 0.5 < width / (2 * 1.96 * error) < 2


def test_the_distance_to_the_training_images_is_in_units_of_that_of_test_images(data):
    samples = samples_of(data, 40)
    found, reference = measured(data, samples)
    distances = nearest_distances(samples.samples, normalise(data.split("train").samples))
    assert found.measured["nearest"].value == pytest.approx((distances.mean() / reference.nearest_test).item())
    assert found.measured["nearest"].low < found.measured["nearest"].high


def test_the_distance_to_the_training_images_is_taken_of_a_limited_number_of_samples(monkeypatch):
    """Of whatever classes: samples may be in the order of their labels."""
    monkeypatch.setattr("guided_diffusion.evaluation.metrics.images.NEAREST_LIMIT", 20)
    data, count = fake(), 400
    images = normalise(data.split("train").samples[:1]) + torch.arange(count)[:, None, None, None] / count
    found, reference = measured(data, LabelledSamples(images, torch.zeros(count).long(), torch.zeros(count)))
    everything = nearest_distances(images, normalise(data.split("train").samples)) / reference.nearest_test
    assert found.measured["nearest"].value != pytest.approx(everything.mean().item(), rel=1e-4)
    assert found.measured["nearest"].low < everything.mean() < found.measured["nearest"].high


# By class, by a second judge


def test_confusion_has_labels_in_rows_and_what_the_judge_sees_in_columns(data):
    samples = samples_of(data, 40)
    found, _ = measured(data, samples)
    assert found.confusion.dtype == torch.int64
    for label in range(CLASSES):
        for seen in range(CLASSES):
            both = (samples.labels == label) & (found.predictions == seen)
            assert found.confusion[label, seen] == both.sum()


def test_every_class_has_its_measures(data):
    samples = samples_of(data, 41)
    found, _ = measured(data, samples)
    assert [row["class_name"] for row in found.per_class] == [f"class {label}" for label in range(CLASSES)]
    for row in found.per_class:
        of_class = samples.labels == row["class"]
        right = found.predictions[of_class] == row["class"]
        assert row["count"] == of_class.sum()
        assert row["accuracy"] == row["recall"] == pytest.approx(right.double().mean().item())
        seen = samples.labels[found.predictions == row["class"]] == row["class"]
        assert row["precision"] == pytest.approx(seen.double().mean().item())
        assert row["f1"] == pytest.approx(2 / (1 / row["precision"] + 1 / row["recall"]))
        assert row["probability_mean"] == pytest.approx(found.probabilities[of_class].mean().item())
        assert row["pixel_variance"] == pytest.approx(samples.samples[of_class].var(0).mean().item())


def test_the_second_judge_has_an_accuracy_of_its_own(data):
    samples = samples_of(data, 40)
    alone, _ = measured(data, samples)
    checked, _ = measured(data, samples, cross_check=Judge(Opposite(), ceiling=1.0))
    assert alone.cross_accuracy is None
    right = Corner()(samples.samples).argmin(1) == samples.labels
    assert checked.cross_accuracy == bootstrap_mean(right.double(), 0)
    assert checked.measured == alone.measured


# Few samples, many samples, seeds


@pytest.mark.parametrize("count", [1, 2, CLASSES, 2 * CLASSES])
def test_few_samples_leave_nan_and_no_warning(count, data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, reference = measured(data, samples_of(data, count))
    lacking = {name for name, interval in found.measured.items() if torch.tensor(interval.value).isnan()}
    expected = {"improved_recall"} if count <= 5 else set()
    expected |= {"diversity"} if count < 2 * CLASSES else set()
    expected |= {"fld", "kid"} if count == 1 else set()
    assert lacking == expected
    assert torch.tensor(reference.floor).isnan() == (count == 1)
    assert [row["count"] for row in found.per_class] == [len(range(label, count, CLASSES)) for label in range(CLASSES)]


def test_a_class_without_samples_has_nothing_but_a_count(data):
    found, _ = measured(data, samples_of(data, 6, labels=torch.zeros(6, dtype=torch.int64)))
    of_class = dict(found.per_class[2])
    assert (of_class.pop("class"), of_class.pop("class_name"), of_class.pop("count")) == (2, "class 2", 0)
    assert torch.tensor(list(of_class.values())).isnan().all()


def test_a_measurement_follows_from_its_seed_and_draws_from_no_other(data):
    samples = samples_of(data, 40)
    before = torch.random.get_rng_state()
    first, reference = measured(data, samples, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(7)
    assert measure(samples, reference, judge(), 1).measured == first.measured
    assert measure(samples, reference, judge(), 2).measured["fld"] != first.measured["fld"]


def test_ten_thousand_samples_are_resampled_within_a_second():
    predictions, labels = torch.randint(10, (2, 10_000))
    start = time.process_time()
    _classification(predictions, labels, 10, seed=0)
    assert time.process_time() - start < 1
