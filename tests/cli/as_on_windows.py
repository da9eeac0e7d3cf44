"""Runs a program without what Windows lacks: ``fcntl``, most signals, and folders that can be opened or locked.

Started as ``python as_on_windows.py MODULE ARGUMENTS...``. Libraries that rightly use these things on this system are
imported before they are taken away; ``--help`` must not need them.
"""

import importlib.abc
import os
import runpy
import shutil
import signal
import sys
from pathlib import Path

HIDDEN = {"fcntl", "grp", "pwd", "resource", "termios"}
SIGNALS = ("SIGALRM", "SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2")


class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def take_away():
    for name in HIDDEN:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, Hide())
    for name in SIGNALS:
        delattr(signal, name)
    for name in ("fork", "getpgid", "killpg", "getuid"):
        delattr(os, name)
    signal.valid_signals = lambda: {signal.SIGINT, signal.SIGTERM, signal.SIGABRT, signal.SIGFPE, signal.SIGILL}
    shutil._use_fd_functions = False  # as on Windows: rmtree goes by paths
    opened = os.open

    def no_folders(path, flags, *arguments, **settings):
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *arguments, **settings)

    os.open = no_folders


if __name__ == "__main__":
    module, *arguments = sys.argv[1:]
    if "--help" not in arguments:
        import matplotlib.pyplot  # noqa: F401
        import pytorch_lightning
        import torchvision  # noqa: F401
        import wandb  # noqa: F401

        pytorch_lightning.trainer.connectors.signal_connector._IS_WINDOWS = True
    take_away()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
