import multiprocessing
import os
import shutil
import time
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from guided_diffusion.data import ImageFolder, decoding
from guided_diffusion.data.decoding import read_image
from guided_diffusion.utils.listing import data_hash


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDED_DIFFUSION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def folder(root, **arguments):
    settings = {"image_size": 8, "channels": 3, "batch_size": 2, "validation_fraction": 0.25, "test_fraction": 0.25}
    return ImageFolder(root, **settings | arguments)


def counts(data):
    return {split: data.class_counts(split).tolist() for split in ("train", "val", "test")}


def all_images(data):
    return torch.cat([data.split(split).samples for split in ("train", "val", "test")])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("image_size", "shape"), [(8, (8, 8)), ([6, 10], (6, 10))])
def test_images_of_any_size_get_the_size_and_the_channels_of_the_settings(photos, channels, image_size, shape):
    data = folder(photos, channels=channels, image_size=image_size)
    assert (data.name, data.class_names, data.shape) == ("photos", ("cat", "dog", "owl"), (channels, *shape))
    for split in ("train", "val", "test"):
        images = data.split(split).samples
        assert (images.dtype, tuple(images.shape[1:])) == (torch.uint8, data.shape)


def test_each_class_is_split_in_proportion_and_every_image_is_in_one_split(photos):
    data = folder(photos)
    assert counts(data) == {"train": [9, 6, 2], "val": [3, 2, 1], "test": [4, 2, 1]}
    values = all_images(data)[:, 0, 0, 0]
    assert values.bincount(minlength=16).tolist() == [3] * 4 + [2] * 6 + [1] * 6


def test_a_rare_class_is_in_every_split_and_a_single_image_in_training(photos, write_image):
    write_image(photos / "emu" / "1.png")
    for index in range(3):
        write_image(photos / "fox" / f"{index}.png")
    data = folder(photos, validation_fraction=0.01, test_fraction=0.01)
    assert [counts(data)[split][2] for split in ("train", "val", "test")] == [1, 0, 0]
    assert [counts(data)[split][3] for split in ("train", "val", "test")] == [1, 1, 1]


def test_the_splits_depend_on_the_split_seed_only(photos):
    first, same, other = (folder(photos, seed=seed, split_seed=split) for seed, split in ((0, 0), (1, 0), (0, 1)))
    for split in ("train", "val", "test"):
        assert torch.equal(first.split(split).samples, same.split(split).samples)
    assert not torch.equal(first.split("train").samples, other.split("train").samples)


def test_folders_named_train_val_and_test_are_the_splits(photos, tmp_path):
    for split in ("train", "valid", "test"):
        shutil.copytree(photos, tmp_path / "splits" / split)
    shutil.rmtree(tmp_path / "splits" / "valid" / "owl")
    (tmp_path / "splits" / "test" / "cat" / "1.png").unlink()
    data = folder(tmp_path / "splits")
    assert counts(data) == {"train": [16, 10, 4], "val": [16, 10, 0], "test": [15, 10, 4]}


@pytest.mark.parametrize("names", [("Training", "Testing"), ("TRAIN", "Test", "Validation"), ("train", "testing")])
def test_folders_of_splits_may_have_other_common_names(names, photos, tmp_path):
    for name in names:
        shutil.copytree(photos, tmp_path / "splits" / name)
    data = folder(tmp_path / "splits")
    assert data.class_names == ("cat", "dog", "owl")
    assert data.class_counts("test").tolist() == [16, 10, 4]


@pytest.mark.parametrize(("names", "count"), [(("a_train", "a_test"), 1), (("cat",), 0)])
def test_folders_that_all_hold_the_same_folders_may_be_splits_and_are_pointed_out(
    names, count, photos, tmp_path, capsys
):
    for name in names:
        shutil.copytree(photos, tmp_path / "nested" / name)
    shutil.copytree(photos / "dog", tmp_path / "nested" / "dog") if len(names) == 1 else None
    folder(tmp_path / "nested").setup("fit")
    message = (
        "all class folders hold the same folders, cat, dog, owl: if these are the classes, rename the folders above"
    )
    assert capsys.readouterr().out.count(message) == count


