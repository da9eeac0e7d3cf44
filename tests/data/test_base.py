from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer

from guided_diffusion.data import Batch, ImageDataModule, denormalise, normalise
from guided_diffusion.data.base import ImageDataset


class Numbered(ImageDataModule):
    """Images that hold their own number, in two pixels of a row; 50 of them for testing."""

    name = "numbered"
    image_size = 2
    class_names = ("even", "odd")

    def __init__(self, batch_size=16, validation_size=40, channels=1, **arguments):
        super().__init__(batch_size, validation_size, **arguments)
        self.channels = channels
        self.loaded = []

    def load(self, train):
        self.loaded.append("train" if train else "test")
        number = torch.arange(300) if train else torch.arange(300, 350)
        images = torch.zeros(len(number), *self.shape, dtype=torch.uint8)
        images[:, :, 0, 0], images[:, :, 0, 1] = number[:, None] // 256, number[:, None] % 256
        return Batch(images, number % 2)


def numbers(images):
    return (images[:, 0, 0, 0].long() * 256 + images[:, 0, 0, 1]).tolist()


def order(loader):
    return [number for batch in loader for number in numbers(batch.samples)]


class Probe(LightningModule):
    """Notes what reaches a training step and a validation step."""

    def __init__(self):
        super().__init__()
        self.batches = {}

    def training_step(self, batch, batch_idx):
        self.batches.setdefault(("train", self.current_epoch), []).append(batch)

    def validation_step(self, batch, batch_idx):
        self.batches.setdefault(("val", self.current_epoch), []).append(batch)

    def configure_optimizers(self):
        return None

    def order(self, stage, epoch):
        return [n for batch in self.batches[stage, epoch] for n in numbers(((batch.samples + 1) * 127.5).round())]


def seen(data, epochs=2):
    probe = Probe()
    Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    ).fit(probe, datamodule=data)
    return probe


def test_every_pixel_value_survives_the_way_to_the_model_and_back():
    pixels = torch.arange(256, dtype=torch.uint8)
    images = normalise(pixels)
    assert (images.min(), images.max(), images.dtype) == (-1, 1, torch.float32)
    assert torch.equal(denormalise(images), pixels)


