import torch

from guided_diffusion.cli import notebook


def test_compose_returns_the_config_of_the_program():
    config = notebook.compose("trainer.max_steps=7", "data=fake")
    assert config.trainer.max_steps == 7
    assert config.data._target_ == "guided_diffusion.data.Fake"
    assert "checkpoint" in notebook.compose(program="sample")


def test_train_returns_a_model_prints_nothing_and_leaves_no_files(tiny, tmp_path, monkeypatch, capfd, recwarn):
    monkeypatch.chdir(tmp_path)
    overrides = [override for override in tiny if not override.startswith("callbacks.accuracy")]
    model = notebook.train(*overrides)
    x_t, t = torch.randn(2, *model.shape), torch.full((2,), 0.5)
    assert model.denoiser(x_t, t, torch.tensor([0, 1])).x0.shape == x_t.shape
    assert capfd.readouterr() == ("", "")
    assert not list(recwarn)
    assert not list(tmp_path.iterdir())
