import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from guided_diffusion.utils.memory import SETTINGS, explain_out_of_memory, keep_freed_memory

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
    """The number of page faults while 20 MB are allocated and freed ten times."""
    own = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    command = [sys.executable, "-c", FAULTS, *arguments]
    done = subprocess.run(command, env=own | environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


def huge_pages():
    """Whether pages are so large that there are few faults in any case."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return setting.is_file() and "[always]" in setting.read_text()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc" or huge_pages(), reason="not glibc, or huge pages")
def test_freed_memory_is_reused_without_a_fault_for_each_page():
    assert faults("keep") < faults() / 10


@pytest.fixture
def requested(monkeypatch):
    """``requested(accepted)`` returns the calls of glibc's ``mallopt``, which accepts every value or none."""

    def called(accepted):
        calls = []
        library = SimpleNamespace(mallopt=lambda *arguments: calls.append(arguments) or accepted)
        monkeypatch.setattr("guided_diffusion.utils.memory.ctypes.CDLL", lambda name: library)
        keep_freed_memory()
        return calls

    monkeypatch.setattr("guided_diffusion.utils.memory.platform.libc_ver", lambda: ("glibc", "2.36"))
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    return called


@pytest.mark.parametrize("setting", SETTINGS)
def test_nothing_is_changed_where_the_user_has_set_the_allocator(setting, requested, monkeypatch):
    assert len(requested(accepted=1)) == 2
    monkeypatch.setenv(setting, "1")
    assert requested(accepted=1) == []


def test_if_one_threshold_is_rejected_the_other_is_left_to_adapt_as_well(requested):
    """To set only the other threshold would freeze the first at its smallest value."""
    assert {parameter for parameter, _ in requested(accepted=0)} == {-3}


def run_out_of_memory(error):
    with explain_out_of_memory("data.batch_size"):
        raise error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB\nmore"), "CUDA out of memory. Tried 2 GiB"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "DefaultCPUAllocator: can't allocate memory"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_an_error_for_lack_of_memory_names_the_setting_to_halve(error, message):
    with pytest.raises(ValueError, match=rf"^out of memory: halve data\.batch_size \({message}\)$"):
        run_out_of_memory(error)


def test_other_errors_are_left_as_they_are():
    with pytest.raises(RuntimeError, match="shapes differ"):
        run_out_of_memory(RuntimeError("shapes differ"))
