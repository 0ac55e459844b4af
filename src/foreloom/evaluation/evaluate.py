"""Forecasters scored on tasks: each rank takes every world_size-th batch of the same plan, and sums once at the end.

Axes: N windows, B batches, S targets of the windows of a batch, V targets, L context steps, H horizon steps, Q quantile
levels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, get_args

import numpy as np
import torch

from foreloom.data.stream.normalization import Float32Flaw, float32_flaws
from foreloom.evaluation.baselines import SeasonalForecaster, num_fallbacks
from foreloom.evaluation.metrics import (
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
from foreloom.evaluation.ranks import ALONE, Ranks, num_forward_passes, rows_per_forward, single_row
from foreloom.evaluation.result import (
    Evaluation,
    EvaluationResult,
    ExampleKind,
    Findings,
    ForecastExample,
    TaskResult,
    baseline_notes,
    covariate_notes,
    data_notes,
    examples_of,
    fallback_notes,
    findings,
)
from foreloom.evaluation.skill import BASELINE
from foreloom.evaluation.tasks import EvaluationTask
from foreloom.models.family import Forecaster
from foreloom.monitoring.progress import Progress

EXAMPLE_CONTEXT_LENGTH = 512
"""Past steps kept with an example forecast where the task does not limit them, enough for a picture."""

FLAWS: tuple[Float32Flaw, ...] = get_args(Float32Flaw)

Keep = Callable[[Plan, range, Sequence[EvaluationWindow], Sequence[np.ndarray]], None]
"""keep(plan, the windows of a batch, these windows, a forecast (V, H, Q) at the task's `asked_levels` each)."""


def evaluate_all(
    forecasters: Mapping[str, Forecaster],
    tasks: Sequence[EvaluationTask],
    *,
    batch_size: int | None = None,
    ranks: Ranks = ALONE,
    progress: Callable[[str], Progress] | None = None,
) -> dict[str, EvaluationResult]:
    """Score several forecasters by name, see `evaluate`; `progress(name)` is opened while one is scored."""
    results = {}
    for name, forecaster in forecasters.items():
        with progress(name) if progress else nullcontext() as entered:
            results[name] = evaluate(forecaster, tasks, batch_size=batch_size, ranks=ranks, progress=entered)
    return results


Evaluator = Callable[[Mapping[str, Forecaster], Sequence[EvaluationTask]], Mapping[str, EvaluationResult]]
"""`evaluate_all`, with the batch size, ranks and progress that a caller has chosen."""


def evaluate_tasks(
    forecasters: Mapping[str, Forecaster],
    tasks: Sequence[EvaluationTask],
    evaluator: Evaluator = evaluate_all,
) -> Evaluation:
    """Score forecasters, given by name, and lay out what was found."""
    results = evaluator(forecasters, tasks)
    any_model = next(iter(results.values())).tasks  # what the data lack does not depend on the model
    notes = [*fallback_notes(results), *covariate_notes(forecasters, results), *data_notes(any_model)]
    if BASELINE in results:
        notes += baseline_notes(results[BASELINE].tasks)
    rows = [row for label, result in results.items() for row in result.rows(label)]
    return Evaluation(rows, examples_of(results), notes)


def evaluate(
    forecaster: Forecaster,
    tasks: Sequence[EvaluationTask],
    *,
    batch_size: int | None = None,
    ranks: Ranks = ALONE,
    progress: Progress | None = None,
    keep: Keep | None = None,
) -> EvaluationResult:
    """Score `forecaster` on `tasks`; every rank gets the whole result. `keep` is handed each batch that this rank
    scored.

    `batch_size` counts rows (targets and covariates of one forward; default: the task's). Every rank calls this with
    the same arguments but `ranks`. All ask for equally many forecasts of the same length, so a sharded module's
    collectives stay in step; batches and the order of their sums, and so scores, do not depend on how many there are.
    Raises ValueError, which names the task, where it has no window, where a forecast is not finite and where a batch
    does not fit into the device's memory.
    """
    results = []
    for number, task in enumerate(tasks):
        start = time.perf_counter()
        tell = partial(_tell, progress, number, tasks)
        rows = batch_size or task.batch_size
        plan = plan_windows(task, task.open(), forecaster.context_length, rows)
        run = _TaskRun(forecaster, task, plan, window_reader(plan), ranks, tell, keep)
        tell(0, plan.num_windows)
        with _naming(task, rows):
            sums, errors_N, fallbacks, flaws_FN = run.score()
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
                too_short=findings(len(plan.too_short), (plan.sources[s].read(i).item_id for s, i in plan.too_short)),
                flaws=run.flaws(flaws_FN),
                has_scales=not task.every_window,
                shows_covariates=plan.shows_covariates,
            )
        )
    return EvaluationResult(tuple(results))


def _tell(progress: Progress | None, number: int, tasks: Sequence[EvaluationTask], done: int, total: int) -> None:
    """So many windows of a task are done."""
    if progress:
        which = f", task {number + 1} of {len(tasks)}" if len(tasks) > 1 else ""
        what = f"{tasks[number].name}{which}, {done:,} of {total:,} windows"
        progress.update((number + done / total) / len(tasks), what)


