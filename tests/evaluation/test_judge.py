import random
from pathlib import Path

import pytest
import torch

from guided_diffusion.data import Digits, Fake
from guided_diffusion.evaluation.judge import Judge, JudgePair, JudgeSource, accuracy, check_judge
from guided_diffusion.utils.instantiate import build


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("GUIDED_DIFFUSION_CACHE", str(folder))
    return folder


def fake(**arguments):
    return Fake(batch_size=16, validation_size=32, **arguments)


architectures = pytest.mark.parametrize("architecture", ["cnn", "lenet", "resnet"])

SMALL = {"steps": 3, "width": 8, "batch_size": 32}


def judge_of(data=None, **arguments):
    return JudgeSource(**SMALL | arguments)(data or fake())


def weights(judge):
    return torch.cat([parameter.flatten() for parameter in judge.network.parameters()])


@pytest.fixture
def judge_file(cache):
    """The file of a small judge in the cache."""
    judge_of()
    (file,) = cache.iterdir()
    return file


@pytest.fixture
def trainings(capsys):
    """A function that returns how many judges were trained since it was last called."""
    return lambda: capsys.readouterr().out.count("training a judge on the clean images of fake")


# Training and the cache


def test_a_judge_is_trained_once_and_then_read_from_the_cache(trainings, cache):
    first, second = judge_of(), judge_of()
    assert trainings() == 1
    assert torch.equal(weights(first), weights(second))
    assert first.ceiling == second.ceiling
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"data": fake(split_seed=1)},
        {"data": fake(channels=3)},
        {"data": fake(num_classes=4)},
        {"data": fake(flip=True)},
        {"data": Fake(batch_size=16, validation_size=33)},
        {"steps": 4},
        {"width": 16},
        {"architecture": "lenet"},
        {"learning_rate": 1e-3},
        {"seed": 1},
    ],
    ids=lambda changed: "other " + ", ".join(changed),
)
def test_other_data_or_settings_need_another_judge(changed, judge_file, trainings):
    trainings()
    judge_of(**changed)
    assert trainings() == 1


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("part", ["samples", "labels"])
def test_one_changed_pixel_or_label_needs_another_judge(split, part, judge_file, trainings):
    trainings()
    data = fake()
    getattr(data.split(split), part).view(-1)[5] += 1
    judge_of(data)
    assert trainings() == 1


def test_batch_size_and_seed_of_the_data_do_not_change_the_judge(judge_file, trainings):
    trainings()
    judge_of(Fake(batch_size=8, validation_size=32, seed=5))
    assert trainings() == 0


def test_training_depends_on_the_seed_and_not_on_the_global_random_state(cache):
    def trained(seed):
        for file in cache.glob("*"):
            file.unlink()
        torch.manual_seed(torch.seed())
        return weights(judge_of(seed=seed))

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))


@pytest.mark.parametrize("data", [fake(), fake(flip=True)], ids=["plain", "mirrored"])
def test_the_global_random_state_is_left_alone(data, trainings, monkeypatch):
    monkeypatch.setattr(random, "seed", pytest.fail)  # its state can't be compared: type checks in the tests draw
    monkeypatch.setattr(random, "setstate", pytest.fail)
    for expected in (1, 0):  # trained, then read
        before = torch.random.get_rng_state()
        judge_of(data)
        assert torch.equal(torch.random.get_rng_state(), before)
        assert trainings() == expected


def test_a_training_that_fails_leaves_no_file(cache, monkeypatch):
    def save(content, file):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(OSError, match="no space left"):
        judge_of()
    assert not list(cache.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["cnn", "lenet"])
def test_with_default_settings_a_judge_classifies_digits_well(architecture, compose):
    source = build(compose(f"judge={architecture}").judge)
    assert source(Digits(batch_size=128, validation_size=180)).ceiling > 0.97


@pytest.mark.parametrize(
    "architecture", ["cnn", *(pytest.param(name, marks=pytest.mark.slow) for name in ("lenet", "resnet"))]
)
def test_a_short_training_is_enough_for_digits(architecture):
    judge = JudgeSource(steps=200, width=16, architecture=architecture)(Digits(batch_size=128, validation_size=180))
    assert judge.ceiling > 0.95


# What a judge returns


