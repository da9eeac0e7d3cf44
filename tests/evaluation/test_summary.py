import math

import pytest

from guided_diffusion.evaluation.summary import best_row, best_sentence, number, percent, shown


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
