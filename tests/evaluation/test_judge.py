import random
from pathlib import Path

import pytest
import torch

from guided_diffusion.data import Digits, Fake
from guided_diffusion.evaluation.judge import Judge, JudgePair, JudgeSource, accuracy


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("GUIDED_DIFFUSION_CACHE", str(folder))
    return folder


@pytest.fixture
def trainings(monkeypatch):
    """The names of the data on which a judge was trained."""
    names = []
    train = JudgeSource._train
    monkeypatch.setattr(JudgeSource, "_train", lambda self, data: names.append(data.name) or train(self, data))
    return names


def fake(**arguments):
    return Fake(batch_size=16, validation_size=32, **arguments)


architectures = pytest.mark.parametrize("architecture", ["cnn", "lenet"])

SMALL = {"steps": 3, "width": 8, "batch_size": 32}


def judge_of(data=None, **arguments):
    return JudgeSource(**SMALL | arguments)(data or fake())


def weights(judge):
    return torch.cat([parameter.flatten() for parameter in judge.network.parameters()])


def test_it_is_trained_once_and_read_from_the_cache_afterwards(trainings, cache):
    first, second = judge_of(), judge_of()
    assert trainings == ["fake"]
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
)
def test_other_data_or_another_training_needs_a_judge_of_its_own(changed, trainings):
    judge_of()
    judge_of(**changed)
    assert len(trainings) == 2


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("part", ["samples", "labels"])
def test_one_other_pixel_or_label_is_other_data(split, part, trainings):
    judge_of()
    data = fake()
    getattr(data.split(split), part).view(-1)[5] += 1
    judge_of(data)
    assert len(trainings) == 2


def test_how_the_model_is_trained_does_not_change_the_judge(trainings):
    judge_of()
    judge_of(Fake(batch_size=8, validation_size=32, seed=5))
    assert len(trainings) == 1


def test_the_same_seed_gives_the_same_judge_whatever_was_drawn_before(cache):
    def fresh(seed):
        for file in cache.glob("*"):
            file.unlink()
        torch.manual_seed(torch.seed())
        return weights(judge_of(seed=seed))

    assert torch.equal(fresh(0), fresh(0))
    assert not torch.equal(fresh(0), fresh(1))


@pytest.mark.parametrize("data", [fake(), fake(flip=True)], ids=["as it is", "mirrored"])
def test_the_global_random_state_is_left_alone(data, trainings):
    for _ in range(2):  # trained, then read
        before = torch.random.get_rng_state(), random.getstate()
        judge_of(data)
        assert torch.equal(torch.random.get_rng_state(), before[0])
        assert random.getstate() == before[1]
    assert trainings == ["fake"]


@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_in_eval_mode_and_carries_no_gradient(channels):
    for judge in (judge_of(fake(channels=channels)), judge_of(fake(channels=channels))):  # trained, then read
        assert not any(part.training for part in judge.network.modules())
        classes = judge.classify(torch.zeros(5, channels, 8, 8))
        assert (classes.shape, classes.dtype, classes.requires_grad) == ((5,), torch.int64, False)


@pytest.mark.parametrize("what", ["classify", "probabilities", "features"])
def test_many_images_are_judged_as_few_are(what, monkeypatch):
    judge = judge_of()
    images = torch.randn(25, 1, 8, 8)
    together = getattr(judge, what)(images)
    monkeypatch.setattr("guided_diffusion.evaluation.judge.CHUNK", 10)
    torch.testing.assert_close(getattr(judge, what)(images), together)


@architectures
def test_features_and_probabilities_are_those_of_the_network(architecture):
    judge, images = judge_of(architecture=architecture), torch.randn(5, 1, 8, 8)
    torch.testing.assert_close(judge.network.logits(judge.features(images)).softmax(1), judge.probabilities(images))
    torch.testing.assert_close(judge.probabilities(images).sum(1), torch.ones(5))
    assert torch.equal(judge.probabilities(images).argmax(1), judge.classify(images))
    assert not judge.features(images).requires_grad


def test_the_ceiling_is_the_accuracy_on_the_test_split(monkeypatch):
    class Brightness(torch.nn.Module):
        """Says 0 for a dark image and 1 for a bright one."""

        def forward(self, images):
            return torch.stack([-images.mean((1, 2, 3)), images.mean((1, 2, 3))], dim=1)

    data = fake(num_classes=2, num_test=64)
    images, labels = data.split("test")
    right = ((images.float().mean((1, 2, 3)) > 127.5).long() == labels).float().mean().item()
    assert 0.2 < right < 0.8
    assert accuracy(Brightness(), data) == right
    monkeypatch.setattr("guided_diffusion.evaluation.judge.CHUNK", 10)
    assert accuracy(Brightness(), data) == right


@architectures
def test_it_knows_digits(architecture, cache):
    judge = JudgeSource(steps=200, width=16, architecture=architecture)(Digits(batch_size=128, validation_size=180))
    assert judge.ceiling > 0.95


