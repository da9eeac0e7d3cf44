import math

import pytest
from contestants.base import Calibration
from quality_results import Measured, Results, Run, plot, read, start, table, verdicts


def run(contestant, minutes, accuracy, ratio):
    rows = [Measured(1.0, accuracy - 0.1, 0, 1, 2 * ratio, 2.0), Measured(2.0, accuracy, 0, 1, 6 * ratio, 2.0)]
    return Run(contestant, minutes, 60 * minutes, 100, 64, 1000, 5.0, rows)


@pytest.fixture
def results():
    runs = [
        run("diffusers", 4, 0.95, 1.5),
        run("ours", 2, 0.9, 2.0),
        run("diffusers", 1, 0.5, 8.0),
        run("teapearce", 1, 0.2, 9.0),
    ]
    return Results({"samples": 50}, {"ours": Calibration(0.1, 2.0, True, False)}, runs)


def test_results_are_the_same_after_a_file(results, tmp_path):
    results.save(tmp_path / "results.json")
    assert read(tmp_path / "results.json") == results
    assert start(tmp_path / "results.json", {"samples": 50}) == results


def test_results_of_other_settings_are_not_continued(results, tmp_path):
    results.save(tmp_path / "results.json")
    with pytest.raises(ValueError, match=r"has results with samples = 50, not 60: .*--results"):
        start(tmp_path / "results.json", {"samples": 60})


def test_a_file_of_something_else_is_named(tmp_path):
    path = tmp_path / "results.json"
    for content in ("[]", "{}", "not JSON"):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"results\.json holds no results of this benchmark"):
            read(path)


def test_the_table_has_the_best_scale_of_each_measure_and_the_shortest_budget_first(results):
    rows = table(results).splitlines()[2:]
    assert [row.split(" | ")[:2] for row in rows] == [
        ["| ours, guided_mnist", "2"],
        ["| diffusers' example", "1"],
        ["| diffusers' example", "4"],
        ["| TeaPearce's lesson", "1"],
    ]
    assert rows[0].endswith("| 2.00 | 100 x 64 | 90.00% (w = 2) | 2.00 (w = 1) |")


def test_a_peer_reaches_our_quality_between_two_budgets_or_not_at_all(results):
    first, second = verdicts(results)
    errors = math.exp(math.log(4) * (0.5 - 0.1) / (0.5 - 0.05)) / 2  # minutes from 1 to 4, over our 2
    ratios = math.exp(math.log(4) * (8 - 2) / (8 - 1.5)) / 2
    assert f"accuracy in {errors:.1f} times the time, distance in {ratios:.1f} times the time" in first
    assert second.startswith("TeaPearce's lesson") and "accuracy not within 1 minutes" in second


def test_without_our_two_minutes_there_is_no_verdict(results):
    results.runs.remove(results.find("ours", 2))
    assert verdicts(results) == []


def test_the_figure_is_written_into_a_new_folder(results, tmp_path):
    plot(results, tmp_path / "new" / "figure.png")
    assert (tmp_path / "new" / "figure.png").read_bytes().startswith(b"\x89PNG")
