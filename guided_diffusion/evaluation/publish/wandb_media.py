"""What W&B shows of an evaluation: images, charts, tables and an artifact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import wandb

from guided_diffusion.evaluation.plots.image_grid import side_by_side
from guided_diffusion.evaluation.publish.base import Point, dotless
from guided_diffusion.evaluation.results import Result

FILES = ("report.html", "results.csv")


UNCERTAIN = ("method", "scale", "image", "label", "prediction", "probability")


def drawn(point: Point) -> dict[str, Any]:
    """What has a value at every scale, by its key."""
    images = {name: wandb.Image(one, caption=f"w = {point.row.scale:g}") for name, one in point.pictures.items()}
    return {point.key(name): value for name, value in (point.figures | images).items()}


def charts(every: Sequence[Point]) -> dict[str, Any]:
    """For every quantity a chart of all curves."""
    titles = list(dict.fromkeys(point.title for point in every))
    lines = [[point for point in every if point.title == title] for title in titles]
    return {
        f"curves/{name}": wandb.plot.line_series(
            xs=[[point.row.scale for point in line] for line in lines],
            ys=[[point.figures[name] for point in line] for line in lines],
            keys=titles,
            title=f"{name} by guidance scale",
            xname="guidance scale",
        )
        for name in every[0].figures
    }


def confusions(every: Sequence[Point], classes: Sequence[str]) -> dict[str, Any]:
    """For every row a confusion matrix."""
    return {
        "/".join(filter(None, ("confusion", point.curve, dotless(f"w{point.row.scale:g}")))): _confusion(point, classes)
        for point in every
    }


def _confusion(point: Point, classes: Sequence[str]) -> Any:
    counts = point.row.pictures.confusion
    labels, seen = (np.repeat(index.ravel(), counts.ravel()).tolist() for index in np.indices(counts.shape))
    return wandb.plot.confusion_matrix(
        y_true=labels,
        preds=seen,
        class_names=list(classes),
        title=f"labels and what the judge sees: {point.title}, w = {point.row.scale:g}",
    )


def tables(rows: Sequence[Result]) -> dict[str, wandb.Table]:
    columns: list[str | int] = list(dict.fromkeys(name for row in rows for name in row.row))
    return {"evaluation/results": wandb.Table(columns, [[row.row.get(str(name)) for name in columns] for row in rows])}


def judged(every: Sequence[Point], classes: Sequence[str]) -> dict[str, Any]:
    """What a judge saw: confusion matrices, and the samples it is least certain of."""
    uncertain = [line for point in every for line in _uncertain(point.row, classes)]
    return confusions(every, classes) | {"evaluation/uncertain": wandb.Table(list(UNCERTAIN), uncertain)}


def _uncertain(row: Result, classes: Sequence[str]) -> list[list[Any]]:
    """The samples whose label the judge thinks least likely."""
    pictures = row.pictures
    found = zip(
        pictures.uncertain,
        pictures.uncertain_labels,
        pictures.uncertain_predictions,
        pictures.uncertain_probabilities.tolist(),
        strict=True,
    )
    return [
        [row.method, row.scale, wandb.Image(side_by_side(image[None])), classes[label], classes[seen], probability]
        for image, label, seen, probability in found
    ]


def artifact(run_id: str, folder: Path) -> wandb.Artifact:
    artifact = wandb.Artifact(f"evaluation-{run_id}", type="evaluation")
    for path in filter(Path.is_file, (folder / name for name in FILES)):
        artifact.add_file(str(path))
    return artifact
