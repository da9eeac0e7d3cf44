"""Exact resume: an interrupted training continues and ends as if it had never stopped.

- ``find_run``: the run and the checkpoint from which a training starts.
- ``fingerprint``: whether two configs describe the same training.
- ``sweep_reuse``: training once per distinct config of a sweep.
- ``loop_state``: the exact step in a checkpoint, and the loop that continues from it.
- ``last_checkpoint``: the callback that saves ``last.ckpt``.
- ``checkpoint_io``: writing checkpoints so that no interruption leaves half of one.
- ``preemption``: stopping at Ctrl-C, SIGTERM or Slurm's SIGUSR1.
"""
