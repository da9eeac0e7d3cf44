"""Publish an evaluation in W&B: curves against the scale, images, charts, tables, and the report as an artifact."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import wandb
from pytorch_lightning.loggers import WandbLogger

from guided_diffusion.evaluation.modalities import modality
from guided_diffusion.evaluation.plots.image_grid import side_by_side
from guided_diffusion.evaluation.publish.base import CurveRow, dotless, rows_by_scale
from guided_diffusion.evaluation.results import Result, Results
from guided_diffusion.utils.guidance_scale import log_against_scale

ARTIFACT_FILES = ("report.html", "results.csv")


def publish_to_wandb(logger: WandbLogger, results: Results, folder: Path) -> None:
    """Show the panels that ``docs/dashboards.md`` lists."""
    run, about, rows = logger.experiment, results.about, rows_by_scale(results)
    class_names = about["class_names"]
    for scale, of_scale in groupby(rows, key=lambda row: row.result.scale):
        log_against_scale(run, scale, {key: value for row in of_scale for key, value in _scale_values(row).items()})
    judged = modality(results.kind).uses_judge
    panels = _charts(rows) | {"evaluation/results": _results_table(results.rows)}
    run.log(panels | (_judgements(rows, class_names) if judged else {}))
    run.log_artifact(_artifact(run.id, folder))
    if "judge_ceiling" in about:
        run.summary.update({"evaluation/judge_ceiling": about["judge_ceiling"]})
    run.tags = tuple(dict.fromkeys([*(run.tags or ()), *(row.method for row in results.rows)]))


def _scale_values(row: CurveRow) -> dict[str, Any]:
    """Return the numbers and images of a scale, by key."""
    caption = f"w = {row.result.scale:g}"
    images = {name: wandb.Image(pixels, caption=caption) for name, pixels in row.images.items()}
    return {row.key(name): value for name, value in (row.numbers | images).items()}


def _charts(rows: Sequence[CurveRow]) -> dict[str, Any]:
    """Return a chart of all curves for every quantity."""
    titles = list(dict.fromkeys(row.title for row in rows))
    lines = [[row for row in rows if row.title == title] for title in titles]
    return {
        f"curves/{name}": wandb.plot.line_series(
            xs=[[row.result.scale for row in line] for line in lines],
            ys=[[row.numbers[name] for row in line] for line in lines],
            keys=titles,
            title=f"{name} by guidance scale",
            xname="guidance scale",
        )
        for name in rows[0].numbers
    }


def _results_table(rows: Sequence[Result]) -> wandb.Table:
    columns: list[str | int] = list(dict.fromkeys(name for row in rows for name in row.row))
    return wandb.Table(columns, [[row.row.get(str(name)) for name in columns] for row in rows])


def _judgements(rows: Sequence[CurveRow], class_names: Sequence[str]) -> dict[str, Any]:
    """Return the confusion matrix of every row, and the samples whose label the judge thinks least likely."""
    keys = ["/".join(filter(None, ("confusion", row.suffix, dotless(f"w{row.result.scale:g}")))) for row in rows]
    matrices = {key: _confusion(row, class_names) for key, row in zip(keys, rows, strict=True)}
    columns: list[str | int] = ["method", "scale", "image", "label", "prediction", "probability"]
    uncertain = [sample for row in rows for sample in _uncertain(row.result, class_names)]
    return matrices | {"evaluation/uncertain": wandb.Table(columns, uncertain)}


def _confusion(row: CurveRow, class_names: Sequence[str]) -> Any:
    counts = row.result.pictures.confusion
    labels, predictions = (np.repeat(index.ravel(), counts.ravel()).tolist() for index in np.indices(counts.shape))
    return wandb.plot.confusion_matrix(
        y_true=labels,
        preds=predictions,
        class_names=list(class_names),
        title=f"labels and what the judge sees: {row.title}, w = {row.result.scale:g}",
    )


def _uncertain(row: Result, class_names: Sequence[str]) -> list[list[Any]]:
    """Return the rows of the table of uncertain samples."""
    shown = row.pictures
    images = [wandb.Image(side_by_side(image[None])) for image in shown.uncertain]
    labels = [class_names[label] for label in shown.uncertain_labels]
    predictions = [class_names[label] for label in shown.uncertain_predictions]
    columns = (images, labels, predictions, shown.uncertain_probabilities.tolist())
    return [[row.method, row.scale, *cells] for cells in zip(*columns, strict=True)]


def _artifact(run_id: str, folder: Path) -> wandb.Artifact:
    artifact = wandb.Artifact(f"evaluation-{run_id}", type="evaluation")
    for path in filter(Path.is_file, (folder / name for name in ARTIFACT_FILES)):
        artifact.add_file(str(path))
    return artifact
