"""Forecasters scored on tasks: each rank takes every world_size-th batch of the same plan, and sums once at the end.

Axes: N windows, B batches, S targets of the windows of a batch, V targets, L context steps, H horizon steps, Q quantile
levels.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, Literal

import numpy as np
import torch

from foreloom.evaluation.baselines import SeasonalForecaster, num_fallbacks
from foreloom.evaluation.metrics import (
    METRICS,
    BrokenForecastError,
    Group,
    GroupedSums,
    MetricSums,
    Sums,
    metric_sums,
    window_errors,
    window_squared_errors,
)
from foreloom.evaluation.plan import EvaluationWindow, Plan, plan_windows, window_reader
from foreloom.evaluation.ranks import ALONE, Ranks, num_forwards, rows_per_forward, single_row
from foreloom.evaluation.skill import BASELINE
from foreloom.evaluation.tasks import EvaluationTask
from foreloom.models.family import Forecaster

EXAMPLE_CONTEXT_LENGTH = 512
"""Past steps kept with an example forecast where the task does not limit them, enough for a picture."""

ReportProgress = Callable[[str, int, int], None]
"""progress(task name, batches done, batches in all): called by every rank."""
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


def evaluate_all(
    forecasters: Mapping[str, Forecaster],
    tasks: Sequence[EvaluationTask],
    *,
    batch_size: int | None = None,
    ranks: Ranks = ALONE,
    progress: Callable[[str], AbstractContextManager[ReportProgress | None]] | None = None,
) -> dict[str, EvaluationResult]:
    """Score several forecasters by name, see `evaluate`; `progress(name)` is opened while one is scored."""
    results = {}
    for name, forecaster in forecasters.items():
        with progress(name) if progress else nullcontext() as advance:
            results[name] = evaluate(forecaster, tasks, batch_size=batch_size, ranks=ranks, progress=advance)
    return results


Evaluator = Callable[[Mapping[str, Forecaster], Sequence[EvaluationTask]], Mapping[str, EvaluationResult]]
"""`evaluate_all`, with the batch size, ranks and progress that a caller has chosen."""


@dataclass(frozen=True)
class Evaluation:
    """Several forecasters on the same tasks, to be tabulated and drawn."""

    rows: list[dict[str, Any]]
    """Of the table of scores, a row a model and task."""
    examples: Mapping[str, Mapping[str, Sequence[ForecastExample]]]
    """By model and task; of the baseline only where there is no other model."""
    notes: list[str]
    """Sentences about what is not as the numbers alone would have it."""


def evaluate_tasks(
    forecasters: Mapping[str, Forecaster],
    tasks: Sequence[EvaluationTask],
    evaluator: Evaluator = evaluate_all,
) -> Evaluation:
    """Score forecasters, given by name, and lay out what was found."""
    results = evaluator(forecasters, tasks)
    notes = fallback_notes(results)
    any_model = next(iter(results.values())).tasks  # what the data lack does not depend on the model
    if empty := [task.name for task in any_model if math.isnan(task.scores["MAE"])]:
        notes.append(f"nothing to score, every label is missing: {', '.join(empty)}.")
    if short := [f"{task.num_short_pasts:,} on {task.name}" for task in any_model if task.num_short_pasts]:
        notes.append(f"windows whose past is not longer than their task's season_length: {', '.join(short)}.")
    rows = [row for label, result in results.items() for row in result.rows(label)]
    return Evaluation(rows, examples_of(results), notes)


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


def evaluate(
    forecaster: Forecaster,
    tasks: Sequence[EvaluationTask],
    *,
    batch_size: int | None = None,
    ranks: Ranks = ALONE,
    progress: ReportProgress | None = None,
) -> EvaluationResult:
    """Score `forecaster` on `tasks`; every rank gets the whole result.

    `batch_size` counts rows (targets and covariates of one forward; default: the task's). Every rank calls this with
    the same arguments but `ranks`. All ask for equally many forecasts of the same length, so a sharded module's
    collectives stay in step; batches and the order of their sums, and so scores, do not depend on how many there are.
    Raises ValueError, which names the task, where it has no window, where a forecast is not finite and where a batch
    does not fit into the device's memory.
    """
    results = []
    for task in tasks:
        start = time.perf_counter()
        rows = batch_size or task.batch_size
        plan = plan_windows(task, task.open(), forecaster.context_length, rows)
        run = _TaskRun(forecaster, task, plan, window_reader(plan), ranks, progress)
        with _naming(task, rows):
            sums, errors_N, fallbacks = run.score()
            examples = run.examples(errors_N)
        results.append(
            TaskResult(
                name=task.name,
                prediction_length=task.prediction_length,
                sums=sums,
                num_series=plan.num_series,
                num_skipped=plan.num_skipped,
                seconds=time.perf_counter() - start,
                num_fallbacks=fallbacks,
                num_short_pasts=int((plan.cut_N <= task.season_length).sum()),
                examples=examples,
            )
        )
    return EvaluationResult(tuple(results))


@contextmanager
def _naming(task: EvaluationTask, batch_size: int) -> Iterator[None]:
    """Whatever a forecaster raises says on which task, since ranks and hours of other tasks hide it."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ValueError(
            f"task {task.name!r}: a batch of {batch_size:,} rows does not fit into the device's memory ({error}). "
            "Lower --batch-size, or benchmark.batch_size in a recipe."
        ) from error
    except Exception as error:
        error.add_note(f"This happened while task {task.name!r} was scored.")
        raise


