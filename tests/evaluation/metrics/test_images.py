import warnings

import pytest
import torch

from guided_diffusion.data import normalise
from guided_diffusion.evaluation.judge import Judge
from guided_diffusion.evaluation.metrics.bootstrap import bootstrap_mean
from guided_diffusion.evaluation.metrics.classification import classification_intervals
from guided_diffusion.evaluation.metrics.features import (
    fit_gaussian,
    frechet_distance,
    kernel_distance,
    manifold_scores,
    nearest_distances,
    squared_mmd,
)
from guided_diffusion.evaluation.metrics.images import Reference, kernel_distance_interval, measure
from guided_diffusion.evaluation.metrics.shares import share_interval, wilson
from guided_diffusion.evaluation.plan import LabelledSamples

CLASSES = 4
IMAGES = "guided_diffusion.evaluation.metrics.images"
MEASURES = {
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


def samples_of(data, count, labels=None):
    images = torch.rand(count, *data.shape) * 2 - 1
    return LabelledSamples(images, torch.arange(count) % CLASSES if labels is None else labels, torch.rand(count))


def split_as_samples(data, split):
    images, labels = data.split(split)
    return LabelledSamples(normalise(images), labels, torch.zeros(len(labels)))


def varied_pixel(values, labels):
    """Black images that differ in the last pixel of their first row, one of the judge's features."""
    images = torch.zeros(len(values), 1, 8, 8)
    images[:, 0, 0, 7] = values
    return LabelledSamples(images, labels, torch.zeros(len(values)))


@pytest.fixture
def measured(judge):
    """A function that measures samples against the reference of their data, and returns both."""

    def measured(data, samples, seed=0):
        reference = Reference.of(data, judge, len(samples.labels), seed)
        return measure(samples, reference, judge, seed), reference

    return measured


@pytest.fixture
def forty(data, measured):
    """Forty samples, their measurement and the reference."""
    samples = samples_of(data, 40)
    return samples, *measured(data, samples)


# The reference


def test_the_floor_is_the_frechet_distance_of_as_many_training_images_to_the_test_images(data, judge):
    reference = Reference.of(data, judge, num_samples=20, seed=0)
    assert torch.equal(reference.features, judge.features(normalise(data.split("test").samples)))
    assert reference.train_features.shape == (20, 8)
    expected = frechet_distance(fit_gaussian(reference.features), fit_gaussian(reference.train_features))
    assert reference.floor == expected


def test_training_images_are_chosen_by_seed_and_none_twice(data, judge):
    def features(seed):
        return Reference.of(data, judge, num_samples=30, seed=seed).train_features

    everything = judge.features(normalise(data.split("train").samples))
    assert torch.equal(features(0), features(0))
    assert not torch.equal(features(0), features(1))
    assert len(features(0).unique(dim=0)) == 30
    assert all((everything == row).all(1).any() for row in features(0))


def test_more_samples_than_training_images_are_compared_with_all_training_images_weighted_by_class(data, judge):
    reference, labels = Reference.of(data, judge, num_samples=10_000, seed=0), data.split("train").labels
    assert len(reference.train_features) == 256 - 32
    totals = torch.zeros(CLASSES).double().index_add_(0, labels, reference.train_weights)
    assert totals.tolist() == pytest.approx([2500] * CLASSES)  # as the test images, of which there are equally many


@pytest.mark.parametrize("limit", [2000, 10])
def test_the_nearest_distance_of_test_images_is_measured_on_a_limited_number(limit, data, judge, monkeypatch):
    monkeypatch.setattr(f"{IMAGES}.NEAREST_LIMIT", limit)
    asked = []
    monkeypatch.setattr(
        f"{IMAGES}.nearest_distances",
        lambda images, reference: asked.append(images) or nearest_distances(images, reference),
    )
    reference = Reference.of(data, judge, 5, seed=0)
    assert len(asked[0]) == min(limit, 64)
    expected = nearest_distances(asked[0], normalise(data.split("train").samples)).mean().item()
    assert reference.nearest_test == expected


# The measures


def test_every_measure_lies_within_its_interval(data, measured):
    found, _ = measured(data, samples_of(data, 80))
    assert found.measured.keys() == MEASURES
    for name, interval in found.measured.items():
        assert interval.low <= interval.value <= interval.high, name
        assert interval.low < interval.high, name


def test_predictions_and_probabilities_are_those_of_the_judge(forty, judge):
    samples, found, _ = forty
    logits = judge.network(samples.samples)
    label_probabilities = logits.softmax(1)[torch.arange(40), samples.labels]
    assert torch.equal(found.predictions, logits.argmax(1))
    assert torch.equal(found.probabilities, label_probabilities)
    assert found.measured["judge_probability"] == bootstrap_mean(label_probabilities, 0)
    assert found.measured["saturation"] == bootstrap_mean(samples.saturation, 0)
    expected = classification_intervals(found.predictions, samples.labels, CLASSES)
    assert {name: found.measured[name] for name in expected} == expected


def test_distances_are_those_to_the_test_features(forty, judge):
    samples, found, reference = forty
    features = judge.features(samples.samples)
    assert found.measured["fld"].value == frechet_distance(fit_gaussian(reference.features), fit_gaussian(features))
    assert found.measured["kid"].value == kernel_distance(reference.features, features)
    assert found.measured["fld"].low < found.measured["fld"].value < found.measured["fld"].high


@pytest.mark.parametrize("count", [120, 600], ids=["all samples in each subset", "some samples in each subset"])
@pytest.mark.slow
def test_the_interval_of_the_kernel_distance_is_as_wide_as_the_spread_over_new_samples(count):
    real = torch.randn(200, 4, dtype=torch.float64)

    def draw():
        return 1.3 * torch.randn(count, 4, dtype=torch.float64)

    new_samples = torch.cat([squared_mmd(real, draw(), torch.ones(1, count)) for _ in range(200)])
    intervals = [kernel_distance_interval(real, draw(), seed) for seed in range(5)]
    width = sum(interval.high - interval.low for interval in intervals) / 5
    assert width == pytest.approx(2 * 1.96 * new_samples.std().item(), rel=0.25)
    assert all(low + width / 4 < value < high - width / 4 for value, low, high in intervals)


def test_training_images_as_samples_are_at_the_floor_and_are_copies(data, judge, measured):
    everything = split_as_samples(data, "train")
    rows = torch.cat([(everything.labels == label).nonzero()[:40, 0] for label in range(CLASSES)])
    samples = LabelledSamples(*(part[rows] for part in everything[:3]))
    found, reference = measured(data, samples)
    others = Reference.of(data, judge, len(rows), seed=1)
    assert found.measured["fld"].low < reference.floor < found.measured["fld"].high
    assert reference.floor == pytest.approx(others.floor, rel=0.5)
    assert found.measured["nearest"] == (0, 0, 0)
    assert found.measured["saturation"] == (0, 0, 0)


def test_test_images_as_samples_have_perfect_scores(data, measured):
    found, _ = measured(data, split_as_samples(data, "test"))
    values = {name: interval.value for name, interval in found.measured.items()}
    assert values["fld"] == pytest.approx(0, abs=1e-8)
    assert values["nearest"] == pytest.approx(1)
    assert [values[name] for name in ("improved_precision", "improved_recall", "coverage")] == [1, 1, 1]


def test_manifold_scores_are_means_over_a_limited_number_of_test_features(data, measured, monkeypatch):
    monkeypatch.setattr(f"{IMAGES}.MANIFOLD_LIMIT", 30)
    asked = []
    monkeypatch.setattr(
        f"{IMAGES}.manifold_scores",
        lambda real, generated: asked.append((real, generated)) or manifold_scores(real, generated),
    )
    found, _ = measured(data, samples_of(data, 50))
    ((real, generated),) = asked
    assert (len(real), len(generated)) == (30, 50)
    expected = manifold_scores(real, generated)
    assert found.measured["density"] == bootstrap_mean(expected.density, 0)
    shares = {"improved_precision": expected.precision, "improved_recall": expected.recall}
    for name, successes in (shares | {"coverage": expected.coverage}).items():
        assert found.measured[name] == share_interval(successes), name


def test_diversity_is_the_mean_over_the_classes_that_have_two_samples(gray, measured):
    samples = varied_pixel(torch.tensor([0.0, 1.0, 0.0, 0.5, 0.3]), torch.tensor([0, 0, 1, 1, 2]))
    found, _ = measured(gray, samples)
    assert found.measured["diversity"].value == pytest.approx(0.75)
    assert [row["diversity"] for row in found.per_class] == pytest.approx([1, 0.5, torch.nan, torch.nan], nan_ok=True)


@pytest.mark.slow
def test_the_interval_of_diversity_is_as_wide_as_the_spread_over_new_samples(gray, measured):
    """The mean distance of two uniform numbers is 1/3."""
    labels = torch.arange(200) % 2
    several = [measured(gray, varied_pixel(torch.rand(200), labels))[0].measured["diversity"] for _ in range(12)]
    error = torch.tensor([interval.value for interval in several]).std().item()
    width = sum(interval.high - interval.low for interval in several) / 12
    assert sum(interval.value for interval in several) / 12 == pytest.approx(1 / 3, abs=0.02)
    assert 0.5 < width / (2 * 1.96 * error) < 2


def test_the_distance_to_the_training_images_is_relative_to_that_of_test_images(data, forty):
    samples, found, reference = forty
    distances = nearest_distances(samples.samples, normalise(data.split("train").samples))
    assert found.measured["nearest"].value == pytest.approx((distances.mean() / reference.nearest_test).item())


def test_the_distance_to_the_training_images_is_measured_on_a_random_subset(gray, measured, monkeypatch):
    """The samples are ordered, so that the first of them would not do."""
    monkeypatch.setattr(f"{IMAGES}.NEAREST_LIMIT", 20)
    train, count = normalise(gray.split("train").samples), 400
    images = train[:1] + torch.arange(count)[:, None, None, None] / count
    found, reference = measured(gray, LabelledSamples(images, torch.zeros(count).long(), torch.zeros(count)))
    everything = (nearest_distances(images, train) / reference.nearest_test).mean()
    assert found.measured["nearest"].value != pytest.approx(everything.item(), rel=1e-4)
    assert found.measured["nearest"].low < everything < found.measured["nearest"].high


# By class, and by a second judge


def test_confusion_counts_labels_in_rows_and_predictions_in_columns(forty):
    samples, found, _ = forty
    assert found.confusion.dtype == torch.int64
    for label in range(CLASSES):
        for predicted in range(CLASSES):
            both = (samples.labels == label) & (found.predictions == predicted)
            assert found.confusion[label, predicted] == both.sum()


def test_every_class_has_its_own_measures(data, measured):
    samples = samples_of(data, 41)
    found, _ = measured(data, samples)
    assert [row["class_name"] for row in found.per_class] == [f"class {label}" for label in range(CLASSES)]
    for row in found.per_class:
        of_class = samples.labels == row["class"]
        right = found.predictions[of_class] == row["class"]
        assert row["count"] == of_class.sum()
        assert row["accuracy"] == row["recall"] == pytest.approx(right.double().mean().item())
        expected = wilson(row["accuracy"], row["count"])
        assert (row["accuracy"], row["accuracy_low"], row["accuracy_high"]) == pytest.approx(expected)
        seen = samples.labels[found.predictions == row["class"]] == row["class"]
        assert row["precision"] == pytest.approx(seen.double().mean().item())
        assert row["f1"] == pytest.approx(2 / (1 / row["precision"] + 1 / row["recall"]))
        assert row["probability_mean"] == pytest.approx(found.probabilities[of_class].mean().item())
        assert row["pixel_variance"] == pytest.approx(samples.samples[of_class].var(0).mean().item())


def test_a_second_judge_adds_its_accuracy_and_changes_nothing_else(forty, judge):
    class Opposite(type(judge.network)):
        def forward(self, images):
            return -super().forward(images)

    samples, found, reference = forty
    checked = measure(samples, reference, Judge(judge.network, 1.0, cross_check=Judge(Opposite(), 1.0)))
    assert found.cross_accuracy is None
    right = judge.network(samples.samples).argmin(1) == samples.labels
    assert checked.cross_accuracy == share_interval(right)
    assert checked.measured == found.measured


# Few samples, and seeds


@pytest.mark.parametrize("count", [1, 2, CLASSES, 2 * CLASSES])
def test_few_samples_leave_nan_and_no_warning(count, data, measured):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, reference = measured(data, samples_of(data, count))
    undefined = {name for name, interval in found.measured.items() if torch.tensor(interval).isnan().all()}
    expected = {"improved_recall"} if count <= 5 else set()
    expected |= {"diversity"} if count < 2 * CLASSES else set()
    expected |= {"fld", "kid"} if count == 1 else set()
    assert undefined == expected
    assert torch.tensor(reference.floor).isnan() == (count == 1)
    assert [row["count"] for row in found.per_class] == [len(range(label, count, CLASSES)) for label in range(CLASSES)]


def test_a_class_without_samples_has_a_count_and_nothing_else(data, measured):
    found, _ = measured(data, samples_of(data, 6, labels=torch.zeros(6, dtype=torch.int64)))
    empty = dict(found.per_class[2])
    assert (empty.pop("class"), empty.pop("class_name"), empty.pop("count")) == (2, "class 2", 0)
    assert torch.tensor(list(empty.values())).isnan().all()


def test_a_measurement_depends_on_its_seed_and_leaves_the_global_random_state_alone(data, judge, measured):
    samples = samples_of(data, 40)
    before = torch.random.get_rng_state()
    first, reference = measured(data, samples, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(7)
    assert measure(samples, reference, judge, 1).measured == first.measured
    assert measure(samples, reference, judge, 2).measured["fld"] != first.measured["fld"]
