import gzip
import hashlib
import os
import pickle
import shutil
import struct
import tarfile
from pathlib import Path
from typing import ClassVar
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision import datasets

from guided_diffusion.data import CIFAR10, MNIST, FashionMNIST

needs_real_data = pytest.mark.skipif(
    "GUIDED_DIFFUSION_DATA" not in os.environ, reason="set GUIDED_DIFFUSION_DATA to a folder in torchvision's layout"
)
COUNTS = {"train": 40, "t10k": 12}


def write_idx(folder, fill=0):
    """Write images of 28x28, no two rows or columns of which are equal, in the format of MNIST."""
    folder.mkdir(parents=True)
    for part, count in COUNTS.items():
        pixels = (np.arange(count * 784).reshape(count, 28, 28) * 7 + fill).astype(np.uint8)
        header = struct.pack(">4i", 0x803, count, 28, 28)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        labels = ((np.arange(count) + fill) % 10).astype(np.uint8)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, count) + labels.tobytes())


def sizes(name):
    parts = [(f"{part}-images-idx3-ubyte", 16 + 784 * n) for part, n in COUNTS.items()]
    parts += [(f"{part}-labels-idx1-ubyte", 8 + n) for part, n in COUNTS.items()]
    return {f"{name}/raw/{file}": size for file, size in parts}


class SmallMNIST(MNIST):
    """MNIST with 40 and 12 images."""

    files = sizes("MNIST")


class SmallFashionMNIST(FashionMNIST):
    files = sizes("FashionMNIST")


def small_mnist(root, dataset=SmallMNIST):
    return dataset(root, batch_size=8, validation_size=8)


def snapshot(root):
    """Return the content and the time of every file below a folder."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def root(tmp_path):
    write_idx(tmp_path / "MNIST" / "raw")
    return tmp_path


@pytest.fixture
def no_network(monkeypatch):
    def download(self):
        raise URLError("no route to host")

    for dataset in (datasets.MNIST, datasets.CIFAR10):
        monkeypatch.setattr(dataset, "download", download)


@pytest.fixture
def mirror(monkeypatch):
    """Let MNIST be downloaded with other content; returns the list of downloads."""
    downloads = []

    def download(self):
        downloads.append(self.root)
        write_idx(Path(self.raw_folder), fill=1)

    monkeypatch.setattr(datasets.MNIST, "download", download)
    return downloads


@pytest.mark.parametrize(("dataset", "name"), [(SmallMNIST, "MNIST"), (SmallFashionMNIST, "FashionMNIST")])
def test_pixels_and_labels_are_those_in_the_files(dataset, name, tmp_path):
    write_idx(tmp_path / name / "raw")
    data = small_mnist(tmp_path, dataset)
    for train, count in ((True, 40), (False, 12)):
        images, labels = data.load(train)
        expected = (torch.arange(count * 784).reshape(count, 1, 28, 28) * 7).to(torch.uint8)
        assert torch.equal(images, expected)
        assert labels.tolist() == [n % 10 for n in range(count)]
        assert labels.dtype == torch.int64


@pytest.mark.parametrize("layout", ["mnist", "cifar"])
def test_batches_of_every_split_have_the_shape_of_the_dataset(layout, root, tmp_path):
    data = small_mnist(root) if layout == "mnist" else small_cifar(tmp_path)
    data.setup()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        images, labels = next(iter(loader))
        assert images.shape == (data.batch_size, *data.shape)
        assert images.dtype == torch.uint8
        assert len(labels) == data.batch_size


def test_mnist_and_fashion_mnist_can_share_a_folder(root):
    write_idx(root / "FashionMNIST" / "raw", fill=3)
    assert small_mnist(root).load(train=True).labels[0] == 0
    assert small_mnist(root, SmallFashionMNIST).load(train=True).labels[0] == 3


def small_cifar(root):
    """Write four images per file in CIFAR-10's layout: rows of 3072 bytes, the red plane first, each row by row."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    names = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
    contents = {"batches.meta": {"label_names": list(CIFAR10.class_names)}}
    for number, name in enumerate(names):
        planes = np.zeros((4, 3, 32, 32), np.uint8)
        planes[:, 0] = np.arange(32)[:, None]  # red is the row
        planes[:, 1] = np.arange(32)[None] + 100  # green is the column
        planes[:, 2] = np.arange(4)[:, None, None] + 4 * number  # blue is the number of the image
        contents[name] = {"data": planes.reshape(4, 3072), "labels": [(4 * number + n) % 10 for n in range(4)]}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))

    def listed(*names):
        return [[name, hashlib.md5((folder / name).read_bytes()).hexdigest()] for name in names]

    class SmallSet(datasets.CIFAR10):
        train_list = listed(*names[:5])
        test_list = listed(names[5])
        meta: ClassVar = {"filename": "batches.meta", "key": "label_names", "md5": listed("batches.meta")[0][1]}

    class SmallCIFAR10(CIFAR10):
        source = SmallSet
        files: ClassVar = {f"{folder.name}/{name}": (folder / name).stat().st_size for name in contents}

    return SmallCIFAR10(root, batch_size=4, validation_size=4)