def test_what_lies_outside_the_range_is_clamped_and_does_not_wrap():
    assert denormalise(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_uint8_in_the_loader_and_in_minus_one_to_one_on_the_device(channels):
    data = Numbered(channels=channels)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.samples.dtype == torch.uint8
    assert batch.samples.shape == (16, channels, 2, 2)
    for batch in seen(data, epochs=1).batches["train", 0]:
        assert batch.samples.dtype == torch.float32
        assert batch.samples.shape == (16, channels, 2, 2)
        assert batch.samples.min() == -1
        assert batch.samples.max() <= 1


def test_labels_stay_with_their_images():
    data = Numbered()
    data.setup("fit")
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        for batch in loader:
            assert [number % 2 for number in numbers(batch.samples)] == batch.labels.tolist()


def test_training_and_validation_share_no_image_and_leave_none_out():
    data = Numbered()
    train, val = (numbers(data.split(name).samples) for name in ("train", "val"))
    assert len(val) == 40
    assert sorted(train + val) == list(range(300))


def test_the_validation_images_are_those_of_the_split_seed_whatever_the_seed():
    def val(**seeds):
        return set(numbers(Numbered(**seeds).split("val").samples))

    assert val(seed=0) == val(seed=1)
    assert val(split_seed=0) != val(split_seed=1)


def test_the_test_split_is_another_and_training_never_reads_it():
    data = Numbered()
    seen(data, epochs=1)
    assert data.loaded == ["train"]
    assert numbers(data.split("test").samples) == list(range(300, 350))


def test_the_data_is_read_once():
    data = Numbered()
    for _ in range(2):
        data.setup("fit")
        data.setup("test")
        data.split("val")
    assert data.loaded == ["train", "test"]


def test_a_batch_is_one_indexing_operation(monkeypatch):
    calls = []
    getitems = ImageDataset.__getitems__
    monkeypatch.setattr(
        ImageDataset, "__getitems__", lambda self, rows: calls.append(len(rows)) or getitems(self, rows)
    )
    data = Numbered()
    assert len(list(data.train_dataloader())) == 16
    assert calls == [16] * 16


def test_training_goes_through_whole_batches_in_a_new_order_every_epoch():
    probe = seen(Numbered(), epochs=2)
    first, second = probe.order("train", 0), probe.order("train", 1)
    assert len(first) == len(set(first)) == 256
    assert first != sorted(first)
    assert first != second


def test_the_order_follows_from_the_seed():
    def first_epoch(seed):
        torch.manual_seed(torch.seed())  # what others have drawn does not matter
        return seen(Numbered(seed=seed), epochs=1).order("train", 0)

    assert first_epoch(0) == first_epoch(0)
    assert first_epoch(0) != first_epoch(1)


def test_validation_goes_through_all_its_images_in_the_same_order_every_epoch():
    probe = seen(Numbered(), epochs=2)
    assert len(probe.order("val", 0)) == 40
    assert probe.order("val", 0) == probe.order("val", 1)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_two_processes_get_different_images(split):
    parts = []
    for rank in range(2):
        data = Numbered(batch_size=5)
        data.trainer = SimpleNamespace(world_size=2, global_rank=rank)
        parts.append(order(getattr(data, f"{split}_dataloader")()))
    assert len(parts[0]) == len(parts[1]) == {"train": 130, "val": 20, "test": 25}[split]
    assert not set(parts[0]) & set(parts[1])


def mirrored(images, originals):
    """For each image whether it is mirrored; each must be its original or the mirror image of it."""
    same, flipped = ((images == other).flatten(1).all(1) for other in (originals, originals.flip(-1)))
    assert (same | flipped).all()
    assert not (same & flipped).any()
    return flipped


@pytest.mark.parametrize("channels", [1, 3])
def test_a_random_half_is_mirrored_from_left_to_right(channels, generator):
    images = torch.randint(256, (400, channels, 4, 4), generator=generator, dtype=torch.uint8)
    dataset = ImageDataset(images, torch.arange(400), flip=True, seed=0)
    flipped = mirrored(dataset.__getitems__(range(400)).samples, images)
    assert 160 < flipped.sum() < 240


def test_mirroring_is_decided_by_the_seed_and_the_indices(generator):
    images = torch.randint(256, (64, 1, 4, 4), generator=generator, dtype=torch.uint8)

    def flipped(seed, rows):
        torch.manual_seed(torch.seed())
        return mirrored(ImageDataset(images, torch.arange(64), True, seed).__getitems__(rows).samples, images[rows])

    rows, others = list(range(32)), list(range(32, 64))
    assert torch.equal(flipped(0, rows), flipped(0, rows))
    assert not torch.equal(flipped(0, rows), flipped(1, rows))
    assert not torch.equal(flipped(0, rows), flipped(0, others))


def test_mirroring_leaves_the_stored_images_as_they_are(generator):
    images = torch.randint(256, (64, 1, 4, 4), generator=generator, dtype=torch.uint8)
    before = images.clone()
    ImageDataset(images, torch.arange(64), flip=True).__getitems__(range(64))
    assert torch.equal(images, before)


def test_images_are_mirrored_in_training_alone():
    data = Numbered(flip=True, validation_size=100)
    for name, is_mirrored in (("train", True), ("val", False), ("test", False)):
        data.split(name)
        images = torch.cat([batch.samples for batch in getattr(data, f"{name}_dataloader")()])
        assert images[:, :, :, 1].count_nonzero() > 0
        # In an image as it is, the left pixel is 0 or 1: the number is below 512.
        assert bool((images[:, 0, 0, 0] > 1).any()) == is_mirrored


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"validation_size": -1}, "validation_size must be at least 0, got -1"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Numbered(**arguments)


@pytest.mark.parametrize("arguments", [{"validation_size": 290}, {"batch_size": 261}, {"validation_size": 400}])
def test_less_than_one_batch_to_train_on_is_refused_with_the_keys_to_change(arguments):
    with pytest.raises(ValueError, match=r"300 training images.*data\.batch_size or data\.validation_size"):
        Numbered(**arguments).setup("fit")


def test_a_training_without_validation_is_possible():
    probe = seen(Numbered(validation_size=0), epochs=1)
    assert len(probe.order("train", 0)) == 288
    assert ("val", 0) not in probe.batches
