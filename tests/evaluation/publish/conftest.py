"""What an evaluation leaves in W&B, read back from the folder of an offline run with W&B's own tool."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest


@functools.cache
def inspect(folder, *options):
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", *options, str(folder)]
    read = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if read.returncode:
        pytest.skip("this version of wandb can't read an offline run back")
    return read.stdout


class OfflineRun:
    """A run that W&B recorded in a folder."""

    def __init__(self, folder):
        self.folder = folder

    def records(self, kind):
        every = map(json.loads, inspect(self.folder).splitlines())
        return [record[kind] for record in every if record["type"] == kind]

    @property
    def summary(self):
        return json.loads(inspect(self.folder, "--summary"))["summary"]

    @property
    def axes(self):
        """The axis of every metric that has one of its own."""
        return {metric["name"]: metric.get("step_metric") for metric in self.records("metric") if "name" in metric}

    def history(self, key):
        """The scales and values of a curve."""
        items = [record["item"] for record in self.records("history")]
        return [(item["guidance/scale"], item[key]) for item in items if key in item]

    def table(self, key):
        """The columns and rows of a table, from the file that W&B would send."""
        contents = [content for artifact in self.records("artifact") for content in artifact["manifest"]["contents"]]
        (path,) = [content["local_path"] for content in contents if content["path"] == f"{key}.table.json"]
        content = json.loads(Path(path).read_text())
        return content["columns"], content["data"]


@pytest.fixture(scope="session")
def offline_run():
    """Return the only W&B run in a folder."""

    def find(folder):
        (run,) = (folder / "wandb").glob("offline-run-*")
        return OfflineRun(run)

    return find
