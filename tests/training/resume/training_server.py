"""Trains in forks of one warm process, and kills them: ``python training_server.py`` with one JSON job on each line.

A job has ``folder``, the ``arguments`` of the program, and maybe ``signal`` with ``at``: a point of ``POINTS`` and
the step. The answer is a line of JSON with the exit ``status`` and what it printed.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path

import torch

from guided_diffusion import train
from guided_diffusion.training.callbacks import Resumable
from guided_diffusion.training.loggers.csv import MetricsTable
from guided_diffusion.training.modules import DiffusionModule
from guided_diffusion.training.resume import checkpoint_io

torch.set_num_threads(1)


def before(owner, name, at, sign):
    """Die before this method runs, at this step; ``self`` or the trainer knows the step."""
    method = getattr(owner, name)

    def dying(self, *arguments):
        trainer = getattr(self, "trainer", None) or arguments[0]
        if trainer.global_step == at:
            os.kill(os.getpid(), sign)
        return method(self, *arguments)

    setattr(owner, name, dying)


def amid_checkpoint(at, sign):
    save = torch.save

    def half(checkpoint, path):
        save(checkpoint, path)
        if checkpoint["global_step"] == at:
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), sign)

    checkpoint_io.torch.save = half


def before_renaming(at, sign):
    save = torch.save

    def whole(checkpoint, path):
        save(checkpoint, path)
        if checkpoint["global_step"] == at:
            os.kill(os.getpid(), sign)

    checkpoint_io.torch.save = whole


def amid_table(at, sign):
    def half(self):
        with Path(self.metrics_file_path).open("a") as file:
            file.write("0,")
        os.kill(os.getpid(), sign)

    save = MetricsTable.save
    MetricsTable.save = lambda self: half(self) if self.metrics and self.metrics[-1]["step"] >= at else save(self)


def moment(at, sign):
    """So many seconds after the first step that begins at this one or later, in whatever is done then."""
    step, seconds = at
    begin, timer = Resumable.on_train_batch_start, threading.Timer(seconds, os.kill, (os.getpid(), sign))

    def starting(self, trainer, *arguments):
        if trainer.global_step >= step and not timer.ident:  # once: more signals may come when nothing handles them
            timer.start()
        return begin(self, trainer, *arguments)

    Resumable.on_train_batch_start = starting


POINTS = {
    "step": lambda at, sign: before(Resumable, "on_train_batch_start", at, sign),
    "step end": lambda at, sign: before(Resumable, "on_train_batch_end", at, sign),
    "validation": lambda at, sign: before(DiffusionModule, "validation_step", at, sign),
    "validation end": lambda at, sign: before(DiffusionModule, "on_validation_epoch_end", at, sign),
    "end": lambda at, sign: before(Resumable, "on_train_end", at, sign),
    "checkpoint": amid_checkpoint,
    "renaming": before_renaming,
    "table": amid_table,
    "moment": moment,
}


def child(job):
    os.chdir(job["folder"])
    printed = os.open("printed.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(printed, descriptor)
    sys.argv = ["train.py", *job["arguments"]]
    if "at" in job:
        point, at = job["at"]
        POINTS[point](at, job["signal"])
    status = 0
    try:
        train.main()
    except SystemExit as error:
        status = int(error.code or 0)
    except BaseException as error:
        print(repr(error), flush=True)
        status = 70
    sys.stdout.flush()
    os._exit(status)


def serve(job):
    pid = os.fork()
    if pid == 0:
        child(job)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {"status": status, "printed": Path(job["folder"], "printed.txt").read_text()}


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for line in sys.stdin:
        print(json.dumps(serve(json.loads(line))), flush=True)
