import pytest

from guided_diffusion.utils.precision import check_precision


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "transformer-engine", "half", 8])
def test_a_precision_in_which_trainings_go_wrong_is_refused(precision):
    message = f"^trainer.precision must be 32-true, bf16-mixed, 16-mixed or 64-true, got {precision}$"
    with pytest.raises(ValueError, match=message):
        check_precision(precision)


@pytest.mark.parametrize("precision", [None, 32, "32-true", "bf16", "bf16-mixed", "16-mixed", 64, "64-true"])
def test_a_precision_that_works_is_accepted(precision):
    check_precision(precision)
