"""The LightningModule that trains a classifier of noisy images."""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from guided_diffusion.classifiers import Classifier, classes_of
from guided_diffusion.data.base import Batch
from guided_diffusion.losses import Attack, TimeSampling, UniformTimes, classification_loss
from guided_diffusion.schedules import Schedule
from guided_diffusion.training.modules.base import NoisyTraining, ParameterGroups, band_name

NUM_BANDS = 10
"""The number of equal parts of time in which validation measures the classifier."""


class ClassifierModule(NoisyTraining):
    """The training of a classifier of noisy images, at every noise level of the diffusion model that it guides.

    The loss is the cross-entropy. Validation logs the accuracy and the expected
    calibration error for each tenth of time, without an attack.

    Args:
        network: The backbone, ``network(x_t, log_snr) -> logits``, with an attribute ``num_classes``.
        schedule: The noise schedule, that of the diffusion model.
        optimizer, lr_scheduler, seed, channels_last, compile: As for ``NoisyTraining``.
        time_sampling, parameter_groups: As for ``NoisyTraining``.
        adversarial: The attack on the noisy samples of the training; without it they stay as they are.

    Raises:
        ValueError: If the network has no ``num_classes``, or fewer than two.

    References:
        Dhariwal & Nichol 2021, "Diffusion Models Beat GANs on Image Synthesis", arXiv 2105.05233, section 4.
    """

    kind = "classifier"

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        optimizer: Callable[..., Optimizer],
        lr_scheduler: Callable[..., LRScheduler],
        seed: int = 0,
        channels_last: bool = False,
        compile: bool = False,
        time_sampling: TimeSampling | None = None,
        parameter_groups: ParameterGroups | None = None,
        adversarial: Attack | None = None,
    ) -> None:
        super().__init__(
            network, optimizer, lr_scheduler, seed, channels_last, compile, time_sampling, parameter_groups
        )
        num_classes = classes_of(network)
        if num_classes is None:
            raise ValueError(
                "module=classifier needs a network that takes (x_t, log_snr) and returns num_classes logits, and "
                f"{type(network).__name__} is no classifier: choose another network, such as network=classifier_8 for "
                "digits"
            )
        if num_classes < 2:
            raise ValueError(f"a classifier needs at least 2 classes, and the data have {num_classes}")
        self.schedule = schedule
        self.adversarial = adversarial
        self.classifier = Classifier(network, schedule)
        per_band = (band_metrics(num_classes) for _ in range(NUM_BANDS))
        self.band_metrics = cast(Sequence[MetricCollection], nn.ModuleList(per_band))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x0, eps, t = self.draw_noise(batch.samples, self.training_generator(batch_idx), self.time_sampling)
        losses, logits = classification_loss(self.classifier, x0, batch.labels, t, eps, self.adversarial)
        self.log_mean("train/loss", losses.mean(), prog_bar=True)
        self.log_mean("train/accuracy", (logits.argmax(1) == batch.labels).float().mean())
        return losses.mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure the classifier on every image in every band of noise."""
        generator = self.validation_generator(batch_idx)
        loss = torch.zeros((), device=self.device)
        for band, metrics in enumerate(self.band_metrics):
            x0, eps, t = self.draw_noise(batch.samples, generator, UniformTimes())
            losses, logits = classification_loss(self.classifier, x0, batch.labels, (band + t) / NUM_BANDS, eps)
            loss = loss + losses.mean() / NUM_BANDS
            metrics.update(logits.softmax(1), batch.labels)  # it would take logits in [0, 1] for probabilities
        self.log("val/loss", loss, batch_size=len(batch.labels), sync_dist=True, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        values = [metrics.compute() for metrics in self.band_metrics]
        for band, of_band in enumerate(values):
            self.log_dict({f"val/{name}_{band_name(band, NUM_BANDS)}": value for name, value in of_band.items()})
        self.log("val/accuracy", sum(of_band["accuracy"] for of_band in values) / NUM_BANDS, prog_bar=True)
        for metrics in self.band_metrics:
            metrics.reset()


def band_metrics(num_classes: int) -> MetricCollection:
    """Return the metrics of one band: accuracy, top-5 accuracy above ten classes, expected calibration error."""
    ranks = {"accuracy": 1} | ({"accuracy_top5": 5} if num_classes > 10 else {})
    accuracies: dict[str, Metric | MetricCollection] = {
        name: MulticlassAccuracy(num_classes, top_k=rank, average="micro") for name, rank in ranks.items()
    }
    metrics = accuracies | {"calibration_error": MulticlassCalibrationError(num_classes)}
    return MetricCollection(metrics, compute_groups=False)  # it would guess the groups from one batch