def test_what_has_no_folder_of_its_own_is_drawn_from_the_training_images(photos, tmp_path):
    for split in ("train", "test"):
        shutil.copytree(photos, tmp_path / "splits" / split)
    assert counts(folder(tmp_path / "splits")) == {"train": [12, 8, 3], "val": [4, 2, 1], "test": [16, 10, 4]}
    shutil.move(tmp_path / "splits" / "test", tmp_path / "splits" / "val")
    assert counts(folder(tmp_path / "splits")) == {"train": [12, 8, 3], "val": [16, 10, 4], "test": [4, 2, 1]}


def test_a_class_may_be_called_train(photos):
    shutil.move(photos / "cat", photos / "train")
    assert folder(photos).class_names == ("dog", "owl", "train")


def test_an_image_is_cropped_to_its_middle(tmp_path):
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 200
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    image, size, mode = read_image(tmp_path / "wide.png", 3, 5, 5)
    assert image[:, :, 1:4].min() == 200
    assert image.min() > 180  # at the edge the smoothing reaches beyond
    assert (size, mode) == ((30, 10), "RGB")


def test_a_large_image_is_smoothed_when_it_is_made_small(tmp_path):
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "board.png")
    image, _, _ = read_image(tmp_path / "board.png", 1, 8, 8)
    assert ((image.int() - 127).abs() < 8).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("mode", "color", "grey"),
    [
        ("L", 90, 90),
        ("1", 1, 255),
        ("RGB", (90, 90, 90), 90),
        ("P", 90, None),
        ("CMYK", (0, 0, 0, 155), 100),
        ("RGBA", (90, 90, 90, 255), 90),
        ("RGBA", (90, 90, 90, 0), 255),
        ("LA", (90, 0), 255),
        ("I;16", 257 * 90, 90),
        ("I", 65535, 255),
    ],
)
def test_every_common_mode_is_read(tmp_path, mode, color, grey, channels):
    path = tmp_path / ("image.tif" if mode in ("CMYK", "I") else "image.png")
    Image.new(mode, (9, 9), color).save(path)
    image, _, _ = read_image(path, channels, 4, 4)
    assert image.shape == (channels, 4, 4)
    assert grey is None or (image.int() - grey).abs().max() <= 1


def test_a_photo_is_turned_as_its_camera_says(tmp_path):
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:4] = 200
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    image, _, _ = read_image(tmp_path / "photo.png", 1, 8, 8)
    assert (image[0, :4].max(), image[0, 4:].min()) == (0, 200)


def test_files_are_decoded_once_until_one_changes(photos, cache, monkeypatch, write_image):
    decoded = []
    monkeypatch.setattr(
        decoding, "read_image", lambda *arguments: decoded.append(arguments[0]) or read_image(*arguments)
    )
    first = all_images(folder(photos))
    assert len(decoded) == 30
    assert torch.equal(all_images(folder(photos)), first)
    assert len(decoded) == 30
    assert len(list(cache.iterdir())) == 1
    write_image(photos / "cat" / "0.png", value=99)
    assert not torch.equal(all_images(folder(photos)), first)
    assert len(decoded) == 60
    all_images(folder(photos, image_size=4))
    all_images(folder(photos, channels=1))
    assert len(decoded) == 120


def test_a_moved_folder_is_not_decoded_again_and_another_with_the_same_names_sizes_and_times_is(
    photos, tmp_path, cache
):
    for name, value in {"first": 0, "second": 99}.items():
        for index in range(8):
            path = tmp_path / name / "photos" / "cat" / f"{index}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.zeros((400, 400), np.uint8)
            pixels[200, 200:] = value
            Image.fromarray(pixels).save(path)
            os.utime(path, (1, 1))
    first, second = (all_images(folder(tmp_path / name / "photos", image_size=400)) for name in ("first", "second"))
    assert (first.max(), second.max()) == (0, 99)
    shutil.move(tmp_path / "second", tmp_path / "moved")
    assert torch.equal(all_images(folder(tmp_path / "moved" / "photos", image_size=400)), second)
    assert len(list(cache.iterdir())) == 2


