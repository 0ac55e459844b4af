"""What an evaluation found: scores a task, example forecasts, rows of tables.

Axes: V targets, L context steps, H horizon steps, Q quantile levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from foreloom.evaluation.grouped_sums import Sums

METRICS = ("WQL", "MASE", "MAE", "MSE", "RMSE", "sMAPE", "SQL", "CRPS", "WAPE")
"""Every metric but coverage; lower is better for all of them."""

ExampleKind = Literal["best", "median", "worst"]


@dataclass(frozen=True)
class ForecastExample:
    """One window with its forecast, for pictures."""

    kind: ExampleKind
    name: str
    cut: int
    """Steps of the series before the window."""
    error: float
    """What windows are ranked by: the MASE of this window in tasks, its MSE among sliding windows."""
    context_VL: np.ndarray
    label_VH: np.ndarray
    forecast_VHQ: np.ndarray
    quantile_levels: tuple[float, ...]


@dataclass(frozen=True)
class TaskResult:
    """One task of an evaluation."""

    name: str
    prediction_length: int
    sums: Sums
    num_series: int
    num_skipped: int
    """Windows left out because their series is too short."""
    seconds: float
    num_fallbacks: int = 0
    """Targets that a simpler model forecast because the one asked for failed."""
    num_short_pasts: int = 0
    """Windows whose past is not longer than the season that the task states: Seasonal Naive forecasts no season there,
    and MASE and SQL scale by a season of 1 (where targets are averaged, they leave the window out)."""
    examples: tuple[ForecastExample, ...] = ()

    @cached_property
    def scores(self) -> dict[str, float]:
        """See `MetricSums.scores`."""
        return self.sums.scores()


@dataclass(frozen=True)
class EvaluationResult:
    """The tasks of one evaluation, in the order asked for."""

    tasks: tuple[TaskResult, ...]

    def rows(self, model: str) -> list[dict[str, Any]]:
        """A row a task: `model`, `task`, the metrics, the counts, the seconds, then each coverage. NaN is NaN.

        Columns are the same in every row; the fixed ones come first and never move.
        """
        coverages = sorted({name for task in self.tasks for name in task.scores if name not in METRICS}, key=_percent)
        return [
            {
                "model": model,
                "task": task.name,
                **{metric: task.scores[metric] for metric in METRICS},
                "prediction_length": task.prediction_length,
                "num_series": task.num_series,
                "num_windows": int(task.sums.num_windows),
                "num_skipped": task.num_skipped,
                "num_points": int(task.sums.num_points),
                "seconds": round(task.seconds, 3),
                **{name: task.scores.get(name, math.nan) for name in coverages},
            }
            for task in self.tasks
        ]


def pick_examples(errors_S: np.ndarray) -> dict[ExampleKind, int]:
    """The windows with the smallest, the median and the largest error; those without one (NaN) are left out."""
    ranked = np.argsort(errors_S, kind="stable")[: int(np.isfinite(errors_S).sum())].tolist()
    return {"best": ranked[0], "median": ranked[(len(ranked) - 1) // 2], "worst": ranked[-1]} if ranked else {}


def geometric_mean(ratios: Sequence[float]) -> float:
    """exp(mean(log r)): 0 if one ratio is 0, NaN if one is NaN or there is none."""
    if not ratios or any(math.isnan(r) for r in ratios):
        return math.nan
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios)) if min(ratios) > 0 else 0.0


def _percent(coverage: str) -> int:
    return int(coverage.rpartition("_")[2])
