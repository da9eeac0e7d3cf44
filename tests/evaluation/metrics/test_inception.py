"""Inception FID and KID are those of torchmetrics, and what they need is checked before anything is sampled."""

import math
import sys
import warnings

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from guided_diffusion.data import Fake, denormalise, normalise
from guided_diffusion.evaluation.judge import Judge
from guided_diffusion.evaluation.metrics.features import fit_gaussian, frechet_distance, squared_mmd
from guided_diffusion.evaluation.metrics.inception import (
    Inception,
    frechet_inception_distance,
    kernel_inception_distance,
    load_inception,
    measure_with_inception,
)
from guided_diffusion.evaluation.modalities import modality
from guided_diffusion.evaluation.plan import LabelledSamples, Plan
from guided_diffusion.evaluation.results import INCEPTION_COLUMNS
from guided_diffusion.networks import JudgeNet
from guided_diffusion.utils.instantiate import build


class Means(nn.Module):
    """A network whose features are the means of the columns of each channel."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float().mean(2).flatten(1) / 255


class Uneven(Fake):
    """Images of four classes, half of which are of class 0."""

    def load(self, train):
        images, _ = super().load(train)
        return images, torch.tensor([0, 1, 0, 2, 0, 3]).repeat(len(images) // 6 + 1)[: len(images)]


@pytest.fixture
def features(generator):
    return torch.randn(90, 12, generator=generator), 1.2 * torch.randn(60, 12, generator=generator) + 0.1


@pytest.fixture
def rgb():
    return Fake(8, 8, channels=3, num_classes=4)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Let torch keep its downloads in an empty folder; torch-fidelity must be installed."""
    pytest.importorskip("torch_fidelity")
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


# The values


def test_fid_is_the_frechet_distance_of_the_features(features):
    real, generated = features
    ours = frechet_distance(fit_gaussian(real), fit_gaussian(generated))
    assert frechet_inception_distance(real, generated) == pytest.approx(ours, rel=1e-4)


def test_kid_is_the_squared_mmd_of_all_features_if_they_make_one_subset(features):
    real, generated = features[0][:60], features[1]
    ours = squared_mmd(real, generated, torch.ones(1, 60)).item()
    state = torch.get_rng_state()
    assert kernel_inception_distance(real, generated, seed=0) == pytest.approx(ours, rel=1e-3)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_seed_decides_the_subsets_of_kid(features):
    values = [kernel_inception_distance(*features, seed) for seed in (3, 3, 4)]
    assert values[0] == values[1] != values[2]


def test_both_are_those_of_torchmetrics_on_images(rgb):
    real, generated = rgb.split("test").samples, rgb.split("train").samples[:40] // 2
    network = Means()
    fid = FrechetInceptionDistance(network, input_img_size=(3, 8, 8))
    with warnings.catch_warnings(action="ignore"):
        kid = KernelInceptionDistance(network, subset_size=40)
    for metric in (fid, kid):
        metric.update(real, real=True)
        metric.update(generated, real=False)
    torch.manual_seed(7)
    expected = [fid.compute().item(), kid.compute()[0].item()]
    found = measure_with_inception(Inception(network), [generated], torch.arange(40) % 4, rgb, seed=7).measured[0]
    assert [found["inception_fid"].value, found["inception_kid"].value] == pytest.approx(expected, rel=1e-5)
    assert found["inception_kid"].low < expected[1] < found["inception_kid"].high
    assert math.isnan(found["inception_fid"].low)