def test_a_damaged_file_in_the_cache_is_written_again(photos, cache):
    first = all_images(folder(photos))
    path = next(cache.iterdir())
    path.write_bytes(path.read_bytes()[:100])
    assert torch.equal(all_images(folder(photos)), first)


def test_what_a_killed_process_left_in_the_cache_is_removed_after_a_day(photos, cache):
    cache.mkdir()
    for name, age in {"new": 3600, "old": 100_000}.items():
        path = cache / f".images-photos-{name}-123.pt"
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    folder(photos).setup("fit")
    assert [path.name for path in cache.iterdir() if path.name.startswith(".")] == [".images-photos-new-123.pt"]


def test_images_decoded_by_workers_are_the_same(photos, cache):
    alone = all_images(folder(photos))
    shutil.rmtree(cache)
    assert torch.equal(all_images(folder(photos, num_workers=2)), alone)


def test_reading_images_leaves_the_global_random_state_as_it_is(photos):
    before = torch.random.get_rng_state()
    folder(photos).setup("fit")
    assert torch.equal(torch.random.get_rng_state(), before)


def _prepare(root, queue):
    decoded = []
    decoding.read_image = lambda *arguments: decoded.append(1) or read_image(*arguments)  # in this process only
    folder(root).prepare_data()
    queue.put(len(decoded))


def test_two_processes_decode_only_once(photos):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_prepare, args=(photos, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    found = sorted(queue.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert found == [0, 30]


def test_hidden_and_other_files_are_ignored_and_folders_below_a_class_are_part_of_it(photos, write_image):
    for name in ("cat/.DS_Store", "cat/._0.png", ".hidden/1.png", "__MACOSX/1.png", "dog/notes.txt", "list.csv"):
        path = photos / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no image")
    write_image(photos / "owl" / "2024" / "may" / "5.PNG")
    data = folder(photos)
    data.setup("fit")
    assert data.class_names == ("cat", "dog", "owl")
    assert sum(map(sum, counts(data).values())) == 31


def test_what_was_found_is_printed_once(photos, capsys):
    data = folder(photos, image_size=[24, 24])
    data.setup("fit")
    data.setup("test")
    out = capsys.readouterr().out
    for part in (
        "photos: 30 images of 3 classes: cat 16, dog 10, owl 4",
        "20 to 35 pixels wide, 30 to 30 high; 15 RGB, 15 L; resized to 24x24 (height x width) RGB",
        "23 for training and validation, 7 for testing",
    ):
        assert out.count(part) == 1


@pytest.mark.parametrize(("brightest", "count"), [([4095, 4095], 1), ([4095, 60000], 0)])
def test_images_of_12_bits_in_16_bit_files_are_pointed_out(brightest, count, photos, capsys):
    for index, value in enumerate(brightest):
        pixels = np.zeros((30, 30), np.uint16)
        pixels[:, 15:] = value
        Image.fromarray(pixels).save(photos / "owl" / f"deep_{index}.png")
    folder(photos).setup("fit")
    assert capsys.readouterr().out.count("the 16-bit files are almost black; if they hold 12 bits, multiply") == count


@pytest.fixture
def broken(photos):
    """Return the folder with two files that can't be read."""
    (photos / "cat" / "3.png").write_bytes((photos / "cat" / "3.png").read_bytes()[:60])
    (photos / "owl" / "1.png").write_text("no image")
    return photos


def test_the_error_for_broken_files_names_them(broken):
    with pytest.raises(ValueError, match=r"2 of 30 images in .*: cat/3.png \(.*\), owl/1.png \(.*skip_broken=true"):
        folder(broken).setup("fit")


def test_broken_files_can_be_left_out(broken, capsys):
    data = folder(broken, skip_broken=True)
    assert [sum(of_class) for of_class in zip(*counts(data).values(), strict=True)] == [15, 10, 3]
    assert "2 left out that can't be read" in capsys.readouterr().out


def test_a_link_to_nothing_in_place_of_a_class_is_refused(photos):
    (photos / "emu").symlink_to(photos / "nowhere")
    with pytest.raises(ValueError, match="photos/emu is a link to nothing, and may be a class: mend or remove it"):
        folder(photos)


def test_a_link_to_nothing_is_a_broken_file(photos):
    (photos / "cat" / "lost.png").symlink_to(photos / "nowhere.png")
    with pytest.raises(ValueError, match=r"1 of 31 images .*cat/lost.png \(.*No such file.*skip_broken=true"):
        folder(photos).setup("fit")
    assert len(all_images(folder(photos, skip_broken=True))) == 30


def test_a_file_that_could_not_be_read_is_read_again_at_the_next_start(photos, cache, monkeypatch):
    def fail_for_some(path, *arguments):
        if path.name == "3.png":
            raise OSError("the connection was lost")
        return read_image(path, *arguments)

    whole = all_images(folder(photos))
    shutil.rmtree(cache)
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "read_image", fail_for_some)
        with pytest.raises(ValueError, match=r"3 of 30 images .*cat/3.png \(the connection was lost\)"):
            folder(photos).setup("fit")
    assert len(list(cache.iterdir())) == 1
    assert torch.equal(all_images(folder(photos)), whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: shutil.rmtree(root), "there is no folder .*photos: name the one .*data.root"),
        (lambda root: [shutil.rmtree(path) for path in root.iterdir()], r"photos has no class folders: .*cat/1\.png"),
        (lambda root: (root / "emu").mkdir(), "has no images of emu: fill or remove these folders"),
        (lambda root: _nest(root), r"has one class folder, inner, .*: if these are the classes, use data.root=.*inner"),
        (lambda root: _zip(root), "photos is a file, but data.root must be a folder .*: unpack it"),
        (lambda root: _split(root), r"test has classes that .*train has not: owl; add training images"),
        (lambda root: _split(root, "val", "valid"), "more than one folder for validation: keep one"),
        (lambda root: _split(root, "Training"), "more than one folder for training: keep one"),
    ],
)
def test_the_error_for_a_folder_of_another_layout_says_what_to_do(photos, change, message):
    change(photos)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        folder(photos).setup("fit")


