"""Makes the modules beside the benchmarks importable, as they are for the scripts themselves."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))


@pytest.fixture
def benchmark_program(shell):
    """Return a function that runs a script of the folder and returns what it printed."""

    def run(name, *arguments, status=0):
        done = shell(str(BENCHMARKS / f"{name}.py"), *arguments)
        assert done.returncode == status, done.stderr
        return done.stdout if status == 0 else done.stderr

    return run
