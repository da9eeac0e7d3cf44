"""Exact resume: an interrupted training continues and ends as if it had never stopped.

- ``find_run``: the run and the checkpoint from which a training starts.
- ``run_files``: the config and the checkpoints in the folder of a run.
- ``hints``: how other runs differ, if there is none to continue.
- ``fingerprint``: whether two configs describe the same training.
- ``sweep_reuse``: training once per distinct config of a sweep.
- ``loop_state``: the exact step in a checkpoint, and the loop that continues from it.
- ``last_checkpoint``: the callback that saves ``last.ckpt``.
- ``checkpoint_io``: writing checkpoints so that no interruption leaves half of one.
- ``preemption``: stopping at Ctrl-C, SIGTERM, SIGHUP or Slurm's SIGUSR1.
- ``early_end``: stopping after ``trainer.max_time``, and the note that a training leaves if it stops before its end.
- ``keep_aside``: keeping what an earlier run left in the folder of a new one.
- ``train_longer``: continuing from a checkpoint with more steps or other settings of the optimizer and the devices.
"""
