"""Publish an evaluation in TensorBoard."""

from pytorch_lightning.loggers import TensorBoardLogger

from guided_diffusion.evaluation.publish.base import rows_by_scale
from guided_diffusion.evaluation.results import Results


def publish_to_tensorboard(logger: TensorBoardLogger, results: Results) -> None:
    """Show numbers and images against 100 times the scale, since the axis of TensorBoard is a whole number."""
    for row in rows_by_scale(results):
        step = round(100 * row.result.scale)
        for name, value in row.numbers.items():
            logger.experiment.add_scalar(row.key(name), value, step)
        for name, pixels in row.images.items():
            logger.experiment.add_image(row.key(name), pixels, step, dataformats="HWC")
