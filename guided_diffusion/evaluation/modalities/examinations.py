"""How an evaluation measures samples, by what they are: ``EXAMINATIONS["images"]`` and ``EXAMINATIONS["points"]``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from guided_diffusion.evaluation.judge import Judge
from guided_diffusion.evaluation.metrics.images import Measurement, Reference, measure
from guided_diffusion.evaluation.metrics.points import floors_of, measure_points
from guided_diffusion.evaluation.plan import Plan
from guided_diffusion.evaluation.plots.scatter import LIMIT, densities_of
from guided_diffusion.evaluation.results import Interval, Pictures, PointPictures
from guided_diffusion.evaluation.samples import LabelledSamples

SHOWN = 20
"""Images in a strip, and of those the judge is least certain of."""


POINTS_SHOWN = 500
"""Of each class."""


class Finding(NamedTuple):
    """Of the samples of one scale."""

    measured: Mapping[str, Interval]
    per_class: Sequence[Mapping[str, Any]]
    pictures: Any


class Examination(NamedTuple):
    """Of an evaluation."""

    findings: Sequence[Finding]
    """One for each scale."""
    floors: Mapping[str, float]
    """What as many real samples would reach, by measure."""
    about: Mapping[str, Any]
    """What holds for the whole evaluation."""


def examine_images(
    data: Any, judge_source: Callable[[Any], Judge], samples: Sequence[LabelledSamples], plan: Plan
) -> Examination:
    """By the judge, against the test images."""
    judge = judge_source(data)
    reference = Reference.of(data, judge, plan.per_scale, plan.seed)
    findings = []
    for of_scale in samples:
        found = measure(of_scale, reference, judge, plan.seed)
        extra = {} if found.cross_accuracy is None else {"cross_accuracy": found.cross_accuracy}
        findings.append(Finding({**found.measured, **extra}, found.per_class, pictures(of_scale, found)))
    return Examination(findings, {"fld": reference.floor}, about_judge(judge))


def about_judge(judge: Judge) -> dict[str, Any]:
    cross_check = judge.cross_check and {"name": judge.cross_check.name, "ceiling": judge.cross_check.ceiling}
    return {"judge": judge.name, "judge_ceiling": judge.ceiling, "cross_check": cross_check}


def pictures(samples: LabelledSamples, found: Measurement) -> Pictures:
    """The first samples, the mean of each class, those of whose label the judge is least certain, and what it says."""
    num_classes = len(found.confusion)
    groups = [samples.samples[samples.labels == label] for label in range(num_classes)]
    uncertain = found.probabilities.argsort()[:SHOWN]
    return Pictures(
        strip=samples.samples[: max(1, SHOWN // num_classes) * num_classes][:SHOWN].numpy(),
        means=torch.stack([group.mean(0) for group in groups]).numpy(),
        uncertain=samples.samples[uncertain].numpy(),
        uncertain_labels=samples.labels[uncertain].numpy(),
        uncertain_predictions=found.predictions[uncertain].numpy(),
        uncertain_probabilities=found.probabilities[uncertain].float().numpy(),
        confusion=found.confusion.numpy(),
        predictions=found.predictions.numpy(),
        probabilities=found.probabilities.float().numpy(),
    )


def examine_points(
    data: Any, judge_source: Callable[[Any], Judge], samples: Sequence[LabelledSamples], plan: Plan
) -> Examination:
    """Against the patterns, which are known exactly: the judge is not asked."""
    densities = densities_of(data.patterns, LIMIT)
    findings = []
    for of_scale in samples:
        found = measure_points(of_scale, data.patterns, data.class_names, plan.seed)
        classes = [of_scale.samples[of_scale.labels == label][:POINTS_SHOWN] for label in range(data.num_classes)]
        shown = PointPictures(torch.stack(classes).numpy(), densities)
        findings.append(Finding(found.measured, found.per_class, shown))
    return Examination(findings, floors_of(data.patterns, data.class_names, plan.per_scale, plan.seed), {})


EXAMINATIONS: dict[str, Callable[..., Examination]] = {"images": examine_images, "points": examine_points}
"""By the kind of the data."""
