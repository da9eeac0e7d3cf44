from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write_image() -> Callable[..., None]:
    """Return a function that writes an image of one value, brighter by 50 in its middle."""

    def write(path: Path, mode: str = "RGB", size: tuple[int, int] = (20, 30), value: int = 0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        width, height = size
        pixels = np.full((height, width), value, dtype=np.uint8)
        pixels[height // 4 : -(height // 4), width // 4 : -(width // 4)] += 50
        Image.fromarray(pixels).convert(mode).save(path)

    return write


@pytest.fixture
def photos(tmp_path: Path, write_image: Callable[..., None]) -> Path:
    """Return a folder of 30 images of three classes, 16, 10 and 4 of each, of different sizes and modes."""
    for name, count in {"cat": 16, "dog": 10, "owl": 4}.items():
        for index in range(count):
            write_image(tmp_path / "photos" / name / f"{index}.png", ("RGB", "L")[index % 2], (20 + index, 30), index)
    return tmp_path / "photos"
