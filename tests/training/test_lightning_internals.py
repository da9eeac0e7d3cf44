"""A version of Lightning with other internals is reported readably."""

import pytest
import pytorch_lightning

from guided_diffusion.training.lightning_internals import lightning_internals


@pytest.mark.parametrize("error", [ImportError("no _Name"), AttributeError("no _name"), KeyError("state")])
def test_a_missing_private_name_is_reported_with_the_version_and_what_works_meanwhile(error):
    message = rf"pytorch-lightning {pytorch_lightning.__version__} is not supported \(.*\): pip install .*, or use one"
    with pytest.raises(RuntimeError, match=message), lightning_internals("use one process"):
        raise error


def test_other_errors_pass_unchanged():
    with pytest.raises(ValueError, match="mine"), lightning_internals("use one process"):
        raise ValueError("mine")
