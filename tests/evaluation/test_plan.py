from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf

from guided_diffusion.evaluation.plan import Plan, sampling_fingerprint

PLAN = Plan(scales=[0.0, 1.0, 3.0], num_samples=2, num_classes=3, shape=(2,), batch_size=4, seed=7)


def test_chunks_contain_every_sample_of_every_scale_once():
    rows = torch.cat([PLAN.rows(chunk) for chunk in range(len(PLAN))])
    assert rows.tolist() == list(range(18))
    assert len(PLAN) == 5
    assert PLAN.scales_of(rows).tolist() == [0.0] * 6 + [1.0] * 6 + [3.0] * 6


def test_labels_cycle_through_all_classes_by_default():
    assert PLAN.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_labels_have_the_proportions_of_the_class_sizes_in_every_part_of_the_list():
    plan = replace(PLAN, num_samples=100, class_sizes=[80, 15, 5])
    assert plan.num_counted == 300
    assert plan.labels[:300].bincount().tolist() == [240, 45, 15]
    for start in range(0, 300, 20):
        assert plan.labels[start : start + 20].bincount(minlength=3).tolist() == pytest.approx([16, 3, 1], abs=1)


@pytest.mark.parametrize("num_samples", [100, 10])
def test_rare_classes_get_extra_samples_at_the_end(num_samples):
    """Also a class that the data lack."""
    plan = replace(PLAN, num_samples=num_samples, class_sizes=[80, 20, 0])
    fewest = min(50, num_samples)
    counted = [num_samples * 3 * 80 // 100, num_samples * 3 * 20 // 100, 0]
    extra = [max(0, fewest - count) for count in counted]
    assert plan.labels[: plan.num_counted].bincount(minlength=3).tolist() == counted
    assert plan.labels[plan.num_counted :].bincount(minlength=3).tolist() == extra
    assert plan.num_extra == sum(extra)
    assert plan.per_scale == len(plan.labels)
    assert torch.cat([plan.rows(chunk) for chunk in range(len(plan))]).tolist() == list(range(3 * plan.per_scale))


def test_equal_sizes_give_the_same_labels_as_no_sizes():
    assert torch.equal(replace(PLAN, class_sizes=[7, 7, 7]).labels, PLAN.labels)


def test_chosen_classes_are_drawn_one_after_the_other():
    assert replace(PLAN, num_classes=2, classes=[2, 0]).labels.tolist() == [2, 2, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scales": []}, "scales must hold at least one number"),
        ({"scales": [1.0, 2.0, 1.0]}, r"scales must differ, got \[1.0, 2.0, 1.0\]"),
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
    ],
)
def test_an_impossible_plan_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(PLAN, **change)


@pytest.fixture
def config(compose, tmp_path):
    """The config of an evaluation with a classifier; the checkpoints hold no weights, only bytes."""
    model, classifier = tmp_path / "model.ckpt", tmp_path / "classifier.ckpt"
    for file in (model, classifier):
        file.write_bytes(b"weights")
    return compose(f"checkpoint={model}", "guidance=classifier", f"classifier={classifier}", program="evaluate")


def test_the_fingerprint_of_the_same_config_and_plan_is_the_same(config):
    assert sampling_fingerprint(config, PLAN) == sampling_fingerprint(config.copy(), replace(PLAN))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("guidance.scale", 2.0),
        ("threshold.bound", 2.0),
        ("sampler.steps", 4),
        ("weights", "raw"),
        ("trainer.precision", "64-true"),
    ],
)
def test_the_fingerprint_differs_for_another_setting(key, value, config):
    before = sampling_fingerprint(config, PLAN)
    OmegaConf.update(config, key, value)
    assert sampling_fingerprint(config, PLAN) != before


def test_the_fingerprint_differs_for_another_plan(config):
    assert sampling_fingerprint(config, replace(PLAN, seed=8)) != sampling_fingerprint(config, PLAN)
    assert sampling_fingerprint(config, replace(PLAN, class_sizes=[2, 1, 1])) != sampling_fingerprint(config, PLAN)


@pytest.mark.parametrize("name", ["model.ckpt", "classifier.ckpt"])
def test_the_fingerprint_differs_for_other_weights_in_the_same_file(name, config, tmp_path):
    before = sampling_fingerprint(config, PLAN)
    (tmp_path / name).write_bytes(b"other weights")
    assert sampling_fingerprint(config, PLAN) != before
