"""The measures of the images of each class."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from guided_diffusion.evaluation.metrics.classification import scores
from guided_diffusion.evaluation.metrics.shares import wilson
from guided_diffusion.evaluation.plan import LabelledSamples


def measure_classes(
    samples: LabelledSamples,
    class_names: Sequence[str],
    confusion: Int[Tensor, "classes classes"],
    probabilities: Float[Tensor, " n"],
    diversity: Float[Tensor, " classes"],
) -> list[dict[str, Any]]:
    """Return the number, name, count and measures of each class; measures are nan where it has too few samples.

    Extra samples count, but precision and F1 use the proportions of the classes without them.

    Args:
        confusion: The number of samples by label (rows) and predicted class (columns).
        probabilities: The judge's probability of the label of each sample.
        diversity: The mean distance of two samples of each class.
    """
    groups = [samples.labels == label for label in range(len(class_names))]
    count = confusion.sum(1)
    share = samples.counted.labels.bincount(minlength=len(class_names)) / count  # nan without samples
    _, precision, _, f1 = scores(confusion * share.nan_to_num()[:, None])
    drawn = torch.where(share > 0, 1, torch.nan)
    intervals = map(wilson, (confusion.diag() / count).tolist(), count.tolist())
    accuracy, low, high = (torch.tensor(values) for values in zip(*intervals, strict=True))
    columns = {
        "accuracy": accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "precision": precision * drawn,
        "recall": accuracy,
        "f1": f1 * drawn,
        "probability_mean": torch.stack([probabilities[group].mean() for group in groups]),
        "diversity": diversity,
        "pixel_variance": torch.stack([_pixel_variance(samples.samples[group]) for group in groups]),
    }
    return [
        {"class": label, "class_name": name, "count": int(count[label])}
        | {column: values[label].item() for column, values in columns.items()}
        for label, name in enumerate(class_names)
    ]


def _pixel_variance(images: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
    """Return the unbiased variance of a pixel over the images, averaged over the pixels."""
    return images.var(0).mean() if len(images) > 1 else torch.tensor(torch.nan)