@dataclass(frozen=True)
class _TaskRun:
    """One task on this rank."""

    forecaster: Forecaster
    task: EvaluationTask
    plan: Plan
    read: Callable[[range], list[EvaluationWindow]]
    ranks: Ranks
    progress: ReportProgress | None

    def score(self) -> tuple[Sums, np.ndarray, int]:
        """Sums over all ranks, the error that each window is ranked by (its mean over targets), and the fallbacks."""
        zero = self._zero()
        sums_BK = np.zeros((self.plan.num_batches, len(zero.vector())))
        errors_N = np.zeros(self.plan.num_windows)
        broken: BrokenForecastError | None = None
        fallbacks = 0
        for taken, counts in self.ranks.turns(self.plan.num_batches):
            mine = taken[self.ranks.rank]
            batch = self.plan.batch(mine)
            windows = self.read(batch)
            before = num_fallbacks(self.forecaster)
            forecasts = self._forecast(batch, windows)
            fallbacks += counts * (num_fallbacks(self.forecaster) - before)
            if self.ranks.world_size > 1:
                self._keep_in_step(taken, mine, windows[0])
            if counts and not broken:
                try:
                    sums, errors_N[batch.start : batch.stop] = _score_batch(windows, forecasts, self.task)
                    sums_BK[mine] = (zero + sums).vector()
                except BrokenForecastError as error:
                    broken = error  # raised below, on all ranks together: none may wait for one that gave up
            if self.progress:
                self.progress(self.task.name, min(taken[0] + self.ranks.world_size, len(sums_BK)), len(sums_BK))
        # Batches, not their sums, go over the ranks: zeros add nothing, so not a bit depends on who did what.
        total = self.ranks.sum(np.concatenate([[broken is not None, fallbacks], sums_BK.ravel(), errors_N]))
        if total[0]:
            raise broken or BrokenForecastError(
                f"task {self.task.name!r}: another rank met a forecast that is not finite."
            )
        sums_BK = total[2 : 2 + sums_BK.size].reshape(sums_BK.shape)
        return zero.with_vector(sums_BK.sum(axis=0)), total[2 + sums_BK.size :], int(total[1])

    def _zero(self) -> Sums:
        levels, plan = self.task.quantile_levels, self.plan
        if self.task.average_over == "points":
            return MetricSums.zero(levels)
        kinds = np.unique(np.stack([plan.roll_N, plan.variate_N, plan.num_targets_N]), axis=1).T.tolist()
        return GroupedSums.zero(((roll, first + v) for roll, first, num in kinds for v in range(num)), levels)

    def _keep_in_step(self, taken: Sequence[int], mine: int, window: EvaluationWindow) -> None:
        """Make the forwards that another rank's batch of this turn takes beyond those of `mine`."""
        forwards = {index: num_forwards(self.plan, self.plan.batch(index), self.forecaster) for index in taken}
        for _ in range(max(forwards.values()) - forwards[mine]):
            self._ask(self.forecaster, [single_row(window.input)], batch_size=1)

    def _forecast(self, batch: range, windows: Sequence[EvaluationWindow]) -> list[np.ndarray]:
        """(V, H, Q) a window, all in one forward if they fit, or one a season for forecasters that must know it."""
        if not isinstance(self.forecaster, SeasonalForecaster):
            inputs = [window.input for window in windows]
            return self._ask(self.forecaster, inputs, rows_per_forward(self.plan, batch, self.forecaster))
        forecasts: list[np.ndarray] = []
        for season_length, alike in groupby(windows, key=lambda window: window.season_length):
            forecasts += self._ask(self.forecaster.at_season(season_length), [window.input for window in alike])
        return forecasts

    def _ask(self, forecaster: Forecaster, inputs: list[Any], batch_size: int = 256) -> list[np.ndarray]:
        return forecaster.predict_quantiles(
            inputs,
            self.task.prediction_length,
            self.task.quantile_levels,
            batch_size=batch_size,
            context_length=self.task.context_length or None,  # so that a model which cannot use it all says so
        )

    def examples(self, errors_N: np.ndarray) -> tuple[ForecastExample, ...]:
        """The windows with the smallest, the median and the largest error, forecast once more on every rank."""
        examples = []
        newest = self.task.context_length or EXAMPLE_CONTEXT_LENGTH
        for kind, n in _pick_examples(errors_N).items():
            alone = range(n, n + 1)
            (window,) = self.read(alone)
            (forecast_VHQ,) = self._forecast(alone, [window])
            examples.append(
                ForecastExample(
                    kind=kind,
                    name=window.name,
                    cut=window.cut,
                    error=float(errors_N[n]),
                    context_VL=window.input.context_RC[: window.input.num_targets, -newest:].copy(),
                    label_VH=window.label_VH.copy(),
                    forecast_VHQ=forecast_VHQ,
                    quantile_levels=self.task.quantile_levels,
                )
            )
        return tuple(examples)


