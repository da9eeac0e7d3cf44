from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from guided_diffusion.data import Batch, ImageDataModule

COUNTS = (50, 10, 3)


class Unbalanced(ImageDataModule):
    """63 images of three classes, 50, 10 and 3 of each, that hold their own number in their first pixel."""

    name = "unbalanced"
    channels = 1
    image_size = 2
    class_names = ("often", "seldom", "rarely")

    def __init__(self, batch_size=7, rank=None, **arguments):
        super().__init__(batch_size, validation_size=0, **arguments)
        if rank is not None:
            self.trainer = SimpleNamespace(world_size=2, global_rank=rank)

    def load(self, train):
        images = torch.zeros(sum(COUNTS), 1, 2, 2, dtype=torch.uint8)
        images[:, 0, 0, 0] = torch.arange(len(images))
        images[:, 0, 0, 1] = 255  # so that a mirrored image can be told from the others
        return Batch(images, torch.arange(3).repeat_interleave(torch.tensor(COUNTS)))


def epoch(data, number=0):
    """Return the images of an epoch, in order."""
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return torch.cat([batch.samples for batch in loader])


def numbers(images):
    return images[:, 0, 0].amin(1).tolist()


def is_mirrored(images):
    """Return whether each image is mirrored, by its number."""
    return dict(zip(numbers(images), (images[:, 0, 0, 0] == 255).tolist(), strict=True))


@pytest.mark.parametrize("batch_size", [1, 7])
def test_other_images_are_mirrored_in_each_epoch(batch_size):
    """With a batch size of 1 they were once the same in every epoch."""
    data = Unbalanced(batch_size, flip=True)
    first, second = (is_mirrored(epoch(data, number)) for number in (0, 1))
    assert 10 < sum(first[index] != second[index] for index in first) < 53


def test_which_images_are_mirrored_does_not_depend_on_the_batch_size_or_the_number_of_processes():
    one = is_mirrored(epoch(Unbalanced(1, flip=True), 3))
    assert is_mirrored(epoch(Unbalanced(9, flip=True), 3)) == one
    for rank in range(2):
        part = is_mirrored(epoch(Unbalanced(1, rank, flip=True), 3))
        assert part.items() <= one.items()


def test_an_image_is_mirrored_in_half_of_the_epochs_independently_of_others():
    data = Unbalanced(63, flip=True)
    dataset = data.dataset("train")
    drawn = []
    for number in range(400):
        dataset.set_epoch(number)
        drawn.append(dataset.__getitems__(range(63)).samples[:, 0, 0, 0] == 255)
    flips = torch.stack(drawn).double() * 2 - 1  # 400 epochs of 63 images
    bound = 5 / 400**0.5  # five standard deviations
    assert flips.mean(0).abs().max() < bound
    assert (flips[1:] * flips[:-1]).mean(0).abs().max() < bound  # from one epoch to the next
    assert (flips[:, 1:] * flips[:, :-1]).mean(0).abs().max() < bound  # from one image to the next


def test_balanced_training_draws_each_class_equally_often():
    images = epoch(Unbalanced(balance=True))
    assert len(images) == sum(COUNTS)
    drawn = Counter(numbers(images))
    of_class = torch.tensor([drawn[index] for index in range(63)]).split(COUNTS)
    assert [int(one.sum()) for one in of_class] == [21, 21, 21]
    for one in of_class:
        assert one.max() - one.min() <= 1


def test_balanced_training_sees_all_of_a_frequent_class_in_time():
    data = Unbalanced(balance=True)
    seen = {index for number in range(10) for index in numbers(epoch(data, number))}
    assert seen == set(range(63))


def test_the_balanced_order_depends_on_the_seed_and_the_epoch_only():
    def order(number, seed=0):
        torch.manual_seed(torch.seed())
        return numbers(epoch(Unbalanced(balance=True, seed=seed), number))

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert order(0) != order(0, seed=1)


def test_two_processes_share_a_balanced_epoch():
    parts = [Counter(numbers(epoch(Unbalanced(1, rank, balance=True)))) for rank in range(2)]
    assert [part.total() for part in parts] == [31, 31]
    of_class = [0, 0, 0]
    for index, count in (parts[0] + parts[1]).items():
        of_class[0 if index < 50 else 1 if index < 60 else 2] += count
    assert sorted(of_class) == [20, 21, 21]


def test_validation_and_test_are_not_balanced():
    data = Unbalanced(balance=True)
    assert numbers(torch.cat([batch.samples for batch in data.test_dataloader()])) == list(range(63))


@pytest.mark.parametrize("start", [0, 4])
def test_batches_made_by_workers_are_the_same_also_from_the_middle_of_an_epoch(start):
    def batches(num_workers):
        loader = Unbalanced(flip=True, balance=True, num_workers=num_workers).train_dataloader()
        loader.sampler.set_epoch(2)
        loader.load_state_dict({"batches": start})
        return list(loader)

    alone, by_workers = batches(0), batches(2)
    assert len(alone) == len(by_workers) == 9 - start
    for one, other in zip(alone, by_workers, strict=True):
        assert torch.equal(one.samples, other.samples)
        assert torch.equal(one.labels, other.labels)


def test_less_than_one_batch_on_each_of_several_devices_is_refused():
    with pytest.raises(ValueError, match=r"63 training images.*on several devices.*lower data\.batch_size"):
        Unbalanced(40, rank=0).train_dataloader()
