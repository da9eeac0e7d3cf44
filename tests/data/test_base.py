import multiprocessing
import os
import signal
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer

from guided_diffusion.data import Batch, ImageDataModule, denormalise, kind_of, network_sizes, normalise
from guided_diffusion.data.base import ImageDataset


class Numbered(ImageDataModule):
    """350 images that hold their own number in two pixels of a row; 50 of them are for testing."""

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
    """Record the batches of the training and validation steps."""

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


def train(data, epochs=2):
    """Train on the data and return the record of its batches."""
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


@pytest.mark.parametrize(
    ("shape", "kind", "sizes"),
    [
        ((3, 8, 8), "images", {"channels": 3, "image_size": 8}),
        ((3, 12, 20), "images", {"channels": 3, "image_size": [12, 20]}),
        ((2,), "points", {"dimensions": 2}),
    ],
)
def test_images_and_points_are_told_apart_by_the_shape_of_a_sample(shape, kind, sizes):
    assert kind_of(shape) == kind
    assert network_sizes(shape) == sizes


def test_every_pixel_value_is_the_same_after_normalising_and_denormalising():
    pixels = torch.arange(256, dtype=torch.uint8)
    images = normalise(pixels)
    assert (images.min(), images.max(), images.dtype) == (-1, 1, torch.float32)
    assert torch.equal(denormalise(images), pixels)


def test_values_outside_the_range_are_clamped_by_denormalising():
    assert denormalise(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_uint8_in_the_loader_and_floats_in_minus_one_to_one_in_the_model(channels):
    data = Numbered(channels=channels)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.samples.dtype == torch.uint8
    assert batch.samples.shape == (16, channels, 2, 2)
    for batch in train(data, epochs=1).batches["train", 0]:
        assert batch.samples.dtype == torch.float32
        assert batch.samples.shape == (16, channels, 2, 2)
        assert batch.samples.min() == -1
        assert batch.samples.max() <= 1


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_image_keeps_its_label(split):
    for batch in getattr(Numbered(), f"{split}_dataloader")():
        assert [number % 2 for number in numbers(batch.samples)] == batch.labels.tolist()


def test_training_and_validation_together_have_every_image_once():
    data = Numbered()
    train, val = (numbers(data.split(name).samples) for name in ("train", "val"))
    assert len(val) == 40
    assert sorted(train + val) == list(range(300))


def test_the_validation_images_depend_on_the_split_seed_only():
    def val(**seeds):
        return set(numbers(Numbered(**seeds).split("val").samples))

    assert val(seed=0) == val(seed=1)
    assert val(split_seed=0) != val(split_seed=1)


def test_training_never_reads_the_test_split():
    data = Numbered()
    train(data, epochs=1)
    assert data.loaded == ["train"]
    assert numbers(data.split("test").samples) == list(range(300, 350))


def test_each_part_of_the_data_is_read_once():
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


def test_training_uses_full_batches_in_a_new_order_every_epoch():
    probe = train(Numbered(), epochs=2)
    first, second = probe.order("train", 0), probe.order("train", 1)
    assert len(first) == len(set(first)) == 256
    assert first != sorted(first)
    assert first != second


def test_the_training_order_depends_on_the_seed_only():
    def first_epoch(seed):
        torch.manual_seed(torch.seed())  # the global generator must not matter
        return train(Numbered(seed=seed), epochs=1).order("train", 0)

    assert first_epoch(0) == first_epoch(0)
    assert first_epoch(0) != first_epoch(1)


def test_validation_uses_all_its_images_in_the_same_order_every_epoch():
    probe = train(Numbered(), epochs=2)
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
    """Return whether each image is mirrored, after checking that each is its original or its mirror image."""
    same, flipped = ((images == other).flatten(1).all(1) for other in (originals, originals.flip(-1)))
    assert (same | flipped).all()
    assert not (same & flipped).any()
    return flipped


@pytest.mark.parametrize("channels", [1, 3])
def test_flip_mirrors_a_random_half_of_the_images_from_left_to_right(channels, generator):
    images = torch.randint(256, (400, channels, 4, 4), generator=generator, dtype=torch.uint8)
    dataset = ImageDataset(images, torch.arange(400), flip=True, seed=0)
    flipped = mirrored(dataset.__getitems__(range(400)).samples, images)
    assert 160 < flipped.sum() < 240


def test_which_images_are_mirrored_depends_on_the_seed_and_the_indices_only(generator):
    images = torch.randint(256, (64, 1, 4, 4), generator=generator, dtype=torch.uint8)

    def flipped(seed, rows):
        torch.manual_seed(torch.seed())
        return mirrored(ImageDataset(images, torch.arange(64), True, seed).__getitems__(rows).samples, images[rows])

    rows, others = list(range(32)), list(range(32, 64))
    assert torch.equal(flipped(0, rows), flipped(0, rows))
    assert not torch.equal(flipped(0, rows), flipped(1, rows))
    assert not torch.equal(flipped(0, rows), flipped(0, others))


def test_mirroring_does_not_change_the_stored_images(generator):
    images = torch.randint(256, (64, 1, 4, 4), generator=generator, dtype=torch.uint8)
    before = images.clone()
    ImageDataset(images, torch.arange(64), flip=True).__getitems__(range(64))
    assert torch.equal(images, before)


@pytest.mark.parametrize(("split", "is_mirrored"), [("train", True), ("val", False), ("test", False)])
def test_images_are_mirrored_in_training_only(split, is_mirrored):
    loader = getattr(Numbered(flip=True, validation_size=100), f"{split}_dataloader")()
    images = torch.cat([batch.samples for batch in loader])
    assert images[:, :, :, 1].count_nonzero() > 0
    # The left pixel of an image that is not mirrored is 0 or 1, because its number is below 512.
    assert bool((images[:, 0, 0, 0] > 1).any()) == is_mirrored


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"validation_size": -1}, "validation_size must be at least 0, got -1"),
        ({"seed": -1}, "^seed must be at least 0, got -1"),
        ({"split_seed": -2}, "split_seed must be at least 0, got -2"),
    ],
)
def test_invalid_sizes_and_seeds_are_rejected(arguments, message):
    with pytest.raises(ValueError, match=message):
        Numbered(**arguments)