@pytest.mark.parametrize("channels", [1, 3])
def test_a_judge_is_in_eval_mode_and_computes_no_gradient(channels):
    for judge in (judge_of(fake(channels=channels)), judge_of(fake(channels=channels))):  # trained, then read
        assert not any(part.training for part in judge.network.modules())
        classes = judge.classify(torch.zeros(5, channels, 8, 8))
        assert (classes.shape, classes.dtype, classes.requires_grad) == ((5,), torch.int64, False)


@pytest.mark.parametrize("method", ["classify", "probabilities", "features"])
def test_results_do_not_depend_on_the_chunks(method, monkeypatch):
    judge = judge_of()
    images = torch.randn(25, 1, 8, 8)
    together = getattr(judge, method)(images)
    monkeypatch.setattr("guided_diffusion.evaluation.judge.CHUNK", 10)
    torch.testing.assert_close(getattr(judge, method)(images), together)


@architectures
def test_features_and_probabilities_are_those_of_the_network(architecture):
    judge, images = judge_of(architecture=architecture), torch.randn(5, 1, 8, 8)
    torch.testing.assert_close(judge.network.logits(judge.features(images)).softmax(1), judge.probabilities(images))
    torch.testing.assert_close(judge.probabilities(images).sum(1), torch.ones(5))
    assert torch.equal(judge.probabilities(images).argmax(1), judge.classify(images))
    assert not judge.features(images).requires_grad


def test_the_class_is_the_one_with_the_largest_logit():
    judge = Judge(torch.nn.Flatten(), ceiling=0.9)
    assert judge.classify(torch.eye(3).reshape(3, 1, 1, 3)).tolist() == [0, 1, 2]


def test_accuracy_is_measured_on_the_test_split(monkeypatch):
    class Brightness(torch.nn.Module):
        """A network that says 0 for a dark image and 1 for a bright one."""

        def forward(self, images):
            return torch.stack([-images.mean((1, 2, 3)), images.mean((1, 2, 3))], dim=1)

    data = fake(num_classes=2, num_test=64)
    images, labels = data.split("test")
    right = ((images.float().mean((1, 2, 3)) > 127.5).long() == labels).float().mean().item()
    assert 0.2 < right < 0.8
    assert accuracy(Brightness(), data) == right
    monkeypatch.setattr("guided_diffusion.evaluation.judge.CHUNK", 10)
    assert accuracy(Brightness(), data) == right


@pytest.mark.parametrize(
    ("architecture", "name"), [("cnn", "JudgeNet"), ("lenet", "LeNet"), ("resnet", "ResidualJudge")]
)
def test_a_judge_has_the_name_of_its_network(architecture, name):
    assert [judge_of(architecture=architecture).name for _ in range(2)] == [name, name]  # trained, then read


# A given file


@architectures
def test_a_given_judge_is_used_instead_of_training_one(architecture, trainings, cache, tmp_path):
    own = judge_of(seed=3, architecture=architecture)
    (file,) = cache.iterdir()
    file.rename(tmp_path / "own.pt")
    given = judge_of(checkpoint=str(tmp_path / "own.pt"), width=32)  # the file's architecture and width apply
    assert torch.equal(weights(given), weights(own))
    assert given.name == own.name
    assert trainings() == 1
    assert not list(cache.iterdir())


def test_the_ceiling_of_a_given_judge_is_measured_on_this_data(judge_file, tmp_path):
    torch.save(torch.load(judge_file) | {"ceiling": 2.0}, tmp_path / "given.pt")
    judge = JudgeSource(checkpoint=str(tmp_path / "given.pt"))(fake())
    assert judge.ceiling == accuracy(judge.network, fake())


def test_a_file_without_an_architecture_is_read_as_cnn(judge_file):
    judge, saved = judge_of(), torch.load(judge_file)
    assert saved.pop("architecture") == "cnn"
    torch.save(saved, judge_file)
    assert torch.equal(weights(judge_of()), weights(judge))


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"there is no judge at {tmp_path / 'none.pt'}"):
        judge_of(checkpoint=str(tmp_path / "none.pt"))


def truncated(file: Path):
    file.write_bytes(file.read_bytes()[:-100])


def text(file: Path):
    file.write_text("no judge")


def empty(file: Path):
    file.write_bytes(b"")


