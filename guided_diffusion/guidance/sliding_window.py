"""Sliding window guidance, away from predictions for crops of the image."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.guidance.base import Guidance, Scale, along_walk, as_scale
from guided_diffusion.guidance.self_guidance import SelfGuidance
from guided_diffusion.guidance.weak import capability, guide_away
from guided_diffusion.samplers.walk import Walk
from guided_diffusion.schedules import Schedule
from guided_diffusion.utils.validation import check_positive

NAME = "sliding window guidance"


@dataclass(frozen=True)
class SlidingWindow(Guidance):
    """``b + w (m - b)``, with ``m = D(x_t, t, y)`` and ``b`` the mean of the predictions for n x n windows of x_t.

    The windows of side k lie evenly over the image; each pixel of ``b`` is the mean of those that cover it. ``m`` sees
    the whole image and ``b`` only parts, so guidance strengthens long-range structure. It works without labels too.
    See Kaiser et al. 2024, arXiv 2411.10257, whose strength is our w - 1; their masked form is not implemented.

    The windows cost ``n^2 k^2 / (height width)`` evaluations, which are counted as one.

    Args:
        scale: w, a number or a tensor of shape (b,); 1 is the model itself.
        window: k, the side of a window in pixels. A side of the image of at most k pixels has one window; if both have,
            b is m. The authors' 40 of 64 is 20 of 32.
        windows: n, the number of windows along a side that is longer than k.

    Raises:
        ValueError: If a scale is not finite or a setting not positive; when called, if the network takes images of one
            size only, or the windows don't fit the image or the network.
    """

    scale: Scale = 1.0
    window: int = 20
    windows: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(window=self.window, windows=self.windows)

    def counted_as(self) -> Guidance:
        return SelfGuidance(self.scale)

    @along_walk
    def __call__(self, denoise: Denoise, schedule: Schedule, walk: Walk) -> Denoise:
        multiple = capability(denoise, "size_multiple", NAME, "takes images of several sizes")
        scale = as_scale(self.scale)

        def windowed(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            height, width = x_t.shape[2:]
            places = list(product(self._parts(height, multiple), self._parts(width, multiple)))
            crops = torch.cat([x_t[:, :, rows, columns] for rows, columns in places])
            labels = None if y is None else y.repeat(len(places))
            prediction = denoise(crops, t.repeat(len(places)), labels)
            return Prediction(*(_average(value.chunk(len(places)), places, x_t.shape) for value in prediction))

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            if x_t.ndim != 4:
                raise ValueError(f"{NAME} is for images: points have no windows")
            return guide_away(denoise, windowed, x_t, t, y, scale)

        return guided

    def _parts(self, side: int, multiple: int) -> list[slice]:
        """Return the windows along a side of the image."""
        if self.window >= side:
            return [slice(0, side)]
        if self.window % multiple:
            raise ValueError(f"window must be a multiple of {multiple} for this network, got {self.window}")
        stride, rest = divmod(side - self.window, max(self.windows - 1, 1))
        if rest or self.windows < 2 or stride > self.window:
            raise ValueError(
                f"{self.windows} windows of {self.window} pixels don't lie evenly over {side}: windows - 1 must divide "
                f"{side - self.window}, and windows * window must be at least {side}"
            )
        return [slice(stride * i, stride * i + self.window) for i in range(self.windows)]


def _average(parts: Sequence[Tensor], places: Sequence[tuple[slice, slice]], shape: torch.Size) -> Tensor:
    """Return images of this shape, in which each pixel is the mean of the parts that cover it."""
    total, count = parts[0].new_zeros(shape), parts[0].new_zeros(shape[2:])
    for part, (rows, columns) in zip(parts, places, strict=True):
        total[:, :, rows, columns] += part
        count[rows, columns] += 1
    return total / count