def _nest(root):
    for path in list(root.iterdir()):
        shutil.move(path, root / "inner" / path.name)


def _zip(root):
    shutil.rmtree(root)
    with zipfile.ZipFile(root, "w"):
        pass


def _split(root, *others):
    shutil.copytree(root, root.parent / "copy")
    for path in list(root.iterdir()):
        shutil.rmtree(path)
    for split in ("train", "test", *others):
        shutil.copytree(root.parent / "copy", root / split)
    if not others:
        shutil.rmtree(root / "train" / "owl")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"root": None}, "root is missing: add data.root=PATH"),
        ({"channels": 4}, "channels must be 1, for grey, or 3, for colour, got 4"),
        ({"image_size": 0}, "image_size must be at least 1, got 0"),
        ({"image_size": [8, 8, 3]}, r"image_size must be one number, or height and width, got \[8, 8, 3\]"),
        ({"test_fraction": 1.0}, r"test_fraction must be in \[0, 1\), got 1.0"),
        ({"validation_fraction": -0.1}, r"validation_fraction must be in \[0, 1\), got -0.1"),
    ],
)
def test_invalid_arguments_are_rejected(photos, arguments, message):
    with pytest.raises(ValueError, match=message):
        folder(**{"root": photos} | arguments)


def test_the_error_for_too_few_images_names_the_keys_to_change(photos):
    with pytest.raises(ValueError, match=r"photos has 23 training images.*data.batch_size or data.validation_fraction"):
        folder(photos, batch_size=64).setup("fit")


def test_a_line_is_printed_if_the_images_are_not_those_of_the_training(photos, capsys, write_image):
    content = data_hash(photos)
    folder(photos, content=content).setup("fit")
    assert "not the ones of the training" not in capsys.readouterr().out
    write_image(photos / "cat" / "new.png")
    folder(photos, content=content).setup("fit")
    assert "not the ones of the training" in capsys.readouterr().out
