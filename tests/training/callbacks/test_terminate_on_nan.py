import pytest
import torch

from guided_diffusion.cli.train import train
from guided_diffusion.training.callbacks import LastCheckpoint, TerminateOnNonFinite


@pytest.fixture
def spoilt(monkeypatch):
    """``spoilt(step, factor)`` multiplies the loss by the factor from this step on."""
    from guided_diffusion.training.modules import DiffusionModule

    original = DiffusionModule.training_step

    def spoil(step, factor):
        def training_step(self, batch, batch_idx):
            loss = original(self, batch, batch_idx)
            return loss * factor if self.trainer.global_step + 1 >= step else loss

        monkeypatch.setattr(DiffusionModule, "training_step", training_step)

    return spoil


@pytest.fixture
def spoilt_gradient(monkeypatch):
    """``spoilt_gradient(step)`` makes the gradients, but not the loss, NaN from this step on."""
    from guided_diffusion.training.modules import DiffusionModule

    original = DiffusionModule.training_step

    def spoil(step):
        def training_step(self, batch, batch_idx):
            loss = original(self, batch, batch_idx)
            if self.trainer.global_step + 1 >= step:
                loss.register_hook(lambda gradient: gradient * torch.nan)
            return loss

        monkeypatch.setattr(DiffusionModule, "training_step", training_step)

    return spoil


@pytest.mark.parametrize("clipping", ["1.0", pytest.param("null", marks=pytest.mark.slow)])
def test_the_weights_are_the_same_without_it(clipping, fit):
    override = f"trainer.gradient_clip_val={clipping}"
    (_, with_it), (_, without) = fit(override, callbacks=[TerminateOnNonFinite(2)]), fit(override)
    for one, other in zip(with_it.parameters(), without.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("factor", "every_n_steps"),
    [(float("nan"), 1), pytest.param(float("inf"), 2, marks=pytest.mark.slow), (float("nan"), 50)],
)
def test_the_error_names_the_first_step_that_is_not_finite_and_its_batch(factor, every_n_steps, fit, spoilt):
    spoilt(3, factor)
    with pytest.raises(ValueError, match=rf"loss is {factor}, .* at step 3, batch .* = \(0, 0, 2, 0\): lower"):
        fit("trainer.max_steps=6", callbacks=[TerminateOnNonFinite(every_n_steps)])


@pytest.mark.parametrize("clipping", [pytest.param("1.0", marks=pytest.mark.slow), "null"])
def test_gradients_that_are_not_finite_are_noticed_under_a_finite_loss(clipping, fit, spoilt_gradient):
    spoilt_gradient(2)
    with pytest.raises(ValueError, match=r"loss is \d.*norm of the gradients nan at step 2"):
        fit(f"trainer.gradient_clip_val={clipping}", callbacks=[TerminateOnNonFinite(1)])


@pytest.mark.parametrize("spoil", [pytest.param("loss", marks=pytest.mark.slow), "gradient"])
def test_the_last_finite_checkpoint_stays(spoil, fit, spoilt, spoilt_gradient, tmp_path):
    spoilt(4, float("nan")) if spoil == "loss" else spoilt_gradient(4)
    with pytest.raises(ValueError, match="at step 4"):
        fit("trainer.max_steps=8", callbacks=[TerminateOnNonFinite(50), LastCheckpoint(str(tmp_path / "saved"), 1)])
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["last.ckpt"]
    saved = torch.load(tmp_path / "saved" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 3
    assert all(tensor.isfinite().all() for tensor in saved["state_dict"].values())


def test_weights_that_are_not_finite_are_not_saved(fit, tmp_path):
    trainer, module = fit(callbacks=[TerminateOnNonFinite()])
    with torch.no_grad():
        next(module.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="weights are not finite after step 4"):
        trainer.save_checkpoint(tmp_path / "bad.ckpt")
    assert not (tmp_path / "bad.ckpt").exists()


@pytest.mark.parametrize(
    ("precision", "clipping", "advice"),
    [
        pytest.param(
            "32-true", "1.0", "lower module.optimizer.lr, or lower trainer.gradient_clip_val;", marks=pytest.mark.slow
        ),
        ("32-true", "null", "lower module.optimizer.lr, or set trainer.gradient_clip_val;"),
        ("bf16-mixed", "1.0", "lower module.optimizer.lr, or use trainer.precision=32-true, or lower"),
    ],
)
def test_the_error_says_what_may_help(precision, clipping, advice, fit, spoilt):
    spoilt(1, float("nan"))
    with pytest.raises(ValueError, match=advice):
        fit(
            f"trainer.precision={precision}",
            f"trainer.gradient_clip_val={clipping}",
            callbacks=[TerminateOnNonFinite(1)],
        )


def test_every_training_has_it_and_ends_in_one_line(call, tiny, spoilt, tmp_path):
    spoilt(3, float("nan"))
    minimal = [override for override in tiny if not override.startswith("callbacks.")]
    called = call("train", *minimal, "callbacks=minimal", "callbacks.last.every_n_steps=1", "hydra.run.dir=here")
    assert called.status == 1
    assert called.err.splitlines()[-1].startswith("error: loss is nan")
    assert "Traceback" not in called.err
    saved = torch.load(tmp_path / "here" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 2


def test_an_interval_below_one_is_refused():
    with pytest.raises(ValueError, match="every_n_steps must be at least 1, got 0"):
        TerminateOnNonFinite(0)


@pytest.mark.slow
def test_an_out_of_memory_error_names_the_setting_to_halve(compose, tiny, monkeypatch, tmp_path):
    from guided_diffusion.recipe import Recipe
    from guided_diffusion.training.modules import DiffusionModule

    minimal = [override for override in tiny if not override.startswith("callbacks.")]

    def full(*arguments, **named):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    with monkeypatch.context() as patch:
        patch.setattr(DiffusionModule, "training_step", full)
        with pytest.raises(ValueError, match=r"^out of memory: halve data\.batch_size "):
            train(compose(*minimal, "callbacks=minimal", output_dir=tmp_path / "one"))
    monkeypatch.setattr(Recipe, "sweep", full)
    with pytest.raises(ValueError, match=r"^out of memory: halve recipe\.batch_size "):
        train(compose(*tiny, output_dir=tmp_path / "two"))
