import os
import platform
import subprocess
import sys

import pytest

from guided_diffusion.allocator import SETTINGS

FAULTS = """
import resource, sys
from guided_diffusion.allocator import keep_freed_memory
if "keep" in sys.argv:
    keep_freed_memory()
text = b"x" * 50_000_000
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    del text
    text = b"x" * 50_000_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*arguments, **environment):
    """Of pages, where 50 MB are taken and freed ten times."""
    own = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    command = [sys.executable, "-c", FAULTS, *arguments]
    done = subprocess.run(command, env=own | environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's settings")
def test_freed_memory_is_taken_again_without_a_fault_for_each_page_unless_the_user_has_settings():
    without = faults()
    assert faults("keep") < without / 10
    assert faults("keep", MALLOC_MMAP_THRESHOLD_="131072") > without / 2
