"""Samples that are as good as the data reach the floor, however unevenly the classes are distributed."""

from dataclasses import replace

import pytest
import torch

from guided_diffusion.data import Fake, normalise
from guided_diffusion.data.base import Batch
from guided_diffusion.evaluation.metrics.images import Reference, measure
from guided_diffusion.evaluation.modalities import modality
from guided_diffusion.evaluation.plan import LabelledSamples, Plan

SIZES = torch.tensor([200, 20, 15, 15])
GREYS = torch.tensor([30.0, 90.0, 150.0, 210.0])
"""The mean grey of the images of each class."""


class Uneven(Fake):
    """Noisy grey images of four classes, one of which has 80 per cent of them."""

    sizes = SIZES

    def load(self, train):
        labels = torch.arange(4).repeat_interleave(self.sizes if not train else 4 * SIZES)
        return images_of(labels, seed=int(train))


def images_of(labels, seed):
    noise = 10 * torch.randn(len(labels), 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return Batch((GREYS[labels][:, None, None, None] + noise).round().clamp(0, 255).to(torch.uint8), labels)


def perfect_samples(plan):
    images, labels = images_of(plan.labels, seed=2)
    return LabelledSamples(normalise(images), labels, torch.zeros(len(labels)), plan.num_extra)


def examined(data, plan, judge):
    found = modality("images").examine(data, lambda data: judge, [perfect_samples(plan)], plan)
    return found.findings[0], found.floors["fld"]


@pytest.fixture
def uneven():
    return Uneven(batch_size=16, validation_size=32, num_classes=4)


@pytest.fixture
def plan(uneven):
    return Plan([1.0], 60, 4, (1, 8, 8), 100, class_sizes=uneven.class_counts("test").tolist())


def test_labels_drawn_equally_are_far_from_uneven_data_as_they_are(uneven, plan, judge):
    equal = replace(plan, class_sizes=None)
    as_they_are = Reference.of(uneven, judge, 240, seed=0)
    assert measure(perfect_samples(equal), as_they_are, judge).measured["fld"].value > 100 * as_they_are.floor


@pytest.mark.parametrize("labels", ["proportional", "equal"])
def test_perfect_samples_are_as_close_to_the_data_as_real_images(labels, uneven, plan, judge):
    drawn = plan if labels == "proportional" else replace(plan, class_sizes=None)
    found, floor = examined(uneven, drawn, judge)
    values = {name: interval.value for name, interval in found.measured.items()}
    assert values["fld"] == pytest.approx(floor, rel=0.5)
    assert found.measured["kid"].low < 0 < found.measured["kid"].high
    assert values["nearest"] == pytest.approx(1, abs=0.05)
    assert values["improved_precision"] > 0.9
    assert values["improved_recall"] > 0.9


def test_rare_classes_are_measured_on_more_samples_than_their_share(uneven, judge):
    plan = Plan([1.0], 100, 4, (1, 8, 8), 100, class_sizes=uneven.class_counts("test").tolist())
    found, _ = examined(uneven, plan, judge)
    assert [row["count"] for row in found.per_class] == [320, 50, 50, 50]
    assert len(found.pictures.labels) == 400
    assert found.measured["accuracy"].value == (found.pictures.predictions == found.pictures.labels).mean()


def test_precision_of_a_class_weighs_labels_as_they_are_drawn(uneven, judge):
    """A rare class and its extra samples: precision and F1 are those of the samples without the extra ones."""
    plan = Plan([1.0], 100, 4, (1, 8, 8), 100, class_sizes=[4, 1, 0, 0])
    samples = perfect_samples(plan)
    shares = torch.tensor([320, 80, 0, 0]) / 400
    rows = measure(samples, Reference.of(uneven, judge, 400, seed=0), judge).per_class
    predictions = judge.classify(samples.samples)
    seen = torch.stack([(predictions[samples.labels == label] == 1).double().mean() for label in range(4)])
    assert rows[1]["precision"] == pytest.approx((shares[1] * seen[1] / (shares * seen).sum()).item(), nan_ok=True)
    assert [torch.tensor(row["precision"]).isnan().item() for row in rows] == [False, False, True, True]
    assert [row["count"] for row in rows] == [320, 80, 50, 50]


@pytest.mark.parametrize("labels", ["proportional", "equal"])
def test_a_class_without_test_images_is_measured_but_not_compared(labels, uneven, judge):
    uneven.sizes = torch.tensor([200, 25, 25, 0])
    sizes = uneven.class_counts("test").tolist() if labels == "proportional" else None
    drawn = Plan([1.0], 60, 4, (1, 8, 8), 100, class_sizes=sizes)
    found, floor = examined(uneven, drawn, judge)
    assert found.measured["fld"].value == pytest.approx(floor, rel=0.5)
    assert found.per_class[3]["count"] == (50 if labels == "proportional" else 60)
    assert 0 <= found.per_class[3]["accuracy"] <= 1
