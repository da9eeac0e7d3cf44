"""Reads and checks what ``sample`` starts from: the images or points of ``from=PATH`` and the mask of ``mask=PATH``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from omegaconf import DictConfig
from PIL import Image, ImageOps
from torch import Tensor

from guided_diffusion.data.base import kind_of, normalise
from guided_diffusion.data.decoding import MODES, read_image
from guided_diffusion.recipe import ImageToImage, Inpainting, Inversion, Start
from guided_diffusion.utils.listing import is_visible

SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Source:
    """The given samples that sampling starts from, in [-1, 1], with the names and labels that their files give them."""

    samples: Float[Tensor, "n *shape"]
    names: Sequence[str]
    """The name of each sample's file; empty if the samples are an array."""
    labels: Sequence[int] | None
    """The class of each sample, if the file has them."""
    files: Sequence[Path]
    """The files that the samples, and the mask, come from."""
    unknown: Bool[Tensor, "*shape"] | None = None
    """The mask of the values that are drawn anew, if there is one."""

    def repeated(self, times: int) -> Source:
        """Return the source with its one sample repeated, without a label."""
        samples = self.samples.repeat_interleave(times, 0)
        return replace(self, samples=samples, names=list(self.names) * times, labels=None)

    def shown(self) -> Float[Tensor, "n *shape"]:
        """Return the samples as a picture shows them: grey where they are drawn anew."""
        return self.samples if self.unknown is None else self.samples.masked_fill(self.unknown, 0)

    def titles(self, class_names: Sequence[str]) -> list[str]:
        """Return the title of each row of a picture: the file and the class, or the class alone for an array."""
        if not self.names:
            return list(class_names)
        return [f"{name}: {of_class}" for name, of_class in zip(self.names, class_names, strict=True)]

    def start(self, config: DictConfig, copies: int) -> Start:
        """Return the start that the config asks for, with several copies of each sample."""
        samples = self.samples.repeat_interleave(copies, 0)
        if config.invert:
            return Inversion(samples)
        strength = 1.0 if config.strength is None else config.strength
        if self.unknown is None:
            return ImageToImage(samples, strength)
        return Inpainting(samples, self.unknown.expand(samples.shape), strength)


def check_source(config: DictConfig) -> None:
    """Raise ``ValueError`` if the settings around ``from`` don't go together, or one is out of its range."""
    invert = config.invert
    if not config["from"]:
        for key in ("strength", "mask", "invert", "from_labels"):
            if config[key]:
                raise ValueError(f"{key} needs images to start from: add from=PATH")
        return
    if not (invert or config.mask or config.strength is not None):
        raise ValueError(
            "from: say what to do with the images: strength=0.6 noises them to t = 0.6 and samples from there, "
            "mask=PATH draws the white part anew, invert=true finds their noise"
        )
    if config.strength is not None and not 0 < config.strength <= 1:
        raise ValueError(f"strength must be in (0, 1], got {config.strength:g}")
    if config.from_labels is not None and not (invert and config.labels):
        raise ValueError("from_labels needs invert=true, and labels=[...] to sample with")
    for key in ("strength", "mask", "compare"):
        if invert and config[key]:
            raise ValueError(f"{key} doesn't go with invert=true: leave one of them out")
    if invert and config.num_samples not in (None, 1):
        raise ValueError(f"num_samples must be 1 with invert=true, as an image has one noise, got {config.num_samples}")


def read_source(config: DictConfig, shape: Sequence[int]) -> Source | None:
    """Return what ``from`` and ``mask`` name, in this shape of a model's samples, or ``None`` without ``from``.

    Raises:
        ValueError, FileNotFoundError: If there is no such file, or it can't be used.
    """
    if not config["from"]:
        return None
    path = Path(str(config["from"]))
    if not path.exists():
        raise FileNotFoundError(f"from: there is no file or folder at {path}")
    source = _read_arrays(path, shape) if path.suffix == ".npz" else _read_images(path, shape)
    if not config.mask:
        return source
    mask = Path(str(config.mask))
    unknown = read_mask(mask, shape)
    return replace(source, files=[*source.files, mask], unknown=unknown)


def _read_images(path: Path, shape: Sequence[int]) -> Source:
    if kind_of(shape) != "images":
        raise ValueError(f"from: the model makes {kind_of(shape)}, so {path} must be an .npz of them")
    files = sorted(filter(_is_image, path.iterdir())) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"from: there is no PNG or JPEG file directly in {path}")
    if shape[0] not in MODES:
        raise ValueError(f"from: the model makes images of {shape[0]} channels: give them as an .npz")
    images = torch.stack([_read_image(file, *shape) for file in files])
    return Source(normalise(images), [file.stem for file in files], None, files)