def test_perfect_samples_reach_the_floors_and_dark_ones_do_not(rgb):
    perfect = Fake(8, 8, channels=3, split_seed=5).split("test").samples
    found = measure_with_inception(Inception(Means()), [perfect, perfect // 2], torch.arange(64) % 4, rgb, 0)
    good, dark = ({name: interval.value for name, interval in one.items()} for one in found.measured)
    assert good["inception_fid"] == pytest.approx(found.floors["inception_fid"], rel=0.5)
    assert dark["inception_fid"] > 10 * found.floors["inception_fid"]
    assert dark["inception_kid"] > 10 * abs(found.floors["inception_kid"])


def test_there_is_no_floor_if_a_class_has_too_few_training_images(rgb):
    samples = rgb.split("test").samples
    found = measure_with_inception(Inception(Means()), [samples], torch.zeros(64, dtype=torch.long), rgb, 0)
    assert all(map(math.isnan, found.floors.values()))


def test_a_single_sample_has_no_distances(rgb):
    found = measure_with_inception(Inception(Means()), [rgb.split("test").samples[:1]], torch.tensor([0]), rgb, 0)
    assert all(math.isnan(interval.value) for interval in found.measured[0].values())


def test_extra_samples_of_rare_classes_are_left_out():
    data = Uneven(8, 8, channels=3, num_classes=4)
    plan = Plan([1.0], 10, 4, data.shape, 20, class_sizes=data.class_counts("test").tolist())
    images = torch.cat([data.split("test").samples[: plan.num_counted], torch.zeros(plan.num_extra, 3, 8, 8).byte()])
    samples = LabelledSamples(normalise(images), plan.labels, torch.zeros(len(images)), plan.num_extra)
    judge = Judge(JudgeNet(3, 8, 4, 8).eval(), 1.0)
    arguments = (data, lambda _: judge, [samples], plan)
    found = modality("images").examine(*arguments, Inception(Means()))
    counted = denormalise(samples.counted.samples)
    expected = measure_with_inception(Inception(Means()), [counted], samples.counted.labels, data, 0)
    assert plan.num_extra > 0
    measured = found.findings[0].measured
    assert measured["inception_kid"] == expected.measured[0]["inception_kid"]
    assert measured["inception_fid"].value == expected.measured[0]["inception_fid"].value
    assert found.facts == {"inception_network": "other", "reference_split": "test", "reference_samples": 64}
    assert found.columns == INCEPTION_COLUMNS
    without = modality("images").examine(*arguments)
    assert (without.columns, without.floors.keys()) == ((), {"fld"})


# What it needs


@pytest.mark.parametrize(("channels", "what"), [(1, "grey images"), (2, "images of 2 channels"), (4, "images of 4")])
def test_images_other_than_rgb_are_refused(channels, what):
    with pytest.raises(ValueError, match=r"^inception measures RGB images only, and fake has ") as error:
        load_inception(True, Fake(8, 8, channels=channels), "proportional")
    assert what in one_line(error)


def test_points_are_refused(compose):
    with pytest.raises(ValueError, match="RGB images only, and patterns has points: leave it out"):
        load_inception(True, build(compose("+experiment=cfg_patterns").data), "proportional")


def test_equal_labels_are_refused_if_the_test_images_are_uneven(rgb, hub):
    with pytest.raises(ValueError, match="fake has not equally many of each class: leave out labels=equal"):
        load_inception(True, Uneven(8, 8, channels=3, num_classes=4), "equal")
    with pytest.raises(FileNotFoundError):  # the next check
        load_inception(True, rgb, "equal")


def test_without_the_package_the_error_says_how_to_install_it(rgb, monkeypatch):
    for name in ("torch_fidelity", "torch_fidelity.feature_extractor_inceptionv3"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match="torch-fidelity is not installed: pip install") as error:
        load_inception(True, rgb, "proportional")
    assert one_line(error).endswith('"guided-diffusion-lightning[inception]"')


def test_without_the_weights_the_error_names_the_file_and_its_place(rgb, hub, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load_inception(True, rgb, "proportional")
    assert one_line(error).startswith(f"inception: there is no file {hub}: put {hub.name}, ")
    assert one_line(error).endswith("inception=PATH")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*/nowhere\.pth"):
        load_inception(str(tmp_path / "nowhere.pth"), rgb, "proportional")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not weights", "is damaged, or holds code"),
        ({"fc.weight": torch.zeros(2)}, "does not hold the weights of torch-fidelity's Inception network"),
        ([1, 2], "does not hold the weights of torch-fidelity's Inception network"),
        ({"fc.weight": print}, "is damaged, or holds code"),
    ],
    ids=["no file of torch", "another network", "a list", "code"],
)
def test_a_file_without_the_weights_is_refused_in_one_line(content, message, rgb, hub, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ValueError, match=message) as error:
        load_inception(str(path), rgb, "proportional")
    assert one_line(error).startswith(str(path))


# The network


def test_the_network_is_that_of_torch_fidelity(inception_file, rgb):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    state = torch.get_rng_state()
    inception = load_inception(str(inception_file), rgb, "proportional")
    assert torch.equal(torch.get_rng_state(), state)
    assert inception.weights == "other"
    images = rgb.split("test").samples[:2]
    theirs = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(inception_file))(images)[0]
    torch.testing.assert_close(inception.features(images, "images"), theirs, rtol=0, atol=0)


def test_weights_in_the_cache_of_torch_are_found(inception_file, rgb, hub):
    hub.parent.mkdir(parents=True)
    hub.symlink_to(inception_file)
    assert load_inception(True, rgb, "proportional").weights == "other"


@pytest.mark.slow
def test_the_whole_is_torchmetrics_with_its_own_network(inception_file, rgb):
    real, generated = rgb.split("test").samples[:6], rgb.split("test").samples[6:10] // 2
    metric = FrechetInceptionDistance(2048, feature_extractor_weights_path=str(inception_file), antialias=False)
    metric.update(real, real=True)
    metric.update(generated, real=False)
    inception = load_inception(str(inception_file), rgb, "proportional")
    features = (inception.features(images, "images") for images in (real, generated))
    assert frechet_inception_distance(*features) == pytest.approx(metric.compute().item(), rel=1e-4)
