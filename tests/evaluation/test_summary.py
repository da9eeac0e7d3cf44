import math
from dataclasses import replace

import pytest

from guided_diffusion.evaluation.results import Interval
from guided_diffusion.evaluation.summary import (
    best_row,
    best_sentence,
    cross_check_sentences,
    inception_sentences,
    number,
    percent,
    shown,
)


def test_the_best_row_has_the_highest_or_the_lowest_value(fabricate):
    rows = fabricate([0.0, 1.0, 3.0]).rows
    assert best_row(rows, "accuracy", lowest=False) is rows[2]
    assert best_row(rows, "fld", lowest=True) is rows[0]


def test_rows_without_a_value_are_never_the_best(fabricate):
    assert best_row(fabricate([1.0, 2.0], nan=True).rows, "accuracy", lowest=False).scale == 1
    assert best_row(fabricate([2.0], nan=True).rows, "accuracy", lowest=False) is None


def test_a_sentence_gives_value_interval_and_scale(fabricate):
    row = fabricate().rows[2]
    sentence = "The best is 80.0 % (95 % interval 75.0 % to 82.0 %), at w = 3."
    assert best_sentence("The best", row, "accuracy", several=False) == sentence
    assert best_sentence("The best", row, "accuracy", several=True).endswith("at w = 3 (cfg, ddim, 25 steps).")
    assert best_sentence("It", None, "fld", several=False) == "It is not known: it was not measured at any scale."


def test_a_second_judge_is_quoted_with_its_ceiling(fabricate):
    results = fabricate()
    assert cross_check_sentences(results, several=False) == []
    first, *others = results.rows
    checked = replace(first, measured={**first.measured, "cross_accuracy": Interval(0.9, 0.8, 0.95)})
    results = replace(results, rows=[*others, checked], about=results.about | {"cross_check": None})
    quoted = (
        f"The best accuracy by the second judge is 90.0 % (95 % interval 80.0 % to 95.0 %), at w = {first.scale:g}."
    )
    assert cross_check_sentences(results, several=False) == [quoted]
    results = replace(results, about=results.about | {"cross_check": {"name": "LeNet", "ceiling": 0.99}})
    assert cross_check_sentences(results, several=False) == [quoted, "The ceiling of that judge, LeNet, is 99.0 %."]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (percent(0.1234), "12.3 %"),
        (number(0.12345), "0.123"),
        (percent(math.nan), "not known"),
        (number(math.nan), "not known"),
        (shown("off_curve", 0.5), "50.0 %"),
        (shown("fld", 0.5), "0.5"),
    ],
)
def test_numbers_are_written_short(text, expected):
    assert text == expected


def test_inception_distances_say_what_they_compare(fabricate, with_inception):
    results = fabricate()
    assert inception_sentences(results, several=False) == []
    found = replace(results, rows=[with_inception(row) for row in results.rows])
    assert inception_sentences(found, several=False) == [
        "Inception FID and KID compare 12 samples (ema weights) with the 10000 images of the test split; as many "
        "training images reach an FID of 2.5 and a KID of 0.00123.",
        "The lowest Inception FID is 10, at w = 0.",
    ]


def test_inception_distances_of_other_networks_and_weights_are_told_apart(fabricate, with_inception):
    first, second, third = fabricate().rows
    rows = [with_inception(first), with_inception(second, weights="raw", network="other"), third]
    sentences = inception_sentences(replace(fabricate(), rows=rows), several=False)
    assert ["(ema weights)" in sentences[0], "(raw weights)" in sentences[1]] == [True, True]
    assert sentences[2].startswith("The network's weights are not the published ones")


def test_a_missing_floor_of_inception_is_said(fabricate, with_inception):
    row = with_inception(fabricate().rows[0])
    row = replace(row, floors={**row.floors, "inception_fid": math.nan, "inception_kid": math.nan})
    sentences = inception_sentences(replace(fabricate(), rows=[row]), several=False)
    assert sentences[0].endswith("of the test split; there are not enough training images for a floor.")