def other_bytes(file: Path):
    file.write_bytes(b"half")


def other_content(file: Path):
    torch.save({"weights": torch.zeros(3)}, file)


def a_list(file: Path):
    torch.save([1, 2], file)


def without_ceiling(file: Path):
    saved = torch.load(file)
    del saved["ceiling"]
    torch.save(saved, file)


def of_unknown_architecture(file: Path):
    torch.save(torch.load(file) | {"architecture": "vgg"}, file)


NO_JUDGE = [truncated, text, empty, other_bytes, other_content, a_list]


@pytest.mark.parametrize("damage", [*NO_JUDGE, without_ceiling, of_unknown_architecture])
def test_a_damaged_judge_in_the_cache_is_named_with_what_to_do(damage, judge_file):
    damage(judge_file)
    message = rf"(?s){judge_file} holds no judge for fake .1x8x8, 10 classes.*Delete it"
    with pytest.raises(ValueError, match=message):
        judge_of()


@pytest.mark.parametrize("damage", NO_JUDGE)
def test_a_given_file_without_a_judge_is_refused_before_there_is_data(damage, judge_file):
    damage(judge_file)
    with pytest.raises(ValueError, match=f"{judge_file} holds no judge: use a judge-.*pt file from the cache"):
        JudgeSource(checkpoint=str(judge_file))


@pytest.mark.parametrize("data", [fake(channels=3), fake(num_classes=4), fake(image_size=12)])
def test_a_given_judge_for_other_images_or_classes_is_refused(data, judge_file):
    with pytest.raises(ValueError, match="holds no judge for fake"):
        judge_of(data, checkpoint=str(judge_file))


# Settings, and pairs


def test_an_unknown_architecture_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="architecture must be one of cnn, lenet, resnet, got vgg"):
        JudgeSource(architecture="vgg")


@pytest.mark.parametrize("setting", ["steps", "batch_size", "learning_rate"])
def test_a_setting_that_is_not_positive_is_refused(setting):
    with pytest.raises(ValueError, match=f"{setting} must be positive, got 0"):
        JudgeSource(**{setting: 0})


@pytest.mark.parametrize("width", [0, 6])
def test_a_width_that_the_network_cannot_have_is_refused(width):
    with pytest.raises(ValueError, match=f"width {width} is not possible for architecture cnn"):
        JudgeSource(width=width)


def test_the_second_judge_of_a_pair_checks_the_first(trainings):
    first, second = JudgeSource(**SMALL), JudgeSource(**SMALL, architecture="lenet")
    judge = JudgePair(first, second)(fake())
    assert trainings() == 2
    assert (judge.name, judge.cross_check.name) == ("JudgeNet", "LeNet")
    assert torch.equal(weights(judge), weights(first(fake())))
    assert torch.equal(weights(judge.cross_check), weights(second(fake())))
    assert judge.cross_check.cross_check is None
    assert trainings() == 0


def test_the_config_of_a_pair_consists_of_the_configs_of_both(compose):
    pair = build(compose("judge=both").judge)
    assert (pair.first, pair.second) == tuple(build(compose(f"judge={name}").judge) for name in ("cnn", "lenet"))


# What can be known before a judge is needed


def test_a_cache_that_cannot_be_written_is_an_error_before_a_judge_is_trained(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GUIDED_DIFFUSION_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OSError, match=r"GUIDED_DIFFUSION_CACHE.*can't be written"):
        check_judge(JudgeSource(**SMALL), fake())
    check_judge(lambda data: None, fake())  # nothing is known of a function of the user's own


def test_a_file_for_other_data_is_an_error_before_samples_are_drawn(judge_file):
    check_judge(JudgeSource(**SMALL, checkpoint=str(judge_file)), fake())
    pair = JudgePair(JudgeSource(**SMALL), JudgeSource(**SMALL, checkpoint=str(judge_file)))
    with pytest.raises(ValueError, match=r"holds no judge for fake \(2x12x20, 10 classes\)"):
        check_judge(pair, fake(channels=2, image_size=[12, 20]))


def test_the_judge_of_a_single_class_says_that_it_learns_nothing(cache, capsys):
    assert judge_of(fake(num_classes=1)).ceiling == 1
    assert "there is one class, from which the judge learns nothing" in capsys.readouterr().out
