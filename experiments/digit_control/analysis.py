"""Measure how often the model draws the digit it is asked for: counts, precision, recall and F1, and a picture.

    python experiments/digit_control/analysis.py EVALUATION SAMPLES [--output-dir FOLDER]

EVALUATION is the folder of an evaluation, SAMPLES a folder of ``guided_diffusion.sample`` with the same number of
samples of every class. Writes ``per_digit.csv`` and ``confusion.csv`` from the first, and ``counts.csv``,
``counts.png`` (the classes that the judge sees) and ``samples.png`` from the second.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from guided_diffusion import load
from guided_diffusion.evaluation.judge import JudgeSource
from guided_diffusion.evaluation.plots.image_grid import grid
from guided_diffusion.evaluation.results import Result, read, write_csv

GREYS = 8
"""The number of greys in the picture of all samples; few greys keep the file small."""
MEASURES = ("precision", "recall", "f1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("samples", type=Path)
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/digit_control"))
    arguments = parser.parse_args()

    results = read(arguments.evaluation)
    write_csv(arguments.output_dir / "per_digit.csv", [row for result in results.rows for row in per_digit(result)])
    with np.load(arguments.samples / "samples.npz") as arrays:
        images, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
    judge = JudgeSource()(load(results.about["checkpoint"]).data())
    names = results.about["class_names"]
    confusion = multiclass_confusion_matrix(judge.classify(images), labels, len(names))
    write_csv(arguments.output_dir / "counts.csv", seen(confusion, names))
    pairs = [{"scale": row.scale} | line for row in results.rows for line in seen(row.pictures.confusion, names)]
    write_csv(arguments.output_dir / "confusion.csv", pairs)
    plot_counts(confusion, names, arguments.output_dir / "counts.png")
    save_blocks(images, labels, arguments.output_dir / "samples.png")


def seen(confusion: Iterable[Iterable[Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for every digit asked for, with the number of times the judge sees each digit."""
    return [
        {"asked": name} | {f"seen_{other}": int(count) for other, count in zip(names, counts, strict=True)}
        for name, counts in zip(names, confusion, strict=True)
    ]


def per_digit(result: Result) -> list[dict[str, Any]]:
    """Return a row for every digit, and one for their mean."""
    key = {"scale": result.scale}
    rows = [
        key | {"digit": one["class_name"], "count": int(one["count"])} | {name: float(one[name]) for name in MEASURES}
        for one in result.per_class
    ]
    mean = {name: result.measured[name].value for name in MEASURES}
    return [*rows, key | {"digit": "mean", "count": result.num_samples} | mean]


def plot_counts(confusion: Tensor, names: list[str], path: Path) -> None:
    """Plot how many of each digit were asked for and how many the judge sees; wrong ones are red."""
    figure = Figure(figsize=(7, 3.4), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    places, asked, seen, right = np.arange(len(names)), confusion.sum(1), confusion.sum(0), confusion.diag()
    axes.bar(places - 0.2, asked, 0.36, color="lightgrey", label="asked for")
    axes.bar(places + 0.2, right, 0.36, color="tab:blue", label="seen by the judge")
    axes.bar(places + 0.2, seen - right, 0.36, bottom=right, color="tab:red", label="... where another was asked for")
    for place, count in zip(places, seen.tolist(), strict=True):
        axes.annotate(str(count), (place + 0.2, count), ha="center", va="bottom", fontsize=8)
    axes.set_xticks(places, names)
    axes.set(xlabel="digit", ylabel="samples", ylim=(0, 1.1 * int(torch.maximum(asked, seen).max())))
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.savefig(path)


def save_blocks(images: Tensor, labels: Tensor, path: Path) -> None:
    """Save a square of samples for every class, five squares side by side."""
    blocks = []
    for label in labels.unique():
        of_class = images[labels == label]
        side = int(len(of_class) ** 0.5)
        blocks.append(grid(of_class[: side**2], side)[..., 0])
    rows = [torch.cat(blocks[first : first + 5], 1) for first in range(0, len(blocks), 5)]
    Image.fromarray(torch.cat(rows).numpy()).quantize(GREYS).save(path, optimize=True)


if __name__ == "__main__":
    main()
