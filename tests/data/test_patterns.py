import math

import pytest
import torch

from guided_diffusion.data import Pattern, Patterns
from guided_diffusion.data.patterns import PATTERNS
from guided_diffusion.schedules import Cosine

every_pattern = pytest.mark.parametrize("name", PATTERNS)


def patterns(*names, noise=0.015, **arguments):
    sizes = {"num_train": 200, "num_test": 50, "batch_size": 32, "validation_size": 60} | arguments
    return Patterns(names or ("spiral", "s_curve", "moons"), noise=noise, **sizes)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@every_pattern
@pytest.mark.parametrize("noise", [0.0, 0.015, 0.1])
def test_all_points_are_in_minus_one_to_one(name, noise):
    pattern = Pattern.named(name, noise)
    points = pattern.generate(5000, seeded())
    assert (points.shape, points.dtype) == ((5000, 2), torch.float32)
    assert points.abs().max() <= 1
    assert noise == 0 or (points.abs() == 1).any(1).float().mean() < 1e-3  # clamped to the edge


@every_pattern
def test_points_depend_on_the_generator_only(name):
    pattern = Pattern.named(name, 0.02)
    torch.manual_seed(torch.seed())
    first = pattern.generate(100, seeded())
    assert torch.equal(first, pattern.generate(100, seeded()))
    assert not torch.equal(first, pattern.generate(100, seeded(1)))
    before = torch.random.get_rng_state()
    pattern.generate(100, seeded())
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", ["spiral", "s_curve", "moons", "checkerboard"])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_a_pattern_fills_the_range_up_to_a_margin_of_four_noise_deviations(name, noise):
    places = Pattern.named(name, noise).places
    assert (places.amax(0) - places.amin(0)).amax().item() == pytest.approx(2 * (1 - 4 * noise))
    assert (places.amax(0) + places.amin(0)).abs().max() < 1e-9


@pytest.mark.parametrize("name", ["spiral", "s_curve"])
def test_places_are_at_equal_distances_along_the_curve(name):
    steps = Pattern.named(name, 0.0).places.diff(dim=0).norm(dim=1)
    assert steps.max() / steps.min() < 1.02
    assert steps.max() < 0.005


@pytest.mark.parametrize("name", ["spiral", "s_curve"])
def test_points_have_the_given_noise_across_the_curve(name):
    """Across a smooth curve the distance is the absolute value of a normal number."""
    distance = Pattern.named(name, 0.01).distance(Pattern.named(name, 0.01).generate(8000, seeded()))
    assert distance.mean().item() == pytest.approx(0.01 * math.sqrt(2 / math.pi), rel=0.03)


def test_distances_to_a_circle_are_those_of_its_formula():
    """The upper one of the moons is half a circle of radius 2/3 around (-1/3, -1/6)."""
    moons = Pattern.named("moons", 0.0)
    centre = torch.tensor([-1 / 3, -1 / 6])
    angle = torch.tensor([1.0, 1.5, 2.0, 2.8])
    direction = torch.stack([angle.cos(), angle.sin()], dim=1)
    for radius in (2 / 3, 0.72, 1.5):
        expected = torch.full((4,), abs(radius - 2 / 3), dtype=torch.float64)
        torch.testing.assert_close(moons.distance(centre + radius * direction), expected, atol=1e-3, rtol=0)


def test_the_distance_to_a_mixture_is_the_distance_to_the_nearest_mean():
    mixture = Pattern.named("mixture_a", 0.0)
    points = torch.tensor([[0.5, 0.0], [-0.5, 0.3], [0.0, 0.0]])
    torch.testing.assert_close(mixture.distance(points), torch.tensor([0.0, 0.3, 0.5], dtype=torch.float64))


def test_the_points_of_a_checkerboard_are_in_every_other_cell():
    points = Pattern.named("checkerboard", 0.0).generate(4000, seeded())
    cell = ((points + 1) * 2).floor().long().clamp(max=3)
    assert (cell.sum(1) % 2 == 0).all()
    assert len(cell.unique(dim=0)) == 8


@every_pattern
def test_the_probability_of_a_cell_is_the_share_of_the_points_in_it(name):
    pattern = Pattern.named(name, 0.05)
    edges = torch.linspace(-1.2, 1.2, 5, dtype=torch.float64)
    mass = pattern.mass(edges)
    assert mass.sum().item() == pytest.approx(1, abs=1e-3)
    x, y = pattern.generate(40_000, seeded()).double().T
    counted = torch.histogramdd(torch.stack([y, x], 1), bins=[edges, edges]).hist / 40_000
    torch.testing.assert_close(mass, counted, atol=0.01, rtol=0)


