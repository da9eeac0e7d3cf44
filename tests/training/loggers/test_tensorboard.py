import pytest
from lightning_fabric.loggers import tensorboard as fabric_tensorboard

from guided_diffusion.utils.instantiate import build


def test_without_tensorboard_the_error_says_what_to_install(compose, tmp_path, monkeypatch):
    for name in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
        monkeypatch.setattr(fabric_tensorboard, name, False)
    logger = compose("logger=tensorboard", output_dir=tmp_path).logger.tensorboard
    with pytest.raises(
        ValueError, match=r'logger.tensorboard: .* pip install "guided-diffusion-lightning\[tensorboard\]"'
    ):
        build(logger)
