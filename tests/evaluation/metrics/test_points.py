import math

import pytest
import torch

from guided_diffusion.data import Pattern
from guided_diffusion.evaluation.metrics.features import squared_mmd
from guided_diffusion.evaluation.metrics.points import (
    MEASURES,
    cells_of,
    distances_to_own,
    floors_of,
    gaussian_kernel,
    grid_edges,
    kl_divergence,
    measure_points,
    median_distance,
    sliced_wasserstein,
    sorted_projections,
    total_variation,
)
from guided_diffusion.evaluation.plan import LabelledSamples

NAMES = ("spiral", "s_curve", "moons")
PATTERNS = [Pattern.named(name, 0.015) for name in NAMES]
MIXTURES = [Pattern.named(f"mixture_{letter}", 0.0) for letter in "abc"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def samples_of(points, labels, saturation=None):
    return LabelledSamples(points.float(), labels, torch.zeros(len(labels)) if saturation is None else saturation)


def true_samples(patterns=PATTERNS, count=400, seed=0):
    points = [pattern.generate(count, seeded(seed + label)) for label, pattern in enumerate(patterns)]
    return samples_of(torch.cat(points), torch.arange(len(patterns)).repeat_interleave(count))


def measured(samples, patterns=PATTERNS, names=NAMES, seed=0):
    return measure_points(samples, patterns, names, seed)


@pytest.fixture(scope="module")
def true_measures():
    """The measures of 400 true points of each class."""
    return measured(true_samples()).measured


def sliced_distance(first, second):
    return sliced_wasserstein(sorted_projections(first), sorted_projections(second)).item()


def gaussian_mmd(first, second, bandwidth):
    return squared_mmd(first, second, torch.ones(1, len(second)), gaussian_kernel(bandwidth)).item()


# Distances between sets


@pytest.mark.parametrize("shift", [[0.5, 0.0], [0.3, -0.4]])
def test_the_sliced_distance_of_shifted_gaussians_is_their_shift_over_the_root_of_two(shift):
    points, others = torch.randn(2, 20_000, 2, generator=seeded()).double()
    points, others = points - points.mean(0), others - others.mean(0)  # no shift by chance
    shift = torch.tensor(shift, dtype=torch.float64)
    assert sliced_distance(points, points + shift) == pytest.approx(0.5 / math.sqrt(2), rel=1e-9)
    assert sliced_distance(points, others + shift) == pytest.approx(0.5 / math.sqrt(2), rel=0.05)


def test_the_sliced_distance_of_scaled_gaussians_is_the_difference_of_their_deviations():
    """On every line W_2 of N(0, 1) and N(0, s^2) is |s - 1|."""
    points = torch.randn(20_000, 2, generator=seeded()).double()
    assert sliced_distance(points, 1.5 * points) == pytest.approx(0.5, rel=0.02)
    assert sliced_distance(points, points[torch.randperm(20_000, generator=seeded())]) == pytest.approx(0, abs=1e-12)


def test_the_squared_mmd_of_shifted_gaussians_is_the_closed_form():
    """``2 c (1 - exp(-|d|^2 / (2 (b^2 + 2))))`` with ``c = b^2 / (b^2 + 2)`` for unit variance in the plane."""
    first, second = torch.randn(2, 2000, 2, generator=seeded()).double()
    shift, bandwidth = torch.tensor([1.0, 0.5]).double(), 1.3
    wide = bandwidth**2 + 2
    expected = 2 * bandwidth**2 / wide * (1 - math.exp(-1.25 / (2 * wide)))
    assert gaussian_mmd(first, second + shift, bandwidth) == pytest.approx(expected, rel=0.1)


def test_the_squared_mmd_is_unbiased():
    """For sets of one distribution it is zero on average and negative half of the time."""
    sets = torch.randn(40, 2, 60, 2, generator=seeded()).double()
    values = torch.tensor([gaussian_mmd(first, second, 1.0) for first, second in sets])
    assert abs(values.mean()) < 3 * values.std() / math.sqrt(40)
    assert 8 < (values < 0).sum() < 36


def test_the_bandwidth_is_the_median_distance():
    assert median_distance(torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])) == pytest.approx(math.hypot(3, 3))