@pytest.mark.slow
@architectures
def test_with_its_defaults_it_knows_digits_better(architecture, compose):
    from guided_diffusion.utils.instantiate import build

    assert build(compose(f"judge={architecture}").judge)(Digits(batch_size=128, validation_size=180)).ceiling > 0.97


@architectures
def test_a_judge_that_is_given_is_used_and_none_is_trained(architecture, trainings, cache, tmp_path):
    own = judge_of(seed=3, architecture=architecture)
    (file,) = cache.iterdir()
    file.rename(tmp_path / "own.pt")
    given = judge_of(checkpoint=str(tmp_path / "own.pt"), width=32)  # its own width and architecture count
    assert torch.equal(weights(given), weights(own))
    assert given.name == own.name
    assert len(trainings) == 1
    assert not list(cache.iterdir())


def test_a_judge_that_is_not_there_is_missed_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"there is no judge at {tmp_path / 'none.pt'}"):
        judge_of(checkpoint=str(tmp_path / "none.pt"))


def truncated(file: Path):
    file.write_bytes(file.read_bytes()[:-100])


def text(file: Path):
    file.write_text("no judge")


def empty(file: Path):
    file.write_bytes(b"")


def other(file: Path):
    torch.save({"weights": torch.zeros(3)}, file)


def without_ceiling(file: Path):
    saved = torch.load(file)
    del saved["ceiling"]
    torch.save(saved, file)


def of_no_known_architecture(file: Path):
    torch.save(torch.load(file) | {"architecture": "vgg"}, file)


def a_list(file: Path):
    torch.save([1, 2], file)


@pytest.mark.parametrize("damage", [truncated, text, empty, other, without_ceiling, of_no_known_architecture, a_list])
def test_a_damaged_judge_is_named_with_the_mend(damage, cache):
    judge_of()
    (file,) = cache.iterdir()
    damage(file)
    with pytest.raises(ValueError, match=rf"(?s){file} holds no judge for fake .1x8x8, 10 classes.*Delete it"):
        judge_of()


@pytest.mark.parametrize("data", [fake(channels=3), fake(num_classes=4), fake(image_size=12)])
def test_a_judge_for_other_images_is_refused(data, cache):
    judge_of()
    (file,) = cache.iterdir()
    with pytest.raises(ValueError, match="holds no judge for fake"):
        judge_of(data, checkpoint=str(file))


def test_no_half_judge_is_left_by_a_training_that_fails(cache, monkeypatch):
    def save(content, path):
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(OSError, match="no space left"):
        judge_of()
    assert not list(cache.iterdir())


def test_a_judge_is_its_network_and_its_ceiling():
    judge = Judge(torch.nn.Flatten(), ceiling=0.9)
    assert judge.classify(torch.eye(3).reshape(3, 1, 1, 3)).tolist() == [0, 1, 2]
    assert judge.ceiling == 0.9


def test_the_ceiling_of_a_given_judge_is_measured_on_this_data(cache, tmp_path):
    data = fake()
    judge_of(data)
    (file,) = cache.iterdir()
    saved = torch.load(file)
    torch.save(saved | {"ceiling": 2.0}, tmp_path / "given.pt")
    judge = JudgeSource(checkpoint=str(tmp_path / "given.pt"))(data)
    assert judge.ceiling == accuracy(judge.network, data)


def test_a_file_from_before_there_were_architectures_is_read(cache):
    judge = judge_of()
    (file,) = cache.iterdir()
    saved = torch.load(file)
    assert saved.pop("architecture") == "cnn"
    torch.save(saved, file)
    assert torch.equal(weights(judge_of()), weights(judge))


@pytest.mark.parametrize(("architecture", "name"), [("cnn", "JudgeNet"), ("lenet", "LeNet")])
def test_a_judge_is_called_after_its_network(architecture, name):
    assert [judge_of(architecture=architecture).name for _ in range(2)] == [name, name]  # trained, then read


def test_an_unknown_architecture_raises_and_names_the_known_ones():
    with pytest.raises(ValueError, match="architecture must be one of cnn, lenet, got vgg"):
        JudgeSource(architecture="vgg")


def test_the_second_of_a_pair_checks_the_first(trainings):
    first, second = JudgeSource(**SMALL), JudgeSource(**SMALL, architecture="lenet")
    judge = JudgePair(first, second)(fake())
    assert (judge.name, judge.cross_check.name) == ("JudgeNet", "LeNet")
    assert torch.equal(weights(judge), weights(first(fake())))
    assert torch.equal(weights(judge.cross_check), weights(second(fake())))
    assert second(fake()).cross_check is None
    assert len(trainings) == 2


def test_the_config_of_both_judges_is_that_of_each(compose):
    from guided_diffusion.utils.instantiate import build

    pair = build(compose("judge=both").judge)
    assert (pair.first, pair.second) == tuple(build(compose(f"judge={name}").judge) for name in ("cnn", "lenet"))


@pytest.mark.parametrize("setting", ["steps", "batch_size", "learning_rate"])
def test_a_setting_that_is_not_positive_raises(setting):
    with pytest.raises(ValueError, match=f"{setting} must be positive, got 0"):
        JudgeSource(**{setting: 0})
