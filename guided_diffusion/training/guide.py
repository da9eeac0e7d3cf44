"""The training of a small time-aware classifier, a guide, which ``classifier=auto`` starts when sampling needs one."""

import copy
import inspect
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.utils.data import DistributedSampler

from guided_diffusion.classifiers import Classifier, classes_of
from guided_diffusion.data import LabelledDataModule, kind_of, network_sizes
from guided_diffusion.data.base import Batch
from guided_diffusion.losses import LogNormalTimes, TimeSampling, check_times, classification_loss
from guided_diffusion.schedules import Schedule
from guided_diffusion.utils.progress import progress_bar
from guided_diffusion.utils.rng import generator_for
from guided_diffusion.utils.validation import check_positive

QUIET_SECONDS = 5
"""The seconds before a progress bar appears."""


@dataclass(frozen=True)
class GuideTraining:
    """The training of a guide on the training split of the diffusion model's data, and on its schedule.

    AdamW with a one-cycle learning rate lowers the cross-entropy of noisy samples. Everything random follows from the
    seed. A guide never measures: that is the judge's part.

    Args:
        network: The function that makes the network, called with the sizes of the samples and ``num_classes``.
        steps: The number of training steps.
        batch_size: The number of samples in a step.
        learning_rate: The highest learning rate of the one-cycle schedule.
        time_sampling: The density of the times at which samples are noised. By default log(sigma / alpha) is normal
            with mean -0.3 and standard deviation 1.2: above that a guide learns little, and below it every sample has
            its class.
        seed: The seed of the weights, the order of the samples, the times and the noise.

    Raises:
        ValueError: If a number is not positive.
    """

    network: Callable[..., nn.Module]
    steps: int = 1200
    batch_size: int = 128
    learning_rate: float = 3e-3
    time_sampling: TimeSampling = field(default_factory=lambda: LogNormalTimes(-0.3, 1.2))
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive(steps=self.steps, batch_size=self.batch_size)
        if not 0 < self.learning_rate < torch.inf:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")

    def build(self, shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """Return the network for samples of this shape, with its initial weights.

        Raises:
            ValueError: If the network is for other samples or no classifier, or there are fewer than two classes.
        """
        if num_classes < 2:
            raise ValueError(f"a classifier needs at least 2 classes, and the data have {num_classes}")
        sizes, kind = network_sizes(shape), kind_of(shape)
        try:
            inspect.signature(self.network).bind_partial(**sizes)
        except TypeError as error:
            raise ValueError(f"guide.network is not for {kind}: add guide={kind}") from error
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            try:
                network = self.network(**sizes, num_classes=num_classes)
            except ValueError as error:
                raise ValueError(f"guide.network: {error}") from error
        if classes_of(network) is None:
            raise ValueError(
                f"guide.network must return num_classes logits for (x_t, log_snr), and {type(network).__name__} is no "
                "classifier: choose another, such as network@guide.network=classifier_fast"
            )
        return network

    def check_times(self, schedule: Schedule) -> None:
        """Raise ``ValueError`` if the times of the training don't suit the schedule."""
        try:
            check_times(self.time_sampling, schedule)
        except ValueError as error:
            raise ValueError(f"guide.time_sampling: {error}") from error

    def __call__(
        self, data: LabelledDataModule, schedule: Schedule, device: torch.device | str = "cpu", bfloat16: bool = False
    ) -> Classifier:
        """Return a newly trained classifier, in eval mode; the global random state stays as it is.

        Args:
            data: The data of the diffusion model.
            schedule: Its noise schedule.
            device: The device to train on.
            bfloat16: Whether to multiply in bfloat16.
        """
        device = torch.device(device)
        classifier = Classifier(self.build(data.shape, data.num_classes), schedule).to(device).train()
        optimizer = torch.optim.AdamW(classifier.parameters(), betas=(0.9, 0.99), weight_decay=0.05, foreach=True)
        # A training of one step has a schedule over two: the last rate of a cycle is almost 0.
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, max(2, self.steps))
        generator = generator_for(device, self.seed)
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
            torch.default_generator.manual_seed(self.seed)  # for dropout
            for samples, labels in self._progress(self._batches(data)):
                x0, y = samples.to(device), labels.to(device)
                t = self.time_sampling(len(y), schedule, generator)
                eps = torch.randn(x0.shape, generator=generator, device=device)
                with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                    losses, _ = classification_loss(classifier, x0, y, t, eps)
                optimizer.zero_grad()
                losses.mean().backward()
                optimizer.step()
                scheduler.step()
        return classifier.cpu().eval()

    def _batches(self, data: LabelledDataModule) -> Iterator[Batch]:
        """Yield batches of the training split in the range of the model, epoch after epoch, without end."""
        own = copy.copy(data)  # the loader of this training alone: neither the trainer's processes nor its batch size
        own.trainer, own.seed = None, self.seed
        own.batch_size = min(self.batch_size, len(data.split("train").labels))
        loader = own.train_dataloader()
        assert isinstance(loader.sampler, DistributedSampler)
        for epoch in itertools.count():
            loader.sampler.set_epoch(epoch)
            for batch in loader:
                yield own.on_after_batch_transfer(batch, 0)

    def _progress(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield one batch for each step, with a progress bar if they take long."""
        yield from progress_bar(
            itertools.islice(batches, self.steps),
            desc="training a classifier to guide",
            total=self.steps,
            leave=False,
            delay=QUIET_SECONDS,
        )
