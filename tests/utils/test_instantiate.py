import pytest
from omegaconf import OmegaConf

from guided_diffusion.utils.instantiate import build


@pytest.mark.parametrize("convert", [dict, OmegaConf.create])
@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": "guided_diffusion.guidance.Clip", "bound": -1}, "bound must be positive, got -1"),
        ({"_target_": "guided_diffusion.guidance.Clip", "buond": 1}, "unexpected keyword argument 'buond'"),
        ({"_target_": "guided_diffusion.guidance.Clipp"}, "Clipp"),
        ({"_target_": "guided_defusion.guidance.Clip"}, "guided_defusion"),
        (
            {"_target_": "builtins.dict", "first": {"_target_": "guided_diffusion.guidance.Clip", "bound": -1}},
            "^first: bound must be positive, got -1$",
        ),
        (
            {"_target_": "builtins.dict", "f": {"_target_": "torch.optim.SGD", "_partial_": True, "rl": 1}},
            "^f: got an unexpected keyword argument 'rl'$",
        ),
        ({"bound": 1}, "has no _target_: is it misspelt"),
    ],
)
def test_the_error_for_what_can_not_be_built_is_one_line_with_the_key_and_the_reason(node, message, convert):
    with pytest.raises(ValueError, match=message) as error:
        build(convert(node))
    assert "\n" not in str(error.value)


def test_arguments_are_passed_as_plain_lists_and_dicts():
    built = build(OmegaConf.create({"_target_": "builtins.dict", "a": [1, 2], "b": {"c": [3]}}))
    assert built == {"a": [1, 2], "b": {"c": [3]}}
    assert type(built["a"]) is list
    assert type(built["b"]) is dict


def test_more_arguments_can_be_added_to_those_of_the_node():
    assert build({"_target_": "builtins.dict", "a": 1}, b=2) == {"a": 1, "b": 2}
