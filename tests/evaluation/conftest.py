"""Results that nobody measured, for the tests of whatever shows an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from guided_diffusion.evaluation.results import COLUMNS, INCEPTION_COLUMNS, Interval, Pictures, Result, Results

MEASURES = [
    name
    for name in COLUMNS[COLUMNS.index("accuracy") : COLUMNS.index("nfe")]
    if not name.endswith(("_low", "_high", "_floor"))
]


def fabricated_pictures(value: float, scale: float, classes: int, shape: tuple[int, int, int]) -> Pictures:
    """Twelve flat images from black to white, and a judge that is right four times as often as wrong."""
    unknown = np.isnan(value)
    greys = np.linspace(-1, 1, 12, dtype=np.float32)[:, None, None, None] / (1 + scale)
    strip = np.tile(greys, (1, *shape))
    labels = np.arange(3) % classes
    return Pictures(
        strip=strip,
        means=np.full((classes, *shape), np.nan if unknown else 0.5, np.float32),
        uncertain=strip[:3],
        uncertain_labels=labels,
        uncertain_predictions=(labels + 1) % classes,
        uncertain_probabilities=np.array([0.01, 0.02, 0.3], np.float32),
        confusion=np.zeros((classes, classes), np.int64) if unknown else np.eye(classes, dtype=np.int64) * 3 + 1,
        predictions=np.arange(4 * classes) % classes,
        probabilities=np.full(4 * classes, value, np.float32),
        labels=np.arange(4 * classes) % classes,
    )


def fabricated_row(
    value: float, scale: float, options: dict[str, str], classes: int, shape: tuple[int, int, int]
) -> Result:
    return Result(
        method="cfg",
        scale=scale,
        sampler="ddim",
        steps=25,
        num_samples=4 * classes,
        measured={name: Interval(value, value - 0.05, value + 0.02) for name in MEASURES},
        floors={"fld": 0.125},
        nfe=2.0,
        seconds=1.5,
        per_class=[
            {"class": index, "class_name": f"class <{index}>", "count": 4, "f1": value} for index in range(classes)
        ],
        pictures=fabricated_pictures(value, scale, classes, shape),
        options=options,
    )


@pytest.fixture(scope="session")
def fabricate() -> Callable[..., Results]:
    """Results with these scales, classes, channels, sizes and options of sweep jobs; ``nan`` spoils the last scale."""

    def fabricated(
        scales: Sequence[float] = (0.0, 1.0, 3.0),
        classes: int = 3,
        channels: int = 1,
        size: tuple[int, int] = (8, 8),
        jobs: Sequence[dict[str, str]] = ({},),
        nan: bool = False,
    ) -> Results:
        def value(scale: float, job: int) -> float:
            return float("nan") if nan and scale == scales[-1] else (1 + scale) / (2 + scale + job)

        rows = [
            fabricated_row(value(scale, job), scale, options, classes, (channels, *size))
            for job, options in enumerate(jobs)
            for scale in scales
        ]
        about = {
            "judge": "JudgeNet",
            "judge_ceiling": 0.9875,
            "data": "mnist",
            "class_names": [f"class <{index}>" for index in range(classes)],
            "checkpoint": "runs/one/last.ckpt",
            "weights": "ema",
            "seed": 0,
        }
        return Results(rows, about)

    return fabricated


@pytest.fixture(scope="session")
def with_inception() -> Callable[..., Result]:
    """Add Inception FID and KID to a row, measured with these weights of the diffusion model."""

    def added(row: Result, weights: str = "ema", network: str = "published") -> Result:
        fid = Interval(10 + row.scale, float("nan"), float("nan"))
        return replace(
            row,
            measured={**row.measured, "inception_fid": fid, "inception_kid": Interval(0.02, 0.01, 0.03)},
            floors={**row.floors, "inception_fid": 2.5, "inception_kid": 0.00123},
            columns=(*row.columns, *INCEPTION_COLUMNS),
            weights=weights,
            facts={"inception_network": network, "reference_split": "test", "reference_samples": 10_000},
        )

    return added
