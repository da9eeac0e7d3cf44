import pytest
from pytorch_lightning import Callback

from guided_diffusion.training.callbacks import ImagesPerSecond, throughput


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(throughput, "perf_counter", clock)
    return clock


class Slow(Callback):
    """Step n takes n quarters of a second, and a validation an hour."""

    def __init__(self, clock):
        self.clock = clock
        self.logged = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.clock.now += 0.25 * (batch_idx + 1)

    def on_validation_start(self, trainer, pl_module):
        self.clock.now += 3600

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.logged.append(trainer.logged_metrics.get("train/images_per_second"))


@pytest.mark.parametrize(
    ("every_n_steps", "accumulated", "logged"),
    [
        (1, 1, [64, 32, 64 / 3, 16]),
        (2, 1, [None, 128 / 3, 128 / 3, 128 / 7]),
        (1, 2, [None, 128 / 3, 128 / 3, 128 / 7]),
    ],
)
def test_only_the_time_of_training_steps_counts(every_n_steps, accumulated, logged, fit, clock):
    slow = Slow(clock)
    measure = ImagesPerSecond(every_n_steps)
    steps = [f"trainer.max_steps={4 // accumulated}", f"trainer.accumulate_grad_batches={accumulated}"]
    fit(*steps, callbacks=[measure, slow])
    values = [value if value is None else value.item() for value in slow.logged]
    assert values == pytest.approx(logged)
