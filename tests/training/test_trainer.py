"""Strategies for several processes, and the checks before they start."""

import pytest
import torch
from pytorch_lightning.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

import guided_diffusion
from guided_diffusion.networks.fast_unet import FastBlock
from guided_diffusion.networks.layers import ResidualBlock
from guided_diffusion.training.optimizers import MuonWithAdamW
from guided_diffusion.training.trainer import build_trainer, check_not_sharded, check_optimizer, check_strategy
from guided_diffusion.utils.instantiate import build


def without_init(kind):
    """A strategy of this class, without what its constructor asks of the machine."""
    return kind.__new__(kind)


@pytest.fixture
def callbacks(compose, tmp_path):
    """``callbacks(*overrides)`` are those of a training with these overrides."""
    return lambda *overrides: [build(node) for node in compose(*overrides, output_dir=tmp_path).callbacks.values()]


@pytest.fixture
def sharded(tiny):
    """The overrides of the tiny training without whole weights."""
    return [*(override for override in tiny if not override.startswith("callbacks.")), "callbacks=sharded"]


def test_fsdp_gathers_one_residual_block_at_a_time(compose):
    config = compose("strategy=fsdp", "callbacks=sharded")
    policy = build(config.trainer.strategy).kwargs["auto_wrap_policy"]
    assert isinstance(policy, ModuleWrapPolicy)
    assert policy._module_classes == {ResidualBlock, FastBlock}
    assert config.trainer.gradient_clip_val is None


@pytest.mark.parametrize(("strategy", "kind"), [("fsdp", FSDPStrategy), ("deepspeed", DeepSpeedStrategy)])
def test_a_sharded_strategy_accepts_the_sharded_callbacks(strategy, kind, callbacks):
    check_strategy(without_init(kind), callbacks(f"strategy={strategy}", "callbacks=sharded"), None)


@pytest.mark.parametrize(
    ("kind", "refused"),
    [(FSDPStrategy, "EMA, SampleGrid, MeasureByScale"), (DeepSpeedStrategy, "EMA, Last.*, SampleGrid, MeasureByS.*")],
)
def test_a_sharded_strategy_refuses_callbacks_that_need_whole_weights(kind, refused, callbacks):
    with pytest.raises(ValueError, match=f"shards the weights, and {refused} need them whole: add callbacks=sharded"):
        check_strategy(without_init(kind), callbacks(), None)


def test_ddp_accepts_every_callback_and_clipping(callbacks):
    check_strategy(without_init(DDPStrategy), callbacks(), 1.0)


def test_fsdp_refuses_clipping():
    with pytest.raises(ValueError, match=r"can't clip gradients by norm: add trainer\.gradient_clip_val=null"):
        check_strategy(without_init(FSDPStrategy), [], 1.0)


@pytest.mark.parametrize("kind", [FSDPStrategy, DeepSpeedStrategy])
def test_muon_needs_whole_matrices(kind):
    muon = MuonWithAdamW([{"params": [torch.nn.Parameter(torch.zeros(2, 3))], "muon": True}])
    with pytest.raises(ValueError, match="Muon needs whole matrices: add module/optimizer=adamw"):
        check_optimizer(without_init(kind), muon)
    check_optimizer(without_init(DDPStrategy), muon)
    check_optimizer(without_init(kind), torch.optim.AdamW(muon.param_groups[0]["params"]))


@pytest.mark.parametrize("kind", [FSDPStrategy, DeepSpeedStrategy])
def test_sampling_refuses_a_sharded_strategy(kind):
    with pytest.raises(ValueError, match="sampling needs them whole: add strategy=ddp"):
        check_not_sharded(without_init(kind))


def test_sampling_accepts_ddp():
    check_not_sharded(without_init(DDPStrategy))


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("fsdp", "GPU"),
        ("deepspeed", 'pip install "guided-diffusion-lightning[deepspeed]"'),
    ],
)
def test_a_strategy_that_cannot_work_here_says_so_on_one_line(strategy, message, call, sharded, tmp_path):
    called = call("train", *sharded, f"strategy={strategy}", "hydra.run.dir=here")
    assert called.status == 1
    (line,) = called.err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_sharded_callbacks_leave_the_same_checkpoints(call, sharded, tmp_path):
    assert call("train", *sharded, "hydra.run.dir=here").status == 0
    assert {path.name for path in (tmp_path / "here" / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    assert guided_diffusion.load(tmp_path / "here" / "checkpoints" / "last.ckpt").num_classes == 10


def test_one_process_needs_no_launcher(compose):
    assert build_trainer(compose("trainer.accelerator=cpu").trainer, []).strategy.launcher is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "torchrun needs a folder that all processes know: add hydra.run.dir=FOLDER"),
        pytest.param(
            ["-m", "seed=1"],
            "torchrun can't run a sweep: leave it out, strategy=ddp starts the processes of each job",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["single run", "sweep"],
)
def test_torchrun_is_refused_where_it_cannot_work(arguments, message, call, tiny, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    called = call("train", *tiny, *arguments)
    assert called.status == 1
    assert message in called.out + called.err
