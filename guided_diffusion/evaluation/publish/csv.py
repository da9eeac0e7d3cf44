"""Publish the numbers of an evaluation in a logger without pictures, such as a CSV file."""

from pytorch_lightning.loggers import Logger

from guided_diffusion.evaluation.publish.base import rows_by_scale
from guided_diffusion.evaluation.results import Results
from guided_diffusion.utils.guidance_scale import metrics_by_scale


def publish_numbers(logger: Logger, results: Results) -> None:
    """Log one metric for each quantity and scale, such as ``guidance/accuracy_w3``."""
    metrics: dict[str, float] = {}
    for row in rows_by_scale(results):
        for name, value in row.numbers.items():
            metrics |= metrics_by_scale(row.key(name), {row.result.scale: value})
    logger.log_metrics(metrics, step=0)
    logger.save()
