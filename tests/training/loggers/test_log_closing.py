import pytest
from pytorch_lightning.loggers import CSVLogger

from guided_diffusion.training.loggers import closing_loggers


class Table(CSVLogger):
    status = None

    def finalize(self, status):
        self.status = status


def test_loggers_are_closed_when_the_block_ends(wandb_to_fake_run, tmp_path):
    table = Table(tmp_path)
    with closing_loggers([table, wandb_to_fake_run]):
        assert table.status is None
    assert table.status == "success"
    assert wandb_to_fake_run.experiment.exit_codes == [0]


def test_loggers_are_closed_as_failed_when_the_block_raises(wandb_to_fake_run, tmp_path):
    table = Table(tmp_path)
    with pytest.raises(KeyError), closing_loggers([table, wandb_to_fake_run]):
        raise KeyError
    assert table.status == "failed"
    assert wandb_to_fake_run.experiment.exit_codes == [1]