def test_labels_are_positions_in_the_list_and_classes_are_balanced():
    data = patterns("moons", "spiral")
    points, labels = data.split("test")
    assert data.class_names == ("moons", "spiral")
    assert (data.num_classes, data.shape, data.kind) == (2, (2,), "points")
    assert labels.bincount().tolist() == [50, 50]
    for label, pattern in enumerate(data.patterns):
        assert pattern.distance(points[labels == label]).max() < 0.015 * 5


def test_every_point_of_a_batch_is_near_the_pattern_of_its_label():
    data = patterns()
    data.setup("fit")
    for batch in data.train_dataloader():
        assert batch.samples.shape == (32, 2)
        assert batch.samples.abs().max() <= 1
        own = torch.stack([pattern.distance(batch.samples) for pattern in data.patterns])
        assert (own.gather(0, batch.labels[None]) < 0.015 * 5).all()


def test_splits_depend_on_the_split_seed_only_and_share_no_point():
    one, same, other = patterns(seed=1), patterns(seed=2), patterns(split_seed=1)
    for name in ("train", "val", "test"):
        assert torch.equal(one.split(name).samples, same.split(name).samples)
        assert not torch.equal(one.split(name).samples, other.split(name).samples)
    every_point = torch.cat([one.split(name).samples for name in ("train", "val", "test")])
    assert len(every_point.unique(dim=0)) == len(every_point) == 3 * 250


def test_the_oracle_is_the_exact_mixture_of_the_data():
    """Its samples have the covariances of the data; its density and posterior equal the closed forms."""
    data = patterns("mixture_a", "mixture_b", "mixture_c", num_test=20_000)
    oracle = data.oracle(Cosine())
    labels = torch.arange(3).repeat_interleave(20_000)
    points = data.split("test").samples.double()
    sampled = oracle.sample(labels, seeded())
    for label in range(3):
        one, other = sampled[labels == label], points[labels == label]
        torch.testing.assert_close(one.T.cov(), other.T.cov(), atol=0.005, rtol=0)
    time = torch.zeros(1, dtype=torch.float64)
    point = torch.tensor([[0.3, 0.2]], dtype=torch.float64)
    exact = sum(_density(pattern, point) for pattern in data.patterns) / 3
    assert oracle.log_prob(point, time).exp().item() == pytest.approx(exact, rel=1e-6)
    posterior = oracle.log_posterior(point, time).exp()[0]
    expected = torch.tensor([_density(pattern, point) for pattern in data.patterns], dtype=torch.float64)
    torch.testing.assert_close(posterior, expected / expected.sum())


def _density(pattern, point):
    squared = (point - pattern.places).square().sum(1)
    return ((-squared / (2 * pattern.spread**2)).exp() / (2 * math.pi * pattern.spread**2)).mean().item()


def test_classes_have_equal_weights_in_the_oracle_whatever_their_number_of_places():
    data = patterns("spiral", "checkerboard")  # their numbers of places differ
    point = torch.tensor([[0.1, 0.1]], dtype=torch.float64)
    expected = sum(_density(pattern, point) for pattern in data.patterns) / 2
    actual = data.oracle(Cosine()).log_prob(point, torch.zeros(1, dtype=torch.float64)).exp().item()
    assert actual == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("names", "arguments", "message"),
    [
        (("helix",), {}, "patterns must be among spiral, s_curve, moons, checkerboard, .*, got helix"),
        (("moons", "moons"), {}, "patterns must be different names"),
        (("moons",), {"noise": -0.1}, r"noise must be in \[0, 0.1\], got -0.1"),
        (("moons",), {"noise": 0.5}, r"noise must be in \[0, 0.1\], got 0.5"),
        (("moons",), {"num_train": 0}, "num_train must be at least 1, got 0"),
        (("moons",), {"num_test": 0}, "num_test must be at least 1, got 0"),
        (("moons",), {"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_invalid_arguments_are_rejected(names, arguments, message):
    with pytest.raises(ValueError, match=message):
        patterns(*names, **arguments)


def test_the_error_for_less_than_one_training_batch_calls_the_samples_points():
    with pytest.raises(ValueError, match=r"600 training points.*data\.batch_size or data\.validation_size"):
        patterns(batch_size=590).setup("fit")
