"""Measure what guidance does to a trained model: what ``python -m guided_diffusion.evaluate`` does."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_only
from torch.utils.data import DataLoader

from guided_diffusion.checkpoints import TrainedDiffusion, check_guidance, load
from guided_diffusion.checks import check_label_dropout, check_recipe, check_scales, check_seed
from guided_diffusion.config import EvaluateConfig, build, chosen, use_recipe_of_training
from guided_diffusion.dashboards import finishing, log_results
from guided_diffusion.data import ImageDataModule
from guided_diffusion.evaluation import Chunks, EvaluationProgress, Plan, described, evaluations_per_sample, fingerprint
from guided_diffusion.files import cache_dir
from guided_diffusion.memory import naming_memory
from guided_diffusion.metrics import Judge
from guided_diffusion.metrics.measure import Measurement, Reference, Samples, measure
from guided_diffusion.programs import command
from guided_diffusion.record import write_record
from guided_diffusion.report import write_report
from guided_diffusion.results import Pictures, Result, Results, save
from guided_diffusion.sampling import Recipe
from guided_diffusion.signatures import check_config
from guided_diffusion.strategies import build_trainer, check_whole

SHOWN = 20
"""Samples in a strip, and of those the judge is least certain of."""


def evaluate(config: DictConfig, overrides: Sequence[str] = ()) -> Path:
    """Sample at every scale, measure, and write ``results.csv``, ``per_class.csv``, ``plots/`` and ``report.html``.

    Args:
        config: what to evaluate, from which checkpoint.
        overrides: what the command line says; where it is silent, samples are made as in the training.

    Raises:
        ValueError, FileNotFoundError: for a wrong config, checkpoint or data, before anything is sampled.
    """
    if config.checkpoint is None:
        raise ValueError("checkpoint is missing: add checkpoint=PATH, for instance outputs/.../checkpoints/last.ckpt")
    model = load(config.checkpoint, weights=config.weights)
    use_recipe_of_training(config, model.config, overrides)
    check_guidance(config.guidance, model.trait)
    check_config(cast(dict[str, Any], OmegaConf.to_container(config, resolve=True)), EvaluateConfig)
    check_seed(config.seed)
    recipe: Recipe = build(config.recipe)
    check_recipe(recipe, model.schedule)
    scales = chosen_scales(config, overrides, model.config)
    check_scales(scales)
    if not config.untaught_scales:
        check_label_dropout(model.label_dropout, recipe, scales, model.schedule, "scales")
    plan = Plan(scales, config.num_samples, model.num_classes, model.shape, recipe.batch_size, config.seed)
    data = model.data()
    data.split("test")
    judge_source = build(config.judge)
    trainer = build_trainer(config.trainer, [EvaluationProgress()])
    check_whole(trainer.strategy)

    folder = cache_dir() / "samples" / _fingerprint(config, plan)
    chunks = Chunks(model.denoiser, recipe, plan, folder)
    costs = [evaluations_per_sample(recipe.at(scale), model.schedule) for scale in plan.scales]
    with naming_memory("recipe.batch_size"):
        _sample(trainer, chunks, costs)
    output_dir = Path(config.output_dir)
    if trainer.is_global_zero:
        samples, seconds = chunks.collect(costs)
        judge = judge_source(data)
        rows = _rows(samples, seconds, costs, recipe, plan, judge, data)
        results = Results(rows, _about(config, model, judge, data))
        _write(config, results, output_dir, trainer.strategy.root_device.type)
        shutil.rmtree(folder)
    return output_dir


def chosen_scales(config: DictConfig, overrides: Sequence[str], trained: dict[str, Any]) -> list[float]:
    """``scales``; where they are not said, ``guidance.scale`` if that is; else those of the training."""
    if config.scales is not None:
        return list(config.scales)
    return [config.guidance.scale] if chosen(overrides, "guidance.scale") else list(trained["scales"])


def _fingerprint(config: DictConfig, plan: Plan) -> str:
    """Of all that decides what is sampled."""
    parts = {name: OmegaConf.to_container(config[name], resolve=True) for name in ("guidance", "threshold", "sampler")}
    classifier = config.guidance.get("classifier")
    files = [Path(config.checkpoint), *([Path(classifier)] if classifier else [])]
    return fingerprint(plan.plain(), parts, config.weights, config.trainer.precision, *files)


def _sample(trainer: Trainer, chunks: Chunks, costs: Sequence[float]) -> None:
    missing = chunks.missing()
    if len(missing) < len(chunks.plan):
        there = len(chunks.plan) - len(missing)
        rank_zero_only(print)(f"{there} of {len(chunks.plan)} chunks of samples are there from before")
    chunks.costs = costs
    if missing:
        trainer.predict(chunks, DataLoader(cast(Any, missing)), return_predictions=False)
    trainer.strategy.barrier()


def _rows(
    samples: Sequence[Samples],
    seconds: Sequence[float],
    costs: Sequence[float],
    recipe: Recipe,
    plan: Plan,
    judge: Judge,
    data: ImageDataModule,
) -> list[Result]:
    reference = Reference.of(data, judge, plan.per_scale, plan.seed)
    rows = []
    for scale, of_scale, taken, cost in zip(plan.scales, samples, seconds, costs, strict=True):
        found = measure(of_scale, reference, judge, plan.seed)
        extra = {} if found.cross_accuracy is None else {"cross_accuracy": found.cross_accuracy}
        rows.append(
            Result(
                described(recipe.guidance),
                scale,
                described(recipe.sampler.method),
                recipe.sampler.steps,
                plan.per_scale,
                {**found.measured, **extra},
                reference.floor,
                cost,
                taken,
                found.per_class,
                pictures(of_scale, found),
            )
        )
    return rows


def pictures(samples: Samples, found: Measurement) -> Pictures:
    """The first samples, the mean of each class, and those of whose label the judge is least certain."""
    num_classes = len(found.confusion)
    groups = [samples.images[samples.labels == label] for label in range(num_classes)]
    uncertain = found.probabilities.argsort()[:SHOWN]
    return Pictures(
        strip=samples.images[: max(1, SHOWN // num_classes) * num_classes][:SHOWN].numpy(),
        means=torch.stack([group.mean(0) for group in groups]).numpy(),
        uncertain=samples.images[uncertain].numpy(),
        uncertain_labels=samples.labels[uncertain].numpy(),
        uncertain_predictions=found.predictions[uncertain].numpy(),
        uncertain_probabilities=found.probabilities[uncertain].float().numpy(),
        confusion=found.confusion.numpy(),
    )


def _about(config: DictConfig, model: TrainedDiffusion, judge: Judge, data: ImageDataModule) -> dict[str, Any]:
    cross_check = judge.cross_check and {"name": judge.cross_check.name, "ceiling": judge.cross_check.ceiling}
    return {
        "data": data.name,
        "class_names": list(data.class_names),
        "checkpoint": str(Path(config.checkpoint).absolute()),
        "weights": config.weights,
        "seed": config.seed,
        "judge": judge.name,
        "judge_ceiling": judge.ceiling,
        "cross_check": cross_check,
        "training_name": model.config["name"],
    }


def _write(config: DictConfig, results: Results, output_dir: Path, device: str) -> None:
    output_dir.mkdir(parents=True, exist_ok=True)
    plain = OmegaConf.to_yaml(config, resolve=True)
    (output_dir / "config.yaml").write_text(plain)
    (output_dir / "command.txt").write_text(command() + "\n")
    write_record(output_dir, config.seed, device)
    save(results, output_dir)
    write_report(results, output_dir, plain, command())
    show(results)
    loggers = [build(node) for node in config.logger.values()]
    with finishing(loggers):
        for logger in loggers:
            logger.log_hyperparams(OmegaConf.to_container(config, resolve=True))
        log_results(loggers, results, output_dir)


def show(results: Results) -> None:
    """The table, in the shell: what people look at first, with its intervals."""
    about = results.about
    floor = results.rows[0].fld_floor
    print(f"\njudge {about['judge']}: {about['judge_ceiling']:.1%} on real test images; Fréchet floor {floor:.2f}")
    print(f"{'w':>6} {'accuracy':>20} {'fld':>22} {'density':>8} {'coverage':>9} {'saturated':>10} {'nfe':>5} {'s':>7}")
    for row in results.rows:
        value = row.measured
        accuracy, fld = value["accuracy"], value["fld"]
        print(
            f"{row.scale:6g} {accuracy.value:8.2%} [{accuracy.low:.1%}, {accuracy.high:.1%}]"
            f" {fld.value:8.2f} [{fld.low:.2f}, {fld.high:.2f}] {value['density'].value:8.3f}"
            f" {value['coverage'].value:9.3f} {value['saturation'].value:10.2%} {row.nfe:5g} {row.seconds:7.1f}"
        )
