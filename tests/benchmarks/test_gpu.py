"""``benchmarks/gpu.py`` in its small mode, on a CPU."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
SCRIPT = str(Path(__file__).parents[2] / "benchmarks" / "gpu.py")
SMALL = ("--small", "--device", "cpu")


def test_every_part_leaves_its_result(shell, tmp_path):
    path = tmp_path / "gpu.json"
    run = shell(SCRIPT, "--out", str(path), "--minutes", "9", *SMALL)
    assert run.returncode == 0, run.stderr
    found = json.loads(path.read_text())["parts"]
    status = {name: part["status"] for name, part in found.items()}
    assert status == {
        "device": "done",
        "mnist": "done",
        "waits": "skipped: needs CUDA",
        "graphs": "skipped: needs CUDA",
        "strategies": "done",
        "cifar10": "done",
    }, found
    assert found["device"]["matrix_flops"]["torch.bfloat16"] > 0
    assert [step for step, _ in found["mnist"]["losses"]] == [0, 1, 2, 3]
    assert [row["scale"] for row in found["mnist"]["scales"]] == [0, 1, 1.5, 2, 3, 5, 8]
    assert all(row["accuracy"] >= 0 and row["fld"] > 0 and row["fld_floor"] > 0 for row in found["mnist"]["scales"])
    assert found["strategies"]["ddp"]["loads"] is True
    assert found["strategies"]["fsdp"] == {"skipped": "needs CUDA"}
    assert found["cifar10"]["data"] == "random images"
    assert 0 < found["cifar10"]["step, batch 8, eager"]["share_of_matrix_rate"] < 1
    assert len(found["cifar10"]["training"]["losses"]) == 4


def test_a_part_that_takes_too_long_is_ended_and_the_file_is_written(shell, tmp_path):
    path = tmp_path / "gpu.json"
    run = shell(SCRIPT, "--out", str(path), "--minutes", "0.3", "--parts", "mnist", "cifar10", *SMALL)
    assert run.returncode == 0, run.stderr
    found = json.loads(path.read_text())["parts"]
    assert found["mnist"]["status"] == "stopped after 13 seconds"
    assert 10 < found["mnist"]["seconds"] < 30
    assert found["cifar10"] == {"status": "skipped: no time is left"}


def test_a_part_that_fails_says_why(shell, tmp_path, monkeypatch):
    path, cache = tmp_path / "gpu.json", tmp_path / "cache"
    cache.write_text("a file in the place of the folder")
    monkeypatch.setenv("GUIDED_DIFFUSION_CACHE", str(cache))
    run = shell(SCRIPT, "--out", str(path), "--parts", "mnist", *SMALL)
    assert run.returncode == 0, run.stderr
    mnist = json.loads(path.read_text())["parts"]["mnist"]
    assert mnist["status"] == "failed"
    assert "GUIDED_DIFFUSION_CACHE" in mnist["error"]


def test_without_a_gpu_it_says_how_to_try_it(shell, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    run = shell(SCRIPT, "--out", str(tmp_path / "gpu.json"))
    assert run.returncode == 2
    assert "there is no CUDA device: on a CPU the script runs with --small --device cpu" in run.stderr
