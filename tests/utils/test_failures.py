import pytest

from guided_diffusion.utils.failures import keeping


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("no such scale"), "no such scale; the arrays are kept"),
        (TypeError("Invalid\n shape"), "TypeError: Invalid shape; the arrays are kept"),
        (MemoryError(), "MemoryError: ; the arrays are kept"),
    ],
)
def test_an_error_is_reported_on_one_line_with_what_is_kept(error, message):
    with pytest.raises(ValueError, match=f"^{message}$") as raised, keeping("the arrays are kept"):
        raise error
    assert raised.value.__cause__ is error


def test_ctrl_c_is_not_turned_into_an_error():
    with pytest.raises(KeyboardInterrupt), keeping("nothing"):
        raise KeyboardInterrupt
