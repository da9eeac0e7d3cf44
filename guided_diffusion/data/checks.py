"""The check that a dataset returns the samples and labels that it declares; errors say what is wrong and the mend."""

from collections.abc import Iterator, Sequence
from itertools import chain

import torch
from torch import Tensor


def check_samples(where: str, samples: Tensor, labels: Tensor, shape: Sequence[int], num_classes: int) -> None:
    """Raise ``ValueError`` with the first fault unless samples and labels are what their dataset declares.

    Images must be uint8, points finite float32 in [-1, 1]. There must be at least one sample, and for each sample a
    label, a whole number from 0 to ``num_classes - 1``.

    Args:
        where: The dataset and the split, with which the message begins.
        shape: The declared shape of one sample.
        num_classes: The declared number of classes.
    """
    faults_of_values = _faults_of_images if len(shape) == 3 else _faults_of_points
    faults = chain(
        _faults_of_sizes(samples, labels, tuple(shape)),
        faults_of_values(samples),
        _faults_of_labels(labels, num_classes),
    )
    if fault := next(faults, None):
        raise ValueError(f"{where}: {fault}")


def _faults_of_sizes(samples: Tensor, labels: Tensor, shape: tuple[int, ...]) -> Iterator[str]:
    kind, found = "images" if len(shape) == 3 else "points", tuple(samples.shape[1:])
    if not len(samples):
        yield f"there are no {kind}, but at least one is needed: add some, or hold out more of them"
    if found != shape:
        yield f"{kind} have the shape {found}, but {shape} is declared: {_mend_of_shape(found, shape)}"
    if labels.ndim != 1:
        mend = "labels.argmax(1)" if labels.ndim == 2 and labels.shape[1] > 1 else "labels.flatten()"
        yield f"labels have the shape {tuple(labels.shape)}, but must be one whole number for each sample: {mend}"
    if len(labels) != len(samples):
        yield f"there are {len(samples):,} {kind} but {len(labels):,} labels: each needs one"


def _mend_of_shape(found: tuple[int, ...], shape: tuple[int, ...]) -> str:
    if len(shape) == 3 and found == (*shape[1:], shape[0]):
        return "put the channels first, with permute(0, 3, 1, 2)"
    if len(shape) == 3 and found == shape[1:]:
        return "add the axis of the channels, with images[:, None]"
    if len(shape) == len(found) == 3 and found[0] == shape[0]:
        return "crop or resize them, or declare their size as image_size"
    return "change the samples, or the shape that the dataset declares"


def _faults_of_images(images: Tensor) -> Iterator[str]:
    if images.dtype == torch.uint8:
        return
    lowest, highest = images.double().min().item(), images.double().max().item()  # uint16 has no minimum
    yield (
        f"images are {_type(images)} from {lowest:g} to {highest:g}, but must be uint8 from 0 to 255: "
        f"{_mend_of_pixels(lowest, highest)}"
    )


def _mend_of_pixels(lowest: float, highest: float) -> str:
    for low, high, mend in (
        (0, 1, "multiply them by 255, round and convert them to uint8"),
        (-1, 1, "add 1, multiply by 127.5, round and convert them to uint8"),
        (0, 255, "round them and convert them to uint8"),
        (0, 65535, "divide them by 257, round and convert them to uint8"),
    ):
        if low <= lowest and highest <= high:
            return mend
    return "scale them to 0 to 255, round and convert them to uint8"


def _faults_of_points(points: Tensor) -> Iterator[str]:
    if points.dtype != torch.float32:
        yield f"points are {_type(points)}, but must be float32: convert them with .float()"
    if bad := int((~points.isfinite()).flatten(1).any(1).sum()):
        yield f"{bad:,} of {len(points):,} points are not finite: remove them"
    lowest, highest = points.min().item(), points.max().item()
    if max(-lowest, highest) > 1:
        yield f"points reach from {lowest:g} to {highest:g}, but must lie in [-1, 1]: shift and scale them"


def _faults_of_labels(labels: Tensor, num_classes: int) -> Iterator[str]:
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        yield f"labels are {_type(labels)}, but must be whole numbers: convert them to integers"
    lowest, highest = int(labels.long().min()), int(labels.long().max())
    if lowest < 0 or highest >= num_classes:
        yield (
            f"labels run from {lowest} to {highest}, but {num_classes} classes have the labels 0 to {num_classes - 1}: "
            f"{_mend_of_labels(lowest, highest, num_classes)}"
        )


def _mend_of_labels(lowest: int, highest: int, num_classes: int) -> str:
    if lowest > 0 and highest - lowest < num_classes:
        return f"subtract {lowest}"
    if lowest < 0:
        return "samples without a label can't be used: remove them"
    return "name every class in class_names, or number the labels without gaps"


def _type(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")
