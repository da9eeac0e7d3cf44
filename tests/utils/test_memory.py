import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from guided_diffusion.utils.memory import SETTINGS, keep_freed_memory

FAULTS = """
import resource, sys
from guided_diffusion.utils.memory import keep_freed_memory
if "keep" in sys.argv:
    keep_freed_memory()
text = b"x" * 20_000_000
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    del text
    text = b"x" * 20_000_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*arguments, **environment):
    """Of pages, where 20 MB are taken and freed ten times."""
    own = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    command = [sys.executable, "-c", FAULTS, *arguments]
    done = subprocess.run(command, env=own | environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


def huge_pages():
    """Whether the system gives pages so large that faults are few in any case."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return setting.is_file() and "[always]" in setting.read_text()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc" or huge_pages(), reason="not glibc, or huge pages")
def test_freed_memory_is_taken_again_without_a_fault_for_each_page():
    assert faults("keep") < faults() / 10


@pytest.fixture
def asked(monkeypatch):
    """``asked(taken)`` is what glibc is asked for where no user has settings, and takes or not."""

    def called(taken):
        calls = []
        library = SimpleNamespace(mallopt=lambda *arguments: calls.append(arguments) or taken)
        monkeypatch.setattr("guided_diffusion.utils.memory.ctypes.CDLL", lambda name: library)
        keep_freed_memory()
        return calls

    monkeypatch.setattr("guided_diffusion.utils.memory.platform.libc_ver", lambda: ("glibc", "2.36"))
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    return called


@pytest.mark.parametrize("setting", [None, *SETTINGS])
def test_settings_of_the_user_stay(setting, asked, monkeypatch):
    if setting is not None:
        monkeypatch.setenv(setting, "1")
    assert len(asked(taken=1)) == (2 if setting is None else 0)


def test_a_library_that_takes_no_threshold_keeps_the_one_that_adapts(asked):
    """To set the other threshold alone would freeze the first at its smallest."""
    assert {parameter for parameter, _ in asked(taken=0)} == {-3}
