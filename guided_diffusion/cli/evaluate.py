"""Measures what guidance does to a trained model: what ``python -m guided_diffusion.evaluate`` does."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger

from guided_diffusion.checkpoints.loading import TrainedDiffusion
from guided_diffusion.cli.checks import (
    check_effective_scale,
    check_judge_is_used,
    check_label_dropout,
    check_labels,
    check_output_folders,
    check_scales,
    check_space,
)
from guided_diffusion.cli.config import EvaluateConfig, is_overridden, plain
from guided_diffusion.cli.guide import with_guide
from guided_diffusion.cli.own_folder import check_own_folder
from guided_diffusion.cli.provenance import command, write_record
from guided_diffusion.cli.restore import prepare
from guided_diffusion.data import LabelledDataModule
from guided_diffusion.evaluation.chunks import Chunks, EvaluationProgress, draw, sampling_lock
from guided_diffusion.evaluation.cost import evaluations_per_sample
from guided_diffusion.evaluation.effective_scale import with_effective_scale
from guided_diffusion.evaluation.metrics.inception import load_inception
from guided_diffusion.evaluation.modalities import Examination, JudgeSource, modality
from guided_diffusion.evaluation.plan import Plan, sampling_fingerprint
from guided_diffusion.evaluation.proportions import EQUAL
from guided_diffusion.evaluation.publish import publish_results
from guided_diffusion.evaluation.report.page import write_report
from guided_diffusion.evaluation.results import Result, Results, describe_setting, save
from guided_diffusion.recipe import Recipe
from guided_diffusion.training.loggers.csv import CSVLogger
from guided_diffusion.training.loggers.log import closing_loggers
from guided_diffusion.training.trainer import build_trainer, check_not_sharded
from guided_diffusion.utils.distributed import rank_zero_print
from guided_diffusion.utils.failures import keeping
from guided_diffusion.utils.files import atomic_write, cache_dir
from guided_diffusion.utils.instantiate import build
from guided_diffusion.utils.memory import explain_out_of_memory

RESULTS = (
    *("results.csv", "results.json", "report.html", "metrics.csv", "intervals.csv", "per_class.csv"),
    *("pictures.npz", "plots/accuracy.png"),
)
"""Files that an evaluation writes, besides the records of every run."""


def run(config: DictConfig) -> None:
    """Evaluate into the folder that Hydra has chosen."""
    config.output_dir = HydraConfig.get().runtime.output_dir
    output_dir = evaluate(config, HydraConfig.get().overrides.task)
    rank_zero_print(f"\nThe evaluation is in {output_dir}: open report.html")


def evaluate(config: DictConfig, overrides: Sequence[str] = ()) -> Path:
    """Sample at every scale, measure, and return the folder with the tables, ``plots/`` and ``report.html``.

    Recipe settings that the command line's ``overrides`` leave open are those of the training.

    Raises:
        ValueError, FileNotFoundError: For a wrong config, checkpoint or data, before anything is sampled.
    """
    check_labels(config.labels)
    model, recipe = prepare(config, overrides, EvaluateConfig)
    scales = _scales(config, overrides, model, recipe)
    data = model.data(path=config.data_path)
    check_judge_is_used(overrides, data.kind)
    plan = _plan(config, scales, recipe, data)
    judge_source = build(config.judge)
    _check_what_follows(config, plan, data, judge_source)
    loggers = [build(node) for node in config.logger.values()]
    trainer = build_trainer(config.trainer, [EvaluationProgress()])
    check_not_sharded(trainer.strategy)
    device = trainer.strategy.root_device
    recipe = with_guide(config, model, recipe, lambda: data)
    inception = load_inception(config.inception, data, config.labels, device) if config.inception else None

    chunks = _chunks(config, model, recipe, plan)
    with sampling_lock(chunks.folder):
        with explain_out_of_memory("recipe.batch_size"):
            draw(trainer, chunks)
        if trainer.is_global_zero:
            samples, seconds = chunks.collect(chunks.costs)
            with keeping("the samples are kept, and the same command goes on from there"):
                examination = modality(data.kind).examine(data, judge_source, samples, plan, inception)
                if config.effective_scale:
                    examination = with_effective_scale(examination, samples, plan.seed)
            rows = _rows(examination, seconds, chunks, data.kind, config.weights)
            results = Results(rows, {**_about(config, model, data), **examination.about})
            _write(config, results, Path(config.output_dir), device.type, loggers)
            shutil.rmtree(chunks.folder)
    return Path(config.output_dir)


def _chunks(config: DictConfig, model: TrainedDiffusion, recipe: Recipe, plan: Plan) -> Chunks:
    asked = ["effective_scale"] if config.effective_scale else []
    folder = cache_dir() / "samples" / sampling_fingerprint(config, plan, *asked)
    chunks = Chunks(model.denoiser, recipe, plan, folder, measures_scale=config.effective_scale)
    chunks.costs = [evaluations_per_sample(recipe.at(scale), model.schedule) for scale in plan.scales]
    return chunks


def _scales(config: DictConfig, overrides: Sequence[str], model: TrainedDiffusion, recipe: Recipe) -> list[float]:
    """Return ``scales``, or ``guidance.scale`` if the command line sets only that, or the scales of the training.

    Raises:
        ValueError: If a scale is not finite, or needs a prediction that the training did not teach; if the effective
            scale is asked for where it means nothing.
    """
    only_scale = [config.guidance.scale] if is_overridden(overrides, "guidance.scale") else model.config["scales"]
    scales = list(only_scale if config.scales is None else config.scales)
    check_scales(scales)
    if config.effective_scale:
        check_effective_scale(model.label_dropout, config.untaught_scales, recipe, model.schedule)
    if not config.untaught_scales:
        check_label_dropout(model.label_dropout, recipe, scales, model.schedule, "scales")
    return scales


def _plan(config: DictConfig, scales: Sequence[float], recipe: Recipe, data: LabelledDataModule) -> Plan:
    sizes = None if config.labels == EQUAL else data.class_counts("test").tolist()
    return Plan(
        scales, config.num_samples, data.num_classes, data.shape, recipe.batch_size, config.seed, class_sizes=sizes
    )


def _check_what_follows(config: DictConfig, plan: Plan, data: LabelledDataModule, judge_source: JudgeSource) -> None:
    """Raise if the folders are not to be written, the samples don't fit, or the samples can't be measured."""
    check_own_folder(Path(config.output_dir), "evaluation", *RESULTS)
    check_output_folders(Path(config.output_dir), ("plots",))
    check_space(plan)
    modality(data.kind).check(data, judge_source)


def _rows(examination: Examination, seconds: Sequence[float], chunks: Chunks, kind: str, weights: str) -> list[Result]:
    recipe, plan = chunks.recipe, chunks.plan
    return [
        Result(
            method=describe_setting(recipe.guidance),
            scale=scale,
            sampler=describe_setting(recipe.sampler.method),
            steps=recipe.sampler.steps,
            num_samples=plan.num_counted,
            measured=found.measured,
            floors=examination.floors,
            nfe=cost,
            seconds=taken,
            per_class=found.per_class,
            pictures=found.pictures,
            kind=kind,
            columns=(*modality(kind).columns, *examination.columns),
            labels=plan.drawn,
            weights=weights,
            facts=dict(examination.facts),
        )
        for scale, found, taken, cost in zip(plan.scales, examination.findings, seconds, chunks.costs, strict=True)
    ]


def _about(config: DictConfig, model: TrainedDiffusion, data: LabelledDataModule) -> dict[str, Any]:
    return {
        "kind": data.kind,
        "data": data.name,
        "class_names": list(data.class_names),
        "checkpoint": str(Path(config.checkpoint).absolute()),
        "weights": config.weights,
        "seed": config.seed,
        "training_name": model.config["name"],
    }


def _write(config: DictConfig, results: Results, output_dir: Path, device: str, loggers: Sequence[Logger]) -> None:
    output_dir.mkdir(parents=True, exist_ok=True)
    text = OmegaConf.to_yaml(config, resolve=True)
    with atomic_write(output_dir / "config.yaml") as path:  # first, as it marks the other files as an evaluation's
        path.write_text(text, encoding="utf-8")
    (output_dir / "command.txt").write_text(command() + "\n", encoding="utf-8")
    write_record(output_dir, config.seed, device)
    save(results, output_dir)
    modality(results.kind).print_table(results)
    kept = f"all numbers are in {output_dir} (results.json, results.csv)"
    with keeping(f"the page is missing, {kept}"):
        write_report(results, output_dir, text, command())
    with keeping(f"the results are not in every logger, {kept}"), closing_loggers(loggers):
        for logger in loggers:
            if isinstance(logger, CSVLogger):
                logger.keep(0)  # drop the table of an earlier evaluation in this folder: its columns may differ
            logger.log_hyperparams(plain(config))
            publish_results(logger, results, output_dir)
