"""Judge accuracy against the scale: classifier-free guidance, and classifier guidance on either base.

    python experiments/two_families/accuracy.py DIFFUSION CLASSIFIER [--num-samples 2000] [--output-dir FOLDER]

DIFFUSION and CLASSIFIER are checkpoints of the same data. All methods and scales have the same labels and the
same noise. Writes ``accuracy.csv`` and ``accuracy.png``.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from time import perf_counter

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torchmetrics.functional.classification import multiclass_accuracy

from guided_diffusion.checkpoints import check_match, load, load_classifier
from guided_diffusion.config import build, fast_precision
from guided_diffusion.guidance import ClassifierFree, ClassifierGuidance
from guided_diffusion.metrics import JudgeSource
from guided_diffusion.samplers import Sampler
from guided_diffusion.sampling import Recipe

SCALES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 16.0)
COLUMNS = ("method", "scale", "accuracy", "num_samples", "judge_ceiling", "sampler", "steps", "seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("diffusion", help="checkpoint of a diffusion model")
    parser.add_argument("classifier", help="checkpoint of a time-aware classifier")
    parser.add_argument("--num-samples", type=int, default=2000, help="for every method and scale")
    parser.add_argument("--steps", type=int, default=25, help="of DDIM")
    parser.add_argument("--scales", type=float, nargs="+", default=SCALES)
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/two_families"))
    arguments = parser.parse_args()

    model, classifier = load(arguments.diffusion), load_classifier(arguments.classifier)
    check_match(model.trait, classifier.trait)
    judge = JudgeSource()(build(model.config["data"]))
    labels = torch.arange(arguments.num_samples) % model.num_classes
    methods = {
        "classifier-free": ClassifierFree(),
        "classifier, conditional base": ClassifierGuidance(classifier, base="conditional"),
        "classifier, unconditional base": ClassifierGuidance(classifier, base="unconditional"),
    }
    bf16 = fast_precision("cpu") == "bf16-mixed"
    rows = []
    for name, guidance in methods.items():
        recipe = Recipe(guidance, sampler=Sampler(steps=arguments.steps))
        for scale in arguments.scales:
            start = perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                images = recipe.sweep(model.denoiser, labels, model.shape, [scale])[0]
            seconds = perf_counter() - start
            accuracy = multiclass_accuracy(judge.classify(images), labels, model.num_classes, average="micro").item()
            print(f"{name:32} w = {scale:<5g} {accuracy:8.2%} {seconds:7.1f} s", flush=True)
            rows.append((name, scale, accuracy, len(labels), judge.ceiling, "ddim", arguments.steps, round(seconds, 1)))
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    with (arguments.output_dir / "accuracy.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(rows)
    plot(rows, arguments.output_dir / "accuracy.png")


def plot(rows: list[tuple], path: Path) -> None:
    figure = Figure(figsize=(7, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for method in dict.fromkeys(row[0] for row in rows):
        points = [(scale, accuracy) for name, scale, accuracy, *_ in rows if name == method]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=method)
    ceiling = rows[0][4]
    axes.axhline(ceiling, linestyle="--", color="grey", label=f"real test images: {ceiling:.1%}")
    axes.set_xscale("symlog", linthresh=2)
    scales = sorted({row[1] for row in rows})
    axes.set_xticks(scales, [f"{scale:g}" for scale in scales])
    axes.set(xlabel="guidance scale w: exponent of p(y|x)", ylabel="judge accuracy", ylim=(0, 1.02))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path)


if __name__ == "__main__":
    main()
