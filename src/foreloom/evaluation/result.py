"""What an evaluation finds: sums and scores a task, rows of a table, and what has to be said beside the numbers.

Axes: V targets, L context steps, H horizon steps, Q quantile levels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from foreloom.data.stream.normalization import Float32Flaw
from foreloom.evaluation.metrics import METRICS, Sums
from foreloom.evaluation.skill import BASELINE
from foreloom.models.family import Forecaster

_MOST_NAMED = 3
_FLAWS: Mapping[Float32Flaw, str] = {
    "beyond": "models count values beyond float32 (3.4e38) as missing, {}",
    "blurred": "values move by less than float32 tells at the largest of them, so models see steps or a flat line, {}",
}
ExampleKind = Literal["best", "median", "worst"]


@dataclass(frozen=True)
class ForecastExample:
    """One window with its forecast, for pictures."""

    kind: ExampleKind
    name: str
    cut: int
    """Steps of the series before the window."""
    error: float
    """What windows are ranked by: the MASE of this window, its MSE where every window is scored."""
    context_VL: np.ndarray
    label_VH: np.ndarray
    forecast_VHQ: np.ndarray
    quantile_levels: tuple[float, ...]


class Findings(NamedTuple):
    """How many series or windows something is true of."""

    num: int = 0
    names: tuple[str, ...] = ()
    """Of a few of them, as shown to people."""

    def __str__(self) -> str:
        others = self.num - len(self.names)
        return ", ".join(map(repr, self.names)) + (f" and {others:,} more" if others else "")


NOTHING = Findings()


def findings(num: int, names: Iterable[str]) -> Findings:
    """The first names that differ, no more of them read than are shown."""
    shown: dict[str, None] = {}
    for name in names:
        shown[name] = None
        if len(shown) == _MOST_NAMED:
            break
    return Findings(num, tuple(shown))


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
    too_short: Findings = NOTHING
    """Series without a window."""
    has_scales: bool = True
    """Are MASE and SQL scores of the task?"""
    shows_covariates: bool = False
    """Were forecasters given any?"""
    flaws: Mapping[Float32Flaw, Findings] = field(default_factory=dict)
    """Windows whose past float32 cannot hold or tell."""

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
        found = {name for task in self.tasks for name in task.scores if name not in METRICS}
        coverages = sorted(found, key=lambda name: int(name.rpartition("_")[2]))
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


@dataclass(frozen=True)
class Evaluation:
    """Several forecasters on the same tasks, to be tabulated and drawn."""

    rows: list[dict[str, Any]]
    """Of the table of scores, a row a model and task."""
    examples: Mapping[str, Mapping[str, Sequence[ForecastExample]]]
    """By model and task; of the baseline only where there is no other model."""
    notes: list[str]
    """Sentences about what is not as the numbers alone would have it."""


def data_notes(tasks: Sequence[TaskResult]) -> list[str]:
    """What of the data is not in the scores, or not as models would have to see it."""
    notes = []
    if empty := [task.name for task in tasks if not task.sums.pooled.num_points]:
        notes.append(f"nothing to score, every label is missing: {', '.join(empty)}.")
    if short := [f"{task.num_short_pasts:,} on {task.name}" for task in tasks if task.num_short_pasts]:
        notes.append(f"windows whose past is not longer than their task's season_length: {', '.join(short)}.")
    for task in tasks:
        sums, name = task.sums.pooled, task.name
        if task.too_short.num:
            notes.append(f"{name}: no window fits into {task.too_short.num:,} series: {task.too_short}.")
        if sums.num_points and not sums.abs_label:
            notes.append(f"{name}: every label is 0, so WQL and WAPE, which divide by their size, are not defined.")
        if task.has_scales and (lacking := int(sums.num_points - sums.num_scaled)):
            some = "all" if lacking == sums.num_points else f"{lacking:,} of {int(sums.num_points):,}"
            notes.append(f"{name}: MASE and SQL leave out {some} steps: their past is flat, or not known.")
        for flaw, found in task.flaws.items():
            where = f"in {found.num:,} of {int(sums.num_windows):,} windows"
            notes.append(f"{name}: {_FLAWS[flaw].format(where)}: {found}.")
    return notes


def covariate_notes(forecasters: Mapping[str, Forecaster], results: Mapping[str, EvaluationResult]) -> list[str]:
    """A note for each model that was given covariates and cannot see them; nobody shall believe otherwise."""
    notes = []
    for label, result in results.items():
        tasks = [task.name for task in result.tasks if task.shows_covariates]
        if tasks and label != BASELINE and forecasters[label].is_univariate:
            notes.append(f"{label} sees one series at a time and passes over the covariates of {', '.join(tasks)}.")
    return notes


def baseline_notes(tasks: Sequence[TaskResult]) -> list[str]:
    """Tasks to which nothing is relative."""
    exact = [task.name for task in tasks if task.scores["MAE"] == 0]
    if not exact:
        return []
    listed = ", ".join(exact)
    return [f"{BASELINE} errs by 0 on {listed}: nothing is relative to it there, and no geometric mean holds that."]


def examples_of(results: Mapping[str, EvaluationResult]) -> dict[str, dict[str, Sequence[ForecastExample]]]:
    """The example forecasts of each model and task, see `Evaluation`."""
    drawn = [label for label in results if label != BASELINE] or [BASELINE]
    return {label: {task.name: task.examples for task in results[label].tasks} for label in drawn}


def fallback_notes(results: Mapping[str, EvaluationResult]) -> list[str]:
    """A note for each model that failed on windows, where Seasonal Naive answered in its place."""
    notes = []
    for label, result in results.items():
        if failed := {task.name: task.num_fallbacks for task in result.tasks if task.num_fallbacks}:
            listed = ", ".join(f"{num:,} on {task}" for task, num in failed.items())
            notes.append(
                f"{label} failed on {sum(failed.values()):,} forecasts, which Seasonal Naive made instead: {listed}."
            )
    return notes