@pytest.mark.parametrize("arguments", [{"validation_size": 290}, {"batch_size": 261}, {"validation_size": 400}])
def test_the_error_for_less_than_one_training_batch_names_the_keys_to_change(arguments):
    with pytest.raises(ValueError, match=r"300 training images.*data\.batch_size or data\.validation_size"):
        Numbered(**arguments).setup("fit")


def test_training_works_without_validation_images():
    probe = train(Numbered(validation_size=0), epochs=1)
    assert len(probe.order("train", 0)) == 288
    assert ("val", 0) not in probe.batches


def _iterate(pipe, number):
    os.setsid()
    signal.signal(number, lambda *_: None)
    loader = Numbered(num_workers=2).train_dataloader()
    epoch = iter(loader)
    found = numbers(next(epoch).samples)
    pipe.send("begun")
    pipe.recv()
    pipe.send(found + order(epoch))
    IN_USE_AT_EXIT.append(iter(loader))
    next(IN_USE_AT_EXIT[0])


IN_USE_AT_EXIT = []
"""Loaders that are kept alive, so that the process has workers when it exits."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_workers_outlive_a_signal_to_the_process_group_and_end_with_their_parent(number):
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_iterate, args=(theirs, number))
    process.start()
    theirs.close()
    try:
        assert ours.poll(30)
        assert ours.recv() == "begun"
        os.killpg(process.pid, number)
        ours.send("go on")
        assert ours.poll(30)
        assert ours.recv() == order(Numbered().train_dataloader())
        process.join(30)
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join()
