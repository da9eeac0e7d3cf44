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
def test_a_late_error_is_one_line_with_the_reason_and_what_is_kept(error, message):
    with pytest.raises(ValueError, match=f"^{message}$") as raised, keeping("the arrays are kept"):
        raise error
    assert raised.value.__cause__ is error


def test_signals_are_let_through():
    with pytest.raises(KeyboardInterrupt), keeping("nothing"):
        raise KeyboardInterrupt
