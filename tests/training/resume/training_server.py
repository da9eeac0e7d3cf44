"""A program that trains in forks of one process, and kills them: ``python training_server.py``, one JSON job a line.

A job has a ``folder``, the ``arguments`` of the program, and, to be killed, a ``signal`` and ``at``: a point of
``POINTS`` and a step. The answer is a line of JSON with the exit ``status`` and the text that was ``printed``.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import torch

from guided_diffusion import train
from guided_diffusion.training.callbacks import Resumable
from guided_diffusion.training.loggers.csv import MetricsTable
from guided_diffusion.training.modules import DiffusionModule
from guided_diffusion.training.resume import checkpoint_io
from guided_diffusion.training.resume.early_end import EarlyEnd

torch.set_num_threads(1)


def before(owner, name, at, sign, kill=os.kill):
    """Die before this method at this step; ``self`` or the first argument has the trainer."""
    method = getattr(owner, name)

    def dying(self, *arguments):
        trainer = getattr(self, "trainer", None) or arguments[0]
        if trainer.global_step == at:
            kill(os.getpid(), sign)
        return method(self, *arguments)

    setattr(owner, name, dying)


def group(at, sign):
    """Let another process send the signal to this process and its workers, as a terminal and Slurm do."""

    def kill_group(pid, sign):
        subprocess.run(["sh", "-c", f"kill -{int(sign)} -{pid}"], start_new_session=True, check=True)

    os.setpgrp()
    signal.alarm(100)  # the server's end does not reach this group
    before(Resumable, "on_train_batch_start", at, sign, kill_group)


def within_checkpoint(at, sign):
    save = torch.save

    def half(checkpoint, file):
        save(checkpoint, file)
        if checkpoint["global_step"] == at:
            file.truncate(file.tell() // 2)
            os.kill(os.getpid(), sign)

    checkpoint_io.torch.save = half


def before_renaming(at, sign):
    save = torch.save

    def whole(checkpoint, file):
        save(checkpoint, file)
        if checkpoint["global_step"] == at:
            file.flush()
            os.kill(os.getpid(), sign)

    checkpoint_io.torch.save = whole


def within_table(at, sign):
    def half(self):
        with Path(self.metrics_file_path).open("a") as file:
            file.write("0,")
        os.kill(os.getpid(), sign)

    save = MetricsTable.save
    MetricsTable.save = lambda self: half(self) if self.metrics and self.metrics[-1]["step"] >= at else save(self)


def moment(at, sign):
    """Die some seconds after the start of this step, or of the first one after it, whatever is done then."""
    step, seconds = at
    begin, timer = Resumable.on_train_batch_start, threading.Timer(seconds, os.kill, (os.getpid(), sign))

    def starting(self, trainer, *arguments):
        if trainer.global_step >= step and not timer.ident:  # once: a second signal could come when nothing handles it
            timer.start()
        return begin(self, trainer, *arguments)

    Resumable.on_train_batch_start = starting


def within_step(at, sign):
    """Die before a batch of this step, of the batches whose gradients are accumulated; the first is 1."""
    step, batch = at
    begin, begun = Resumable.on_train_batch_start, []

    def starting(self, trainer, *arguments):
        begun.append(trainer.global_step)
        if begun.count(step) == batch and begun[-1] == step:
            os.kill(os.getpid(), sign)
        return begin(self, trainer, *arguments)

    Resumable.on_train_batch_start = starting


def time_over(at, sign):
    """Let the time of ``trainer.max_time`` be over before this step."""
    begin = EarlyEnd.on_train_batch_start

    def starting(self, trainer, *arguments):
        if trainer.global_step == at:
            self.seconds = -1
        return begin(self, trainer, *arguments)

    EarlyEnd.on_train_batch_start = starting


POINTS = {
    "step": lambda at, sign: before(Resumable, "on_train_batch_start", at, sign),
    "step end": lambda at, sign: before(Resumable, "on_train_batch_end", at, sign),
    "validation": lambda at, sign: before(DiffusionModule, "validation_step", at, sign),
    "validation end": lambda at, sign: before(DiffusionModule, "on_validation_epoch_end", at, sign),
    "group": group,
    "end": lambda at, sign: before(Resumable, "on_train_end", at, sign),
    "checkpoint": within_checkpoint,
    "renaming": before_renaming,
    "table": within_table,
    "moment": moment,
    "within step": within_step,
    "time over": time_over,
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
    for name in (signal.SIGPIPE, signal.SIGHUP):  # both may be ignored where the tests run, as under nohup
        signal.signal(name, signal.SIG_DFL)
    for line in sys.stdin:
        print(json.dumps(serve(json.loads(line))), flush=True)
