"""Every benchmark in its smallest mode."""

import json

import pytest

pytestmark = pytest.mark.slow


def test_ceiling_measures_what_a_network_reaches(benchmark_program, tmp_path):
    path = tmp_path / "ceiling.json"
    small = "--network", "unet_8", "--batch-size", "2", "--rounds", "2", "--size", "64", "--device", "cpu"
    printed = benchmark_program("ceiling", *small, "--json", str(path))
    found = json.loads(path.read_text())
    names = [one["name"] for one in found["rates"]]
    assert names[:2] == ["matrix products, float32", "matrix products, bfloat16"]
    assert names[-2:] == ["a training step", "2 sampling steps"]
    assert found["rates"][1]["share"] == 1
    assert all(one["gflop"] > 0 and 0 < one["median"] <= one["best"] for one in found["rates"])
    assert all(name in printed for name in names)


def test_ceiling_refuses_a_batch_of_none(benchmark_program):
    assert "must be at least 1" in benchmark_program("ceiling", "--batch-size", "0", status=2)


def test_throughput_prints_a_row_for_every_network(benchmark_program):
    fewest = "--batch-size", "2", "--repeats", "1", "--sample-repeats", "1", "--device", "cpu"
    printed = benchmark_program("throughput", "--networks", "unet_8", "unet_28_fast", *fewest)
    assert [line.split()[0] for line in printed.splitlines()[-2:]] == ["unet_8", "unet_28_fast"]


def test_the_pairs_against_diffusers_have_equal_numbers_of_parameters(benchmark_program):
    pytest.importorskip("diffusers")
    printed = benchmark_program("against_diffusers", "--batch-size", "2", "--turns", "1", "--device", "cpu")
    counts = [float(line.split()[1]) for line in printed.splitlines() if "M parameters" in line]
    assert len(counts) == 6
    for ours, theirs in zip(counts[::2], counts[1::2], strict=True):
        assert ours == pytest.approx(theirs, rel=0.02)


def test_time_to_quality_goes_on_where_it_stopped(benchmark_program, tmp_path):
    pytest.importorskip("diffusers")
    path, figure = tmp_path / "results.json", tmp_path / "figure.png"
    arguments = "--minutes", "0.005", "--samples", "30", "--peer-steps", "2", "--results", str(path)
    tiny = "data=fake", "data.image_size=28", "judge.steps=2", "judge.width=8", "network.width=8", "guide.steps=2"
    first = benchmark_program("time_to_quality", "--contestants", "ours", *arguments, "--overrides", *tiny)
    assert "ours, guided_mnist" in first
    before = json.loads(path.read_text())
    names = "--contestants", "ours", "ours_cfg", "diffusers"
    second = benchmark_program("time_to_quality", *names, *arguments, "--overrides", *tiny)
    after = json.loads(path.read_text())
    assert after["runs"][0] == before["runs"][0]
    assert [run["contestant"] for run in after["runs"]] == ["ours", "ours_cfg", "diffusers"]
    assert "diffusers' example" in second
    drawn = benchmark_program("time_to_quality", "--results", str(path), "--plot", str(figure))
    assert "ours, cfg_mnist" in drawn
    assert figure.is_file()
    refused = benchmark_program("time_to_quality", *names, "--samples", "40", "--results", str(path), status=1)
    assert refused.strip().count("\n") == 0
    assert "choose another --results" in refused