def test_channels_rows_and_columns_of_colour_images_are_in_order(tmp_path):
    data = small_cifar(tmp_path)
    for train, numbers in ((True, range(20)), (False, range(20, 24))):
        images, labels = data.load(train)
        assert images.shape == (len(numbers), 3, 32, 32)
        assert torch.equal(images[:, 0], torch.arange(32)[None, :, None].expand(len(numbers), 32, 32))
        assert torch.equal(images[:, 1], torch.arange(100, 132)[None, None].expand(len(numbers), 32, 32))
        assert images[:, 2, 0, 0].tolist() == list(numbers)
        assert labels.tolist() == [number % 10 for number in numbers]


def test_the_error_for_a_damaged_colour_file_says_what_to_delete(tmp_path):
    data = small_cifar(tmp_path)
    file = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    content = bytearray(file.read_bytes())
    content[500] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"cifar-10-batches-py is damaged: .*corrupted.*Delete it"):
        data.load(train=True)


@pytest.mark.parametrize("file", SmallMNIST.files)
def test_the_error_for_a_truncated_file_says_what_to_delete(file, root):
    (root / file).write_bytes((root / file).read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"{root / file} is damaged: .*bytes instead of .*Delete it and run again"):
        small_mnist(root).setup("fit")


def test_a_file_of_the_right_size_with_other_content_is_damaged(root):
    file = root / "MNIST/raw/train-images-idx3-ubyte"
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(ValueError, match=r"MNIST/raw is damaged.*Delete it and run again"):
        small_mnist(root).setup("fit")


@pytest.mark.parametrize("dataset", [MNIST, FashionMNIST, CIFAR10])
@pytest.mark.parametrize("method", ["prepare_data", "setup"])
def test_the_error_for_missing_data_says_where_it_was_looked_for_and_what_to_do(dataset, method, tmp_path, no_network):
    data = dataset(tmp_path / "nowhere", batch_size=8, validation_size=8)
    with pytest.raises(FileNotFoundError) as error:
        getattr(data, method)()
    for part in (str(tmp_path / "nowhere"), "no route to host", "GUIDED_DIFFUSION_DATA", "data.root", "data=digits"):
        assert part in str(error.value)


def test_complete_data_is_neither_downloaded_nor_changed(root, no_network):
    before = snapshot(root)
    data = small_mnist(root)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    assert snapshot(root) == before


def test_complete_data_can_be_in_a_read_only_folder(root, no_network):
    folders = [root, root / "MNIST", root / "MNIST" / "raw"]
    for folder in folders:
        folder.chmod(0o555)
    try:
        data = small_mnist(root)
        data.prepare_data()
        assert len(data.load(train=True).labels) == 40
    finally:
        for folder in folders:
            folder.chmod(0o755)


def pack(root, layout):
    """Replace the files of a dataset by the archives from which torchvision would unpack them."""
    if layout == "mnist":
        for file in SmallMNIST.files:
            (root / f"{file}.gz").write_bytes(gzip.compress((root / file).read_bytes()))
            (root / file).unlink()
    else:
        with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as archive:
            archive.add(root / "cifar-10-batches-py", "cifar-10-batches-py")
        shutil.rmtree(root / "cifar-10-batches-py")


