import os
import subprocess
import sys
from pathlib import Path

import pytest

import guided_diffusion
from guided_diffusion.checkpoints.loading import load, load_classifier

ROOT = Path(guided_diffusion.__file__).parents[1]


def test_importing_the_package_loads_no_library_and_leaves_the_environment_alone():
    code = (
        "import os, sys\n"
        "before = dict(os.environ)\n"
        "import guided_diffusion\n"
        "libraries = ['torch', 'numpy', 'hydra', 'omegaconf', 'pytorch_lightning', 'matplotlib']\n"
        "print([name for name in libraries if name in sys.modules], dict(os.environ) == before)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True) == "[] True\n"


@pytest.mark.parametrize("folder", ["utils", "cli"])
def test_the_folders_that_the_help_texts_need_import_nothing(folder):
    assert (ROOT / "guided_diffusion" / folder / "__init__.py").read_text() == ""


def test_the_package_offers_its_functions_for_trained_models():
    assert guided_diffusion.load is load
    assert guided_diffusion.load_classifier is load_classifier


def test_the_package_offers_the_module_for_notebooks():
    from guided_diffusion import notebook
    from guided_diffusion.cli.notebook import train

    assert notebook.train is train


def test_a_misspelt_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="lode"):
        _ = guided_diffusion.lode
