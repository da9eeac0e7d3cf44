import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from guided_diffusion.cli.validation import check_config, check_node, describe, fits


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, int, True),
        (1.5, int, False),
        (True, int, False),
        (1, float, True),
        (True, float, False),
        (True, bool, True),
        (1, bool, False),
        (None, int | None, True),
        (True, int | None, False),
        ("a", Literal["a", "b"], True),
        ("c", Literal["a", "b"], False),
        ("a.ckpt", Path, True),
        ("a.ckpt", str, True),
        ([1, 2], list[int], True),
        ([1, True], list[int], False),
        ([1, "x"], Sequence[float], False),
        ([1, 2], tuple[int, ...], True),
        ([1, 2], tuple[float, float], True),
        ([1, 2, 3], tuple[float, float], False),
        ([1], int, False),
        ({"_target_": "builtins.dict"}, int, True),
        ({"a": 1}, float, False),
        ({"a": 1}, dict[str, Any], True),
        ("x", Any, True),
    ],
)
def test_values_are_compared_with_annotations(value, hint, expected):
    assert fits(value, hint) is expected


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int, "a whole number"),
        (float | None, "a number or null"),
        (Literal["a", "b"], "one of a, b"),
        (list[int], "a list, each a whole number"),
        (Path, "Path"),
    ],
)
def test_types_are_described_in_words(hint, words):
    assert describe(hint) == words


@dataclass
class Schema:
    seed: int = 0
    network: dict | None = None


UNET = "guided_diffusion.networks.UNet"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sede": 1}, "there is no sede to set; did you mean seed?"),
        ({"seed": ""}, "seed is empty"),
        ({"network": {"_target_": "no.such.Class"}}, "network._target_: no.such.Class can't be imported"),
        (
            {"network": {"_target_": UNET, "widht": 8}},
            "unexpected keyword argument 'widht'; did you mean width?",
        ),
        ({"network": {"_target_": UNET, "width": 1.5}}, "network.width must be a whole number, got 1.5"),
        ({"network": {"_target_": UNET, "dropout": float("nan")}}, "network.dropout must be finite, got nan"),
    ],
)
def test_a_config_that_does_not_fit_its_classes_is_refused(config, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_config(config, Schema)


def test_nodes_in_lists_are_checked_too():
    with pytest.raises(ValueError, match=re.escape("callbacks[0].decay must be a number, got 'much'")):
        check_node([{"_target_": "guided_diffusion.training.callbacks.EMA", "decay": "much"}], "callbacks")
