"""Plot judge accuracy against the scale for classifier-free guidance and classifier guidance on either base.

    python experiments/two_families/accuracy.py DIFFUSION CLASSIFIER [--num-samples 2000] [--output-dir FOLDER]

DIFFUSION and CLASSIFIER are checkpoints trained on the same data. All methods and scales use the same labels and the
same noise. Writes ``accuracy.csv`` row by row, and ``accuracy.png``; a second run adds the missing rows.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torchmetrics.functional.classification import multiclass_accuracy

from guided_diffusion.checkpoints.compatibility import check_match
from guided_diffusion.checkpoints.loading import load, load_classifier
from guided_diffusion.evaluation.judge import JudgeSource
from guided_diffusion.evaluation.plots.curves import spread_scales
from guided_diffusion.guidance import ClassifierFree, ClassifierGuidance
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler
from guided_diffusion.utils.instantiate import build
from guided_diffusion.utils.precision import fast_precision

SCALES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 16.0)
COLUMNS = ("method", "scale", "accuracy", "num_samples", "judge_ceiling", "sampler", "steps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("diffusion", help="checkpoint of a diffusion model")
    parser.add_argument("classifier", help="checkpoint of a time-aware classifier")
    parser.add_argument("--num-samples", type=int, default=2000, help="samples for each method and scale")
    parser.add_argument("--steps", type=int, default=25, help="DDIM steps")
    parser.add_argument("--scales", type=float, nargs="+", default=SCALES)
    parser.add_argument("--judge", help="file of a judge; by default the one in the cache")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/two_families"))
    arguments = parser.parse_args()

    model, classifier = load(arguments.diffusion), load_classifier(arguments.classifier)
    check_match(model.spec, classifier.spec)
    judge = JudgeSource(arguments.judge)(build(model.config["data"]))
    labels = torch.arange(arguments.num_samples) % model.num_classes
    methods = {
        "classifier-free": ClassifierFree(),
        "classifier, conditional base": ClassifierGuidance(classifier, base="conditional"),
        "classifier, unconditional base": ClassifierGuidance(classifier, base="unconditional"),
    }
    bf16 = fast_precision("cpu") == "bf16-mixed"
    path = arguments.output_dir / "accuracy.csv"
    done = {(row["method"], float(row["scale"])) for row in read(path)}
    for name, guidance in methods.items():
        recipe = Recipe(guidance, sampler=Sampler(steps=arguments.steps))
        for scale in arguments.scales:
            if (name, scale) in done:
                continue
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                images = recipe.sweep(model.denoiser, labels, model.shape, [scale])[0]
            accuracy = multiclass_accuracy(judge.classify(images), labels, model.num_classes, average="micro").item()
            print(f"{name:32} w = {scale:<5g} {accuracy:8.2%}", flush=True)
            append(
                path,
                (name, f"{scale:g}", f"{accuracy:.6f}", len(labels), f"{judge.ceiling:.6f}", "ddim", arguments.steps),
            )
    plot(read(path), arguments.output_dir / "accuracy.png")


def read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: tuple) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.is_file()
    with path.open("a", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerows([COLUMNS, row] if new else [row])


def plot(rows: list[dict[str, str]], path: Path) -> None:
    figure = Figure(figsize=(7, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for method in dict.fromkeys(row["method"] for row in rows):
        points = [(float(row["scale"]), float(row["accuracy"])) for row in rows if row["method"] == method]
        axes.plot(*zip(*sorted(points), strict=True), marker="o", markersize=4, label=method)
    ceiling = float(rows[0]["judge_ceiling"])
    axes.axhline(ceiling, linestyle="--", color="grey", label=f"real test images: {ceiling:.1%}")
    spread_scales(axes, sorted({float(row["scale"]) for row in rows}))
    axes.set(xlabel="guidance scale w: exponent of p(y|x)", ylabel="judge accuracy", ylim=(0, 1.02))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path)


if __name__ == "__main__":
    main()
