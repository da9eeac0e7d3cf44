import pytest
from pytorch_lightning.loggers import WandbLogger


class FakeRun:
    """A W&B run that keeps what it is given."""

    def __init__(self):
        self.axes, self.points, self.exit_codes = {}, [], []

    def define_metric(self, name, step_metric=None):
        self.axes[name] = step_metric

    def log(self, values):
        self.points.append(values)

    def finish(self, exit_code):
        self.exit_codes.append(exit_code)


@pytest.fixture
def wandb_to_fake_run(tmp_path):
    """A W&B logger whose run is a fake."""
    return WandbLogger(save_dir=tmp_path, experiment=FakeRun())