# Against the density


def test_total_variation_and_kl_divergence_of_known_shares():
    shares, mass = torch.tensor([0.5, 0.5, 0.0]).double(), torch.tensor([0.25, 0.5, 0.25]).double()
    assert total_variation(shares, mass).item() == pytest.approx(0.25)
    assert kl_divergence(shares, mass).item() == pytest.approx(0.5 * math.log(2))
    assert total_variation(mass, mass).item() == kl_divergence(mass, mass).item() == 0


def test_points_outside_the_grid_count_as_one_more_cell():
    shares, mass = torch.tensor([0.5]).double(), torch.tensor([1.0]).double()
    assert total_variation(shares, mass).item() == pytest.approx(0.5)
    assert kl_divergence(shares, mass).item() > 5
    assert kl_divergence(shares, mass).isfinite()


def test_total_variation_and_kl_divergence_of_two_gaussians_are_nearly_the_closed_forms():
    """Of N(0, s^2) moved by d: ``erf(d / (2 sqrt(2) s))`` and ``d^2 / (2 s^2)``; the cells lose a little."""
    pattern = Pattern(torch.zeros(1, 2).double(), 0.2)
    moved = Pattern(torch.tensor([[0.3, 0.0]]).double(), 0.2)
    mass, moved_mass = (one.mass(grid_edges()).flatten() for one in (pattern, moved))
    exact = math.erf(0.3 / (2 * math.sqrt(2) * 0.2))
    assert 0.96 * exact < total_variation(moved_mass, mass).item() < exact
    exact = 0.3**2 / (2 * 0.2**2)
    assert 0.9 * exact < kl_divergence(moved_mass, mass).item() < exact


def test_cells_are_numbered_by_row_from_below_and_points_outside_come_last():
    edges = torch.tensor([-1.0, 0.0, 1.0]).double()
    points = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5], [2.0, 0.5], [0.0, -3.0]])
    assert cells_of(points, edges).tolist() == [0, 1, 2, 3, 4, 4]


# Everything together


def test_true_points_reach_the_floors(true_measures):
    found, floors = true_measures, floors_of(PATTERNS, NAMES, torch.arange(1200) % 3)
    assert set(floors) == set(MEASURES)
    for name, floor in floors.items():
        assert found[name].value == pytest.approx(floor, rel=0.35, abs=0.005), name
    assert found["own_pattern"].value > 0.9
    assert found["off_curve"].value < 0.01


def test_means_weigh_the_classes_by_their_labels_and_extra_points_count_for_their_own_class_only():
    on_curve, off_curve = MIXTURES[0].places[:1].repeat(90, 1), MIXTURES[1].places[:1].repeat(30, 1) + 0.3
    labels = torch.tensor([0] * 90 + [1] * 30)
    plain = measured(samples_of(torch.cat([on_curve, off_curve[:10]]), labels[:100]), MIXTURES, ("a", "b", "c"))
    extra = samples_of(torch.cat([on_curve, off_curve]), labels)._replace(num_extra=20)
    found = measured(extra, MIXTURES, ("a", "b", "c"))
    for one in (plain, found):
        assert one.measured["off_curve"].value == pytest.approx(0.1)
        assert one.measured["distance_mean"].value == pytest.approx(0.1 * math.hypot(0.3, 0.3), rel=1e-3)
    assert [row["count"] for row in found.per_class] == [90, 30, 0]
    assert found.per_class[1]["off_curve_low"] > plain.per_class[1]["off_curve_low"] > 0.5
    assert found.per_class[0]["share"] == plain.per_class[0]["share"]


