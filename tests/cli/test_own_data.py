"""Runs the commands of docs/own-data.md on a folder of images of several sizes and modes."""

import csv
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from guided_diffusion.checkpoints.loading import load

PAGE = Path(__file__).parents[2] / "docs" / "own-data.md"
COUNTS = {"zero": 150, "one": 80, "two": 25}
TINY = {
    "train": (
        *("data.image_size=[16,12]", "network.width=8", "trainer.max_steps=30", "trainer.val_check_interval=15"),
        *("data.batch_size=16", "data.balance=true", "scales=[0,1,3]", "sampler.steps=4", "judge.steps=30"),
        *("callbacks.accuracy.num_samples=30", "trainer.accelerator=cpu"),
    ),
    "sample": ("num_samples=6", "trainer.accelerator=cpu", "output_dir=samples"),
    "evaluate": (
        *("num_samples=20", "judge.steps=30", "trainer.accelerator=cpu", "output_dir=evaluation", "data_path=moved"),
    ),
}
"""The overrides with which the commands of the page take seconds instead of minutes."""


@pytest.fixture
def digits(tmp_path):
    """Write digits as enlarged PNGs into ``photos``: unbalanced, not square, of several sizes, grey and coloured."""
    pixels, labels = load_digits(return_X_y=True)
    for label, (name, count) in enumerate(COUNTS.items()):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index, image in enumerate(pixels[labels == label][:count]):
            grey = Image.fromarray((image.reshape(8, 8) * 15).astype(np.uint8))
            large = grey.resize((30 + index % 7, 40), Image.Resampling.BICUBIC)
            (large.convert("RGB") if index % 2 else large).save(tmp_path / "photos" / name / f"{index}.png")
    return tmp_path / "photos"


def commands():
    """Return the name and the arguments of each program in the first block of the page."""
    for line in PAGE.read_text().split("```")[1].strip().splitlines():
        module, *arguments = shlex.split(line)[2:]
        yield module.removeprefix("guided_diffusion."), arguments


@pytest.mark.slow
def test_the_commands_of_the_page_train_sample_and_evaluate(digits, call, tmp_path):
    done = []
    for program, arguments in commands():
        if program == "sample":
            digits.rename(tmp_path / "moved")  # a checkpoint is enough for sampling
        checkpoint = next(iter(Path("outputs/photos").glob("*/checkpoints/last.ckpt")), "")
        arguments = [argument.replace("PATH", str(checkpoint)) for argument in arguments]
        called = call(program, *arguments, *TINY[program])
        assert called.status == 0, called.err
        done.append(program)
        if program == "train":
            assert "255 images of 3 classes: one 80, two 25, zero 150" in called.out
            assert (
                "30 to 36 pixels wide, 40 to 40 high; 128 L, 127 RGB; resized to 16x12 (height x width) RGB"
                in called.out
            )
    assert done == ["train", "sample", "evaluate"]
    model = load(checkpoint)
    assert (model.shape, model.class_names) == ((3, 16, 12), ("one", "two", "zero"))
    with np.load("samples/samples.npz") as drawn:
        assert drawn["images"].shape[1:] == (3, 16, 12)
    with Path("evaluation/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["scale"]) for row in rows] == [0, 1, 3]
    assert list(Path("evaluation/plots").glob("*.png"))