@pytest.fixture(params=["mnist", "cifar"])
def packed(request, root, tmp_path, no_network):
    """Return a dataset that is there in archives only, and its content."""
    data = small_mnist(root) if request.param == "mnist" else small_cifar(tmp_path)
    content = data.load(train=True)
    pack(root, request.param)
    return data, content


def test_data_in_archives_only_is_unpacked_as_torchvision_does(packed):
    data, (images, labels) = packed
    found = data.load(train=True)
    assert torch.equal(found.samples, images)
    assert torch.equal(found.labels, labels)
    assert all((data.root / file).is_file() for file in data.files)


def test_archives_in_a_folder_that_cannot_be_written_are_read(packed, monkeypatch):
    data, (images, labels) = packed

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("guided_diffusion.data.torchvision.atomic_write", refuse)
    before = snapshot(data.root)
    found = data.load(train=True)
    assert torch.equal(found.samples, images)
    assert torch.equal(found.labels, labels)
    assert snapshot(data.root) == before


def test_only_the_missing_file_is_unpacked(root, no_network):
    pack(root, "mnist")
    small_mnist(root).prepare_data()
    missing = root / "MNIST/raw/t10k-labels-idx1-ubyte"
    before = snapshot(root)
    missing.unlink()
    small_mnist(root).prepare_data()
    after = snapshot(root)
    assert after.pop(missing)[0] == before.pop(missing)[0]
    assert after == before


def test_a_damaged_archive_is_an_error_that_names_it(packed):
    data, _ = packed
    archive = next(path for path in sorted(data.root.rglob("*.gz")))
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(ValueError, match=rf"{archive} is damaged: .*Delete it and run again"):
        data.load(train=True)


def test_a_download_adds_only_the_missing_file(root, mirror):
    missing = root / "MNIST/raw/t10k-labels-idx1-ubyte"
    missing.unlink()
    before = snapshot(root)
    small_mnist(root).prepare_data()
    after = snapshot(root)
    assert after.pop(missing)[0][8] == 1  # the first label of the other edition
    assert after == before
    assert len(mirror) == 1


def test_a_download_leaves_nothing_but_the_data(tmp_path, mirror):
    data = small_mnist(tmp_path / "new")
    data.prepare_data()
    assert {path.relative_to(data.root).as_posix() for path in snapshot(data.root)} == set(SmallMNIST.files)
    assert [path.name for path in data.root.iterdir()] == ["MNIST"]
    data.prepare_data()
    assert len(mirror) == 1


def test_a_failed_download_leaves_no_temporary_folder(root, no_network):
    (root / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    before = snapshot(root)
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte is missing"):
        small_mnist(root).prepare_data()
    assert snapshot(root) == before
    assert [path.name for path in root.iterdir()] == ["MNIST"]


@needs_real_data
@pytest.mark.parametrize(
    ("dataset", "train", "labels", "mean"),
    [
        (MNIST, True, [5, 0, 4, 1, 9], [0.1307]),
        (MNIST, False, [7, 2, 1, 0, 4], [0.1325]),
        (FashionMNIST, True, [9, 0, 0, 3, 0], [0.2860]),
        (FashionMNIST, False, [9, 2, 1, 1, 6], [0.2868]),
        (CIFAR10, True, [6, 9, 9, 4, 1], [0.4914, 0.4822, 0.4465]),
        (CIFAR10, False, [3, 8, 8, 0, 6], [0.4942, 0.4851, 0.4504]),
    ],
)
def test_the_real_data_has_its_known_labels_and_means(dataset, train, labels, mean):
    data = dataset(os.environ["GUIDED_DIFFUSION_DATA"], batch_size=128, validation_size=5000)
    images, found = data.load(train)
    assert images.shape == ((50_000 if dataset is CIFAR10 else 60_000) if train else 10_000, *data.shape)
    assert found[:5].tolist() == labels
    assert found.unique().tolist() == list(range(10))
    torch.testing.assert_close(images.float().mean((0, 2, 3)) / 255, torch.tensor(mean), rtol=0, atol=1e-4)