def test_a_share_of_no_point_of_500_has_an_interval_with_a_width():
    points = MIXTURES[0].places[:1].repeat(500, 1)
    found = measured(samples_of(points, torch.zeros(500, dtype=torch.long)), MIXTURES, ("a", "b", "c")).measured
    assert found["off_curve"] == pytest.approx((0, 0, 0.00762), abs=1e-5)
    assert found["own_pattern"] == pytest.approx((1, 0.99238, 1), abs=1e-5)


def test_shifted_points_are_worse_by_every_measure(true_measures):
    true = true_samples()
    near, far = true_measures, measured(samples_of(true.samples + 0.2, true.labels)).measured
    for name in ("distance_mean", "distance_p95", "off_curve", "sliced_wasserstein", "mmd", "total_variation", "kl"):
        assert far[name].low > near[name].high, name
    assert far["own_pattern"].high < near["own_pattern"].low


def test_distances_are_measured_to_the_curve_of_the_label():
    points = torch.tensor([[0.5, 0.1], [0.5, 0.1]])
    samples = samples_of(points, torch.tensor([0, 1]))
    to_a, to_b = (pattern.distance(points[:1]).item() for pattern in MIXTURES[:2])
    assert to_a == pytest.approx(0.1)
    assert to_b > 0.2
    assert distances_to_own(points, samples.labels, MIXTURES).tolist() == pytest.approx([to_a, to_b])
    found = measured(samples, MIXTURES, ("a", "b", "c"))
    assert found.measured["distance_mean"].value == pytest.approx((to_a + to_b) / 2)
    assert found.measured["off_curve"].value == 1
    assert found.measured["own_pattern"].value == 0.5


def test_a_pattern_has_the_share_of_the_points_nearest_to_it_whatever_their_label():
    points = torch.cat([MIXTURES[0].places[:1].repeat(3, 1), MIXTURES[1].places[:1]])
    found = measured(samples_of(points, torch.tensor([0, 1, 2, 2])), MIXTURES, ("a", "b", "c"))
    assert [row["share"] for row in found.per_class] == [0.75, 0.25, 0.0]
    assert [row["count"] for row in found.per_class] == [1, 1, 2]


def test_a_class_without_samples_has_a_share_and_nothing_else():
    points = MIXTURES[0].generate(20, seeded())
    found = measured(samples_of(points, torch.zeros(20, dtype=torch.long)), MIXTURES, ("a", "b", "c"))
    empty = dict(found.per_class[2])
    assert (empty.pop("class"), empty.pop("class_name"), empty.pop("count")) == (2, "c", 0)
    assert math.isfinite(empty.pop("share"))
    assert all(math.isnan(value) for value in empty.values())


def test_intervals_contain_their_value_and_narrow_with_more_points(true_measures):
    few, many = measured(true_samples(count=50)).measured, true_measures
    for name in MEASURES:
        assert few[name].low <= few[name].value <= few[name].high, name
    for name in ("distance_mean", "total_variation", "own_pattern"):
        assert many[name].high - many[name].low < few[name].high - few[name].low, name


def test_saturation_is_the_mean_over_the_samples():
    true = true_samples(count=10)
    found = measured(samples_of(true.samples, true.labels, torch.full((30,), 0.25)))
    assert found.measured["saturation"].value == 0.25


def test_a_measurement_depends_on_its_seed_and_leaves_the_global_random_state_alone():
    samples = true_samples(count=50)
    before = torch.random.get_rng_state()
    first = measured(samples, seed=1).measured
    assert torch.equal(torch.random.get_rng_state(), before)
    assert measured(samples, seed=1).measured == first
    assert measured(samples, seed=2).measured["mmd"] != first["mmd"]


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_points_of_a_class_leave_the_mmd_nan_and_the_rest_finite(count):
    found = measured(true_samples(count=count)).measured
    assert {name for name, interval in found.items() if math.isnan(interval.value)} == {"mmd"}
