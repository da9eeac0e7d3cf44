"""Sample the same noises at many guidance scales, with x0 clipped and not clipped, and measure the images.

    python experiments/guidance_scale/analysis.py CHECKPOINT [--digit 3] [--num-samples 100] [--output-dir FOLDER]

CHECKPOINT is a diffusion model of images. Writes ``scales.csv`` and ``scales.png``; ``clipped.png`` and
``unclipped.png`` with the first noises; and ``classes.png`` with all classes at the scales common in tutorials.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from guided_diffusion import load
from guided_diffusion.checkpoints.loading import TrainedDiffusion
from guided_diffusion.evaluation.chunks import Watched, saturation
from guided_diffusion.evaluation.judge import Judge, JudgeSource
from guided_diffusion.evaluation.plots.curves import spread_scales
from guided_diffusion.evaluation.plots.image_grid import save_labelled_grid
from guided_diffusion.evaluation.results import write_csv
from guided_diffusion.guidance import Clip, NoThreshold, Wrapper
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler
from guided_diffusion.utils.precision import fast_precision

SCALES = tuple(1.0 + s for s in (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4, 5, 7.5, 10, 15, 20))
LESSON = (1.0, 2.0, 4.0, 7.0, 10.0, 20.0)
THRESHOLDS: dict[str, Wrapper] = {"clipped": Clip(), "unclipped": NoThreshold()}
STEPS = 25
SHOWN = 10
"""The number of noises in a picture."""
OF_CLASS = 3
"""The number of images of each class at each scale of ``LESSON``."""
MEASURES = {
    "change": "RMS change of a pixel from w = 1",
    "brightness": "mean brightness",
    "saturation": "share of |x0| > 1 before clipping",
    "variance": "variance of a pixel over the noises",
}
"""The measures and the titles of their panels. Pixels are in [-1, 1]; brightness is from 0 to 1."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--digit", type=int, default=3)
    parser.add_argument("--num-samples", type=int, default=100, help="number of noises, the same at every scale")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/guidance_scale"))
    arguments = parser.parse_args()

    model = load(arguments.checkpoint)
    judge = JudgeSource()(model.data())
    labels = torch.full((arguments.num_samples,), arguments.digit)
    all_classes = torch.arange(model.num_classes * OF_CLASS) % model.num_classes
    with torch.autocast("cpu", torch.bfloat16, enabled=fast_precision("cpu") == "bf16-mixed"):
        found = {
            (name, scale): sample(model, threshold, labels, scale)
            for name, threshold in THRESHOLDS.items()
            for scale in SCALES
        }
        lesson = Recipe(sampler=Sampler(steps=STEPS)).sweep(model.denoiser, all_classes, model.shape, LESSON)
    rows = [
        {"threshold": name, "scale": scale} | measured(images, found[name, 1.0][0], saturated, judge, labels)
        for (name, scale), (images, saturated) in found.items()
    ]
    for name in THRESHOLDS:
        save_labelled_grid(
            torch.stack([found[name, scale][0][:SHOWN] for scale in SCALES]),
            arguments.output_dir / f"{name}.png",
            [f"w = {scale:g}" for scale in SCALES],
            [""] * min(SHOWN, len(labels)),
        )
    save_labelled_grid(
        lesson.unflatten(1, (OF_CLASS, model.num_classes)).flatten(0, 1),
        arguments.output_dir / "classes.png",
        [f"w = {scale:g}" if row == 0 else "" for scale in LESSON for row in range(OF_CLASS)],
        model.class_names,
    )
    write_csv(arguments.output_dir / "scales.csv", rows)
    plot(rows, arguments.output_dir / "scales.png")


def sample(model: TrainedDiffusion, threshold: Wrapper, labels: Tensor, scale: float) -> tuple[Tensor, float]:
    """Return clamped images, and the share of pixels of the last x0 outside [-1, 1] before any threshold."""
    seen: list[Tensor] = []
    watched = Watched(threshold, lambda prediction: seen.append(saturation(prediction.x0)))
    recipe = replace(Recipe(threshold=watched, sampler=Sampler(steps=STEPS)), batch_size=len(labels))
    images = recipe.sweep(model.denoiser, labels, model.shape, [scale])[0]
    return images.clamp(-1, 1), seen[-1].mean().item()


def measured(images: Tensor, plain: Tensor, saturated: float, judge: Judge, labels: Tensor) -> dict[str, float]:
    """Return the ``MEASURES`` of images, compared with ``plain`` ones of the same noise, and the probability."""
    return {
        "change": (images - plain).square().mean((1, 2, 3)).sqrt().mean().item(),
        "brightness": (images.mean().item() + 1) / 2,
        "saturation": saturated,
        "variance": images.var(0).mean().item(),
        "probability": judge.probabilities(images).gather(1, labels[:, None]).mean().item(),
    }


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Plot a panel for each measure, with a line for each threshold."""
    figure = Figure(figsize=(8, 5.4), dpi=110, layout="constrained")
    panels = figure.subplots(2, 2, sharex=True).flatten()
    for axes, (measure, words) in zip(panels, MEASURES.items(), strict=True):
        for name in THRESHOLDS:
            values = [row[measure] for row in rows if row["threshold"] == name]
            axes.plot(SCALES, values, marker="o", markersize=4, label=name)
        spread_scales(axes, (1, 1.5, 2, 3, 5, 8.5, 21))
        axes.set_title(words, fontsize=10)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    for axes in panels[2:]:
        axes.set_xlabel("guidance scale w")
    panels[0].legend(frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
