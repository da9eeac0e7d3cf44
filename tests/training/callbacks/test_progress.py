import re

import pytest
from pytorch_lightning import Callback

from guided_diffusion.training.callbacks import LastCheckpoint, StepProgress


def test_one_bar_counts_the_steps_of_all_epochs(fit, capsys):
    fit("data.num_train=64", callbacks=[StepProgress(every_n_steps=1)])  # two steps in an epoch
    err = capsys.readouterr().err
    assert re.search(r"training: 100%\|.*\| 4/4 .*loss=\d", err)
    assert "Epoch" not in err


@pytest.mark.parametrize(("every_n_steps", "shown"), [(2, [0, 2, 2, 4, 5]), (10, [0, 0, 0, 0, 5])])
def test_it_is_refreshed_at_the_interval_and_at_the_end(every_n_steps, shown, fit):
    progress = StepProgress(every_n_steps)
    seen = []

    class Look(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append(progress._bar.n)

    fit("trainer.max_steps=5", callbacks=[progress, Look()])
    assert seen == shown


def test_it_continues_at_the_step_of_a_resumed_training(fit, tmp_path, capsys):
    last = LastCheckpoint(str(tmp_path))
    fit("data.num_train=64", "trainer.max_steps=2", "module.lr_scheduler.total_steps=4", callbacks=[last])
    starts = []

    class Look(Callback):
        def on_train_start(self, trainer, pl_module):
            starts.append(progress._bar.n)

    progress = StepProgress()
    fit("data.num_train=64", callbacks=[progress, Look()], ckpt_path=last.path)
    assert starts == [2]
    assert "4/4" in capsys.readouterr().err


def test_a_disabled_bar_shows_nothing(fit, capsys):
    progress = StepProgress()
    progress.disable()
    fit(callbacks=[progress])
    assert "training" not in capsys.readouterr().err


def test_printed_text_goes_to_stdout(capsys):
    StepProgress().print("a", 1, sep="-")
    assert capsys.readouterr().out == "a-1\n"
