import io
import sys
import threading
from dataclasses import replace

import pytest
import torch
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader
from tqdm import tqdm

from guided_diffusion.evaluation.chunks import Chunks, EvaluationProgress, draw, sampling_lock, saturation
from guided_diffusion.evaluation.plan import Plan
from guided_diffusion.guidance import ClassifierFree, Clip, NoThreshold
from guided_diffusion.recipe import ImageToImage, Recipe
from guided_diffusion.samplers import Sampler

pytestmark = pytest.mark.one_schedule
RECIPE = Recipe(ClassifierFree(), Clip(), Sampler(steps=3), batch_size=4)
PLAN = Plan(scales=[0.0, 1.0, 3.0], num_samples=2, num_classes=3, shape=(2,), batch_size=4, seed=7)


@pytest.fixture
def chunks(exact, tmp_path):
    def made(recipe=RECIPE, folder="chunks"):
        return Chunks(exact, recipe, PLAN, tmp_path / folder)

    return made


@pytest.fixture
def trainer():
    """A function that makes a trainer on the CPU with these callbacks."""

    def trainer(*callbacks):
        bars = bool(callbacks)
        return Trainer(
            accelerator="cpu",
            callbacks=list(callbacks),
            logger=False,
            enable_progress_bar=bars,
            enable_model_summary=False,
        )

    return trainer


@pytest.fixture
def sample(trainer):
    """A function that draws all missing chunks and returns the samples of each scale."""

    def sample(chunks):
        draw(trainer(), chunks)
        return chunks.collect([1.0] * 3)[0]

    return sample


def test_samples_are_those_of_a_sweep_from_the_same_noise(chunks, sample, exact):
    expected = RECIPE.sweep(exact, PLAN.labels, (2,), PLAN.scales, seed=7)
    for found, samples in zip(sample(chunks()), expected, strict=True):
        torch.testing.assert_close(found.samples, samples, rtol=0, atol=1e-5)
        assert torch.equal(found.labels, PLAN.labels)


def test_a_resumed_evaluation_keeps_its_chunks_and_draws_the_same_bits(chunks, sample, trainer, capsys):
    whole, interrupted = sample(chunks(folder="whole")), chunks()
    trainer().predict(interrupted, DataLoader([0, 3]), return_predictions=False)
    assert interrupted.missing() == [1, 2, 4]
    files = {path: path.stat().st_mtime_ns for path in interrupted.folder.iterdir()}
    resumed = sample(interrupted)
    assert "2 of 5 chunks of samples are there from before" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in files} == files
    for one, other in zip(whole, resumed, strict=True):
        assert torch.equal(one.samples, other.samples)
        assert torch.equal(one.saturation, other.saturation)


def test_saturation_is_measured_before_the_threshold(chunks, sample):
    recipe = replace(RECIPE, threshold=Clip(0.5))
    clipped = sample(chunks(recipe))
    assert clipped[2].samples.abs().max() <= 0.5
    assert clipped[2].saturation.max() > 0
    free = sample(chunks(replace(recipe, threshold=NoThreshold()), folder="free"))
    torch.testing.assert_close(free[2].saturation, saturation(free[2].samples))


def test_saturation_is_the_share_of_numbers_outside_the_range():
    x0 = torch.tensor([[0.0, 1.0, -1.0, 0.5], [1.5, -2.0, 0.0, 0.0]])
    assert saturation(x0).tolist() == [0.0, 0.5]


def test_the_seconds_of_a_chunk_are_divided_by_the_cost_of_its_samples(chunks, sample):
    made = chunks()
    sample(made)
    for path in made.folder.iterdir():
        torch.save(torch.load(path, weights_only=True) | {"seconds": 8.0}, path)
    _, seconds = made.collect([1.0, 3.0, 1.0])  # the second chunk has two samples of scale 0 and two of scale 1
    assert seconds == pytest.approx([8 + 2, 6 + 8, 8 + 8])


def test_a_damaged_chunk_is_named_with_what_to_do(chunks, sample):
    made = chunks()
    sample(made)
    (made.folder / "chunk_00002.pt").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"chunk_00002\.pt is damaged, .*: delete it to draw its samples again"):
        made.collect([1.0] * 3)


def test_the_cost_of_a_chunk_is_that_of_its_samples(chunks):
    made = chunks()
    made.costs = [1.0, 1.0, 2.0]
    assert [made.cost(chunk) for chunk in range(5)] == [4, 4, 4, 8, 4]


def test_the_progress_bar_counts_the_evaluations_of_missing_chunks(chunks, trainer, monkeypatch):
    made, shown = chunks(), io.StringIO()
    trainer().predict(made, DataLoader([0]), return_predictions=False)
    made.costs = [1.0, 1.0, 2.0]
    monkeypatch.setattr(sys, "stderr", shown)
    draw(trainer(EvaluationProgress()), made)
    last = shown.getvalue().split("\r")[-1]
    assert "sampling: 100%" in last
    assert "20.0/20.0" in last


def test_the_progress_bar_moves_with_every_step_of_a_chunk(chunks, trainer, monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    eager = {"mininterval": 0, "miniters": 1}
    monkeypatch.setattr("guided_diffusion.utils.progress.tqdm", lambda *a, **settings: tqdm(*a, **settings | eager))
    made = chunks(replace(RECIPE, sampler=Sampler(steps=4)))
    draw(trainer(EvaluationProgress()), made)
    for evaluations in ("1.00/18.0", "2.00/18.0", "3.00/18.0", "4.00/18.0", "18.0/18.0"):
        assert evaluations in shown.getvalue()


def test_chunks_start_from_the_rows_of_their_samples(chunks, sample, exact):
    given = torch.linspace(-1, 1, 12).reshape(6, 2)
    made = chunks()
    made.start = ImageToImage(given, 0.3)
    expected = replace(RECIPE, guidance=ClassifierFree(1.0)).sample(
        exact, PLAN.labels, (2,), seed=7, start=ImageToImage(given, 0.3)
    )
    torch.testing.assert_close(sample(made)[1].samples, expected, rtol=0, atol=1e-5)


def test_a_second_evaluation_of_the_same_samples_waits_for_the_first(tmp_path, monkeypatch):
    waiting, order = threading.Event(), []

    def second():
        with sampling_lock(tmp_path / "samples" / "same"):
            order.append("second")

    def note(*words, **options):
        assert words == ("waiting: another evaluation is drawing the same samples",)
        waiting.set()

    monkeypatch.setattr("builtins.print", note)
    other = threading.Thread(target=second, daemon=True)
    with sampling_lock(tmp_path / "samples" / "same"):
        other.start()
        assert waiting.wait(timeout=30)
        order.append("first")
    other.join(timeout=30)
    assert order == ["first", "second"]
    assert list((tmp_path / "samples").iterdir()) == []
