"""The benchmark: a forecaster scored on tasks, each rank taking every world_size-th batch of the same plan.

Axes: S windows (one target of one cut), V targets, H horizon steps, Q quantile levels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch

from foreloom.data.formats.reader import open_source
from foreloom.evaluation.baselines import SeasonalForecaster
from foreloom.evaluation.fallbacks import num_fallbacks
from foreloom.evaluation.forwards import num_forwards, rows_per_forward, single_row
from foreloom.evaluation.grouped_sums import Group, GroupedSums, Sums
from foreloom.evaluation.metrics import BrokenForecastError, MetricSums, metric_sums, window_errors
from foreloom.evaluation.result import EvaluationResult, ForecastExample, TaskResult, pick_examples
from foreloom.evaluation.tasks import EvaluationTask
from foreloom.evaluation.turns import Reduce, alone, turns
from foreloom.evaluation.windows import EvaluationWindow, PlannedWindow, plan_windows, window_reader
from foreloom.models.family import Forecaster

EXAMPLE_CONTEXT_LENGTH = 512
"""Past steps kept with an example forecast, enough for a picture."""

Progress = Callable[[str, int, int], None]
"""progress(task name, batches done, batches in all): called by every rank."""


def evaluate(
    forecaster: Forecaster,
    tasks: Sequence[EvaluationTask],
    *,
    batch_size: int = 256,
    rank: int = 0,
    world_size: int = 1,
    reduce: Reduce | None = None,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Score `forecaster` on `tasks`; every rank gets the whole result.

    `batch_size` counts rows (targets and covariates of one forward). With `world_size` > 1, every rank calls this with
    the same arguments but `rank`, and `reduce` sums over them. All ranks ask for equally many forecasts of the same
    length, so a sharded module's collectives stay in step; batches, and so scores, do not depend on `world_size`.
    Raises ValueError, which names the task, where it has no window, where a forecast is not finite and where a batch
    does not fit into the device's memory.
    """
    assert world_size == 1 or reduce is not None
    results = []
    for task in tasks:
        start = time.perf_counter()
        sources = [open_source(path) for path in task.paths]
        planned = plan_windows(task, sources, forecaster.context_length, batch_size)
        read = window_reader(task, sources, forecaster.context_length)
        run = _TaskRun(forecaster, task, read, rank, world_size, reduce or alone, progress)
        with _naming(task, batch_size):
            sums, errors, fallbacks = run.score(planned.batches)
            examples = run.examples([window for batch in planned.batches for window in batch], errors)
        results.append(
            TaskResult(
                name=task.name,
                prediction_length=task.prediction_length,
                sums=sums,
                num_series=planned.num_series,
                num_skipped=planned.num_skipped,
                seconds=time.perf_counter() - start,
                num_fallbacks=fallbacks,
                num_short_pasts=sum(window.cut <= task.season_length for batch in planned.batches for window in batch),
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
    read: Callable[[PlannedWindow], EvaluationWindow]
    rank: int
    world_size: int
    reduce: Reduce
    progress: Progress | None

    def score(self, batches: Sequence[Sequence[PlannedWindow]]) -> tuple[Sums, np.ndarray, int]:
        """Sums over all ranks, the scaled error of each planned window (its mean over targets), and the fallbacks."""
        sums = self._zero(batches)
        first_S = np.cumsum([0, *(len(batch) for batch in batches)])
        errors_S = np.zeros(first_S[-1])
        broken: BrokenForecastError | None = None
        fallbacks = 0
        for turn, (index, counts) in enumerate(turns(len(batches), self.rank, self.world_size)):
            windows = [self.read(planned) for planned in batches[index]]
            before = num_fallbacks(self.forecaster)
            forecasts = self._forecast(batches[index], windows)
            fallbacks += counts * (num_fallbacks(self.forecaster) - before)
            self._keep_in_step(batches, turn, index, windows[0])
            if counts and not broken:
                try:
                    batch_sums, batch_errors = _score_batch(windows, forecasts, self.task)
                    sums += batch_sums
                    errors_S[first_S[index] : first_S[index + 1]] = batch_errors
                except BrokenForecastError as error:
                    broken = error  # raised below, on all ranks together: none may wait for one that gave up
            if self.progress:
                self.progress(self.task.name, min((turn + 1) * self.world_size, len(batches)), len(batches))
        total = self.reduce(np.concatenate([[broken is not None, fallbacks], sums.vector(), errors_S]))
        if total[0]:
            raise broken or BrokenForecastError(
                f"task {self.task.name!r}: another rank met a forecast that is not finite."
            )
        return sums.with_vector(total[2 : -len(errors_S)]), total[-len(errors_S) :], int(total[1])

    def _zero(self, batches: Sequence[Sequence[PlannedWindow]]) -> Sums:
        levels = self.task.quantile_levels
        if self.task.average_over == "points":
            return MetricSums.zero(levels)
        windows = (window for batch in batches for window in batch)
        return GroupedSums.zero(((window.roll, variate) for window in windows for variate in window.variates), levels)

    def _keep_in_step(
        self, batches: Sequence[Sequence[PlannedWindow]], turn: int, index: int, window: EvaluationWindow
    ) -> None:
        """Make the forwards that another rank's batch of this turn takes beyond those of `batches[index]`."""
        of_turn = range(turn * self.world_size, (turn + 1) * self.world_size)
        most = max(num_forwards(batches[i if i < len(batches) else 0], self.forecaster) for i in of_turn)
        for _ in range(most - num_forwards(batches[index], self.forecaster)):
            horizon, levels = self.task.prediction_length, self.task.quantile_levels
            self.forecaster.predict_quantiles([single_row(window.input)], horizon, levels, batch_size=1)

    def _forecast(self, planned: Sequence[PlannedWindow], windows: Sequence[EvaluationWindow]) -> list[np.ndarray]:
        """(V, H, Q) a window, all in one forward if they fit, or one a season for forecasters that must know it."""
        horizon, levels = self.task.prediction_length, self.task.quantile_levels
        if not isinstance(self.forecaster, SeasonalForecaster):
            inputs = [window.input for window in windows]
            num_rows = rows_per_forward(planned, self.forecaster)
            return self.forecaster.predict_quantiles(inputs, horizon, levels, batch_size=num_rows)
        forecasts: list[np.ndarray] = []
        for season_length, alike in groupby(windows, key=lambda window: window.season_length):
            seasonal = self.forecaster.at_season(season_length)
            forecasts += seasonal.predict_quantiles([window.input for window in alike], horizon, levels)
        return forecasts

    def examples(self, planned: Sequence[PlannedWindow], errors_S: np.ndarray) -> tuple[ForecastExample, ...]:
        """The windows with the smallest, the median and the largest scaled error, forecast once more on every rank."""
        picked = pick_examples(errors_S)
        windows = [self.read(planned[s]) for s in picked.values()]
        forecasts = [
            self._forecast([planned[s]], [window])[0] for s, window in zip(picked.values(), windows, strict=True)
        ]
        return tuple(
            ForecastExample(
                kind=kind,
                name=window.name,
                cut=window.cut,
                error=float(errors_S[s]),
                context_VL=window.input.context_RC[: window.input.num_targets, -EXAMPLE_CONTEXT_LENGTH:].copy(),
                label_VH=window.label_VH,
                forecast_VHQ=forecast,
                quantile_levels=self.task.quantile_levels,
            )
            for (kind, s), window, forecast in zip(picked.items(), windows, forecasts, strict=True)
        )


def _score_batch(
    windows: Sequence[EvaluationWindow], forecasts: Sequence[np.ndarray], task: EvaluationTask
) -> tuple[Sums, np.ndarray]:
    quantile_levels = task.quantile_levels
    forecast_SHQ = np.concatenate(forecasts)
    label_SH = np.concatenate([window.label_VH for window in windows])
    scale_S = np.concatenate([window.seasonal_error_V for window in windows])
    owner_S = np.repeat(np.arange(len(windows)), [len(window.label_VH) for window in windows])
    names = [f"series {windows[owner].name!r} of task {task.name!r}" for owner in owner_S.tolist()]
    if task.average_over == "points":
        sums: Sums = metric_sums(forecast_SHQ, label_SH, scale_S, quantile_levels, names)
    else:
        rows_of: dict[Group, list[int]] = {}
        for s, group in enumerate(group for window in windows for group in window.groups_V):
            rows_of.setdefault(group, []).append(s)
        sums = GroupedSums(
            {
                group: metric_sums(forecast_SHQ[r], label_SH[r], scale_S[r], quantile_levels, [names[s] for s in r])
                for group, r in rows_of.items()
            }
        )
    errors_S = window_errors(forecast_SHQ[..., quantile_levels.index(0.5)], label_SH, scale_S)
    scored_S = np.isfinite(errors_S)
    num = np.bincount(owner_S[scored_S], minlength=len(windows))
    total = np.bincount(owner_S[scored_S], weights=errors_S[scored_S], minlength=len(windows))
    return sums, np.divide(total, num, out=np.full(len(windows), np.nan), where=num > 0)
