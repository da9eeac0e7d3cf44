"""Exact resume: an interrupted training continues and ends as if it had never stopped.

- ``find_run``: the run and the checkpoint from which a training starts.
- ``fingerprint``: the comparison of two configs: the same training or not.
- ``sweep_reuse``: training once per distinct config of a sweep.
- ``loop_state``: the exact step in a checkpoint, and the loop that continues from it.
- ``last_checkpoint``: the callback that saves ``last.ckpt``.
- ``checkpoint_io``: writing checkpoints so that no interruption leaves half of one.
- ``preemption``: the stop at Ctrl-C, SIGTERM and Slurm's SIGUSR1.
"""