def _is_image(path: Path) -> bool:
    return is_visible(path.name) and path.suffix.lower() in SUFFIXES


def _read_image(path: Path, channels: int, height: int, width: int) -> UInt8[Tensor, "channels height width"]:
    try:
        return read_image(path, channels, height, width)[0]
    except ValueError as error:
        raise ValueError(f"from: {path} can't be read: {error}") from error
    except (OSError, SyntaxError) as error:
        raise _unreadable(path, "from") from error


def _unreadable(path: Path, key: str) -> Exception:
    """Return the error for a missing file, or for one that is no image."""
    if not path.is_file():
        return FileNotFoundError(f"{key}: there is no file at {path}")
    return ValueError(f"{key}: {path} can't be read as an image: name a PNG or JPEG file")


def read_mask(path: Path, shape: Sequence[int]) -> Bool[Tensor, "*shape"]:
    """Return a mask that is true at the values to draw: where an image is white, or an array of an .npy file is true.

    A mask of another size is cropped and resized as the images are, without blending. It holds for all channels.

    Raises:
        ValueError: If it can't be read or does not fit, or if it keeps everything or nothing.
    """
    if path.suffix == ".npy":
        unknown = _read_mask_array(path, shape)
    elif len(shape) == 1:
        raise ValueError(f"mask: for points it must be an .npy with {shape[0]} values, one for each coordinate")
    else:
        try:
            with Image.open(path) as file:
                grey = file.convert("L")
        except (OSError, SyntaxError) as error:
            raise _unreadable(path, "mask") from error
        unknown = torch.from_numpy(np.array(_fit_nearest(grey, shape)) > 127)
    if unknown.all() or not unknown.any():
        what = "all is white, so nothing is kept" if unknown.all() else "nothing is white, so there is nothing to draw"
        raise ValueError(f"mask: in {path} {what}: white (or true) is what is drawn anew")
    return unknown.expand(*shape)


def _read_mask_array(path: Path, shape: Sequence[int]) -> Bool[Tensor, "*size"]:
    try:
        array = np.load(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"mask: there is no file at {path}") from error
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"mask: {path} can't be read as an array") from error
    expected = 1 if len(shape) == 1 else 2
    if array.ndim != expected or (expected == 1 and len(array) != shape[0]):
        size = f"({shape[0]},)" if expected == 1 else "(height, width)"
        raise ValueError(f"mask: the array in {path} must have shape {size}, got {array.shape}")
    mask = (array.astype(np.float64) > 0).astype(np.uint8)
    return torch.from_numpy(np.array(mask if expected == 1 else _fit_nearest(Image.fromarray(mask), shape)) > 0)


def _fit_nearest(mask: Image.Image, shape: Sequence[int]) -> Image.Image:
    return ImageOps.fit(mask, (shape[2], shape[1]), Image.Resampling.NEAREST)


def _read_arrays(path: Path, shape: Sequence[int]) -> Source:
    """Return the samples of an .npz that ``sample`` wrote, or of another with ``images`` in [-1, 1] or uint8."""
    try:
        with np.load(path) as arrays:
            found = {name: arrays[name] for name in ("images", "labels") if name in arrays}
    except Exception as error:  # a damaged file makes numpy and zipfile raise errors of many types
        raise ValueError(f"from: {path} is no .npz file that can be read") from error
    if "images" not in found:
        raise ValueError(f"from: {path} has no array images")
    if found["images"].dtype.kind not in "uif":
        raise ValueError(f"from: images in {path} must be uint8, or numbers in [-1, 1]")
    samples: Shaped[Tensor, "n *shape"] = torch.from_numpy(found["images"])
    if samples.shape[1:] != tuple(shape) or not len(samples):
        expected = f"(n, {', '.join(map(str, shape))})"
        raise ValueError(f"from: images in {path} must have shape {expected}, got {tuple(samples.shape)}")
    samples = normalise(samples) if samples.dtype == torch.uint8 else samples.float()
    if not samples.abs().max() <= 4:
        raise ValueError(f"from: images in {path} must be uint8, or numbers in [-1, 1]")
    labels = found.get("labels", np.zeros(0))
    are_classes = labels.shape == (len(samples),) and labels.dtype.kind in "iu"
    return Source(samples, [], labels.tolist() if are_classes else None, [path])