@contextmanager
def _naming(task: EvaluationTask, batch_size: int) -> Generator[None]:
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
    tell: Callable[[int, int], None]
    """tell(windows done, of so many)."""
    keep: Keep | None = None

    def score(self) -> tuple[Sums, np.ndarray, int, np.ndarray]:
        """Sums over all ranks, the error that each window is ranked by (its mean over targets), the fallbacks, and
        which windows have which of the `FLAWS` (F, N)."""
        zero = self._zero()
        sums_BK = np.zeros((self.plan.num_batches, len(zero.vector())))
        errors_N = np.zeros(self.plan.num_windows)
        flaws_FN = np.zeros((len(FLAWS), self.plan.num_windows))
        broken: BrokenForecastError | None = None
        fallbacks = 0
        for taken, counts in self.ranks.schedule(self.plan.num_batches):
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
                    for n, window in zip(batch, windows, strict=True):
                        flaws = float32_flaws(window.input.context_RC[: window.input.num_targets])
                        flaws_FN[:, n] = [flaw in flaws for flaw in FLAWS]
                    if self.keep:
                        self.keep(self.plan, batch, windows, forecasts)
                except BrokenForecastError as error:
                    broken = error  # raised below, on all ranks together: none may wait for one that gave up
            self.tell(self.plan.batch(max(taken)).stop, self.plan.num_windows)
        # Batches, not their sums, go over the ranks: zeros add nothing, so not a bit depends on who did what.
        counts = [broken is not None, fallbacks]
        total = self.ranks.sum(np.concatenate([counts, sums_BK.ravel(), errors_N, flaws_FN.ravel()]))
        if total[0]:
            raise broken or BrokenForecastError(
                f"task {self.task.name!r}: another rank met a forecast that is not finite."
            )
        sums_vector, errors_N, flaws = np.split(total[2:], np.cumsum([sums_BK.size, errors_N.size]))
        sums = zero.with_vector(sums_vector.reshape(sums_BK.shape).sum(axis=0))
        return sums, errors_N, int(total[1]), flaws.reshape(flaws_FN.shape)

    def flaws(self, flaws_FN: np.ndarray) -> dict[Float32Flaw, Findings]:
        """The windows of each flaw that there is."""
        found = {flaw: np.flatnonzero(of_N) for flaw, of_N in zip(FLAWS, flaws_FN, strict=True) if of_N.any()}
        named = lambda n_N: (self.read(range(n, n + 1))[0].name for n in n_N.tolist())
        return {flaw: findings(len(n_N), named(n_N)) for flaw, n_N in found.items()}

    def _zero(self) -> Sums:
        levels, asked, plan = self.task.quantile_levels, self.task.asked_levels, self.plan
        if self.task.average_over == "points":
            return MetricSums.zero(levels, asked)
        kinds = np.unique(np.stack([plan.roll_N, plan.variate_N, plan.num_targets_N]), axis=1).T.tolist()
        return GroupedSums.zero(((roll, first + v) for roll, first, num in kinds for v in range(num)), levels, asked)

    def _keep_in_step(self, taken: Sequence[int], mine: int, window: EvaluationWindow) -> None:
        """Make the forwards that another rank's batch of this round takes beyond those of `mine`."""
        forwards = {index: num_forward_passes(self.plan, self.plan.batch(index), self.forecaster) for index in taken}
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
        """At the task's `asked_levels`. A forecaster is asked for those to score, which no other level may change, and
        for ends of bands that it was made for; the rest are read between those, flat beyond them."""
        wanted = self.task.asked_levels
        own = {*self.task.quantile_levels, *forecaster.quantile_levels}
        asked = tuple(level for level in wanted if level in own)
        forecasts = forecaster.predict_quantiles(
            inputs,
            self.task.prediction_length,
            asked,
            batch_size=batch_size,
            context_length=self.task.context_length or None,  # so that a model which cannot use it all says so
        )
        return forecasts if asked == wanted else [_at_levels(forecast, asked, wanted) for forecast in forecasts]

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
                    quantile_levels=self.task.asked_levels,
                )
            )
        return tuple(examples)


def _at_levels(forecast_VHQ: np.ndarray, levels: Sequence[float], wanted: Sequence[float]) -> np.ndarray:
    """Linear between the levels and flat beyond them; those that are there stay as they are."""
    place_W = np.interp(wanted, levels, np.arange(len(levels)))
    lower_W = np.floor(place_W).astype(int)
    upper_W, share_W = np.ceil(place_W).astype(int), (place_W - lower_W).astype(forecast_VHQ.dtype)
    low, high = forecast_VHQ[..., lower_W], forecast_VHQ[..., upper_W]
    return np.where(share_W > 0, low + share_W * (high - low), low)


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
    levels = task.asked_levels
    forecast_SHQ = np.concatenate(forecasts)
    label_SH = np.concatenate([window.label_VH for window in windows])
    scale_S = np.concatenate([window.seasonal_error_V for window in windows])
    owner_S = np.repeat(np.arange(len(windows)), [len(window.label_VH) for window in windows])
    names = [task.describe(window.name, window.roll, window.cut) for window in windows]
    names_S = [names[owner] for owner in owner_S.tolist()]
    scored = task.quantile_levels
    try:
        if task.average_over == "points":
            sums: Sums = metric_sums(forecast_SHQ, label_SH, scale_S, levels, names_S, scored)
        else:
            rows_of: dict[Group, list[int]] = {}
            sums_of = lambda r: metric_sums(
                forecast_SHQ[r], label_SH[r], scale_S[r], levels, [names_S[s] for s in r], scored
            )
            groups = ((w.roll, w.variate + v) for w in windows for v in range(len(w.label_VH)))
            for s, group in enumerate(groups):
                rows_of.setdefault(group, []).append(s)
            sums = GroupedSums({group: sums_of(r) for group, r in rows_of.items()})
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