def _pick_examples(errors_N: np.ndarray) -> dict[ExampleKind, int]:
    """The windows with the smallest, the median and the largest error; those without one (NaN) are left out, and where
    windows are few none is there twice: the median stays."""
    ranked = np.argsort(errors_N, kind="stable")[: int(np.isfinite(errors_N).sum())].tolist()
    if not ranked:
        return {}
    median = ranked[(len(ranked) - 1) // 2]
    picks: dict[ExampleKind, int] = {"best": ranked[0], "median": median, "worst": ranked[-1]}
    return {kind: n for kind, n in picks.items() if kind == "median" or n != median}


def _score_batch(
    windows: Sequence[EvaluationWindow], forecasts: Sequence[np.ndarray], task: EvaluationTask
) -> tuple[Sums, np.ndarray]:
    """The sums of a batch, and the error that each window is ranked by."""
    levels = task.quantile_levels
    forecast_SHQ = np.concatenate(forecasts)
    label_SH = np.concatenate([window.label_VH for window in windows])
    scale_S = np.concatenate([window.seasonal_error_V for window in windows])
    owner_S = np.repeat(np.arange(len(windows)), [len(window.label_VH) for window in windows])
    names = [task.describe(window.name, window.roll, window.cut) for window in windows]
    names_S = [names[owner] for owner in owner_S.tolist()]
    try:
        if task.average_over == "points":
            sums: Sums = metric_sums(forecast_SHQ, label_SH, scale_S, levels, names_S)
        else:
            rows_of: dict[Group, list[int]] = {}
            groups = ((w.roll, w.variate + v) for w in windows for v in range(len(w.label_VH)))
            for s, group in enumerate(groups):
                rows_of.setdefault(group, []).append(s)
            sums = GroupedSums(
                {
                    group: metric_sums(forecast_SHQ[r], label_SH[r], scale_S[r], levels, [names_S[s] for s in r])
                    for group, r in rows_of.items()
                }
            )
    except BrokenForecastError as error:
        broken = next(n for n, forecast in enumerate(forecasts) if not np.isfinite(forecast).all())
        if not np.isfinite(windows[broken].input.context_RC[: windows[broken].input.num_targets]).any():
            raise BrokenForecastError(f"{error} Every value of its context is missing.") from None
        raise
    median_SH = forecast_SHQ[..., levels.index(0.5)]
    if task.every_window:
        errors_S = window_squared_errors(median_SH, label_SH)
    else:
        errors_S = window_errors(median_SH, label_SH, scale_S)
    scored_S = np.isfinite(errors_S)
    num = np.bincount(owner_S[scored_S], minlength=len(windows))
    total = np.bincount(owner_S[scored_S], weights=errors_S[scored_S], minlength=len(windows))
    return sums, np.divide(total, num, out=np.full(len(windows), np.nan), where=num > 0)
