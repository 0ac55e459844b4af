"""The windows of a task: planned from lengths alone, in the same order on every rank, read and cut batch by batch.

Axes: I series, N windows, B batches, V target variates, T time, L context steps, H horizon steps, R rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from foreloom.data.forecast_input import ForecastInput, forecast_input
from foreloom.data.source import Series, Source, read_in_turn
from foreloom.evaluation.metrics import seasonal_error
from foreloom.evaluation.tasks import EvaluationTask, season_length


@dataclass(frozen=True)
class Plan:
    """The windows of a task in the order they are scored, int64 (N,) each, and how they share batches."""

    task: EvaluationTask
    sources: Sequence[Source]
    context_length: int
    """The most steps that the forecaster is shown."""
    source_N: np.ndarray
    item_N: np.ndarray
    cut_N: np.ndarray
    """Steps of the series before the window."""
    roll_N: np.ndarray
    """Number of the window in its series."""
    variate_N: np.ndarray
    """The first of its targets."""
    num_targets_N: np.ndarray
    num_rows_N: np.ndarray
    """Targets and the covariates that are shown."""
    begin_B: np.ndarray
    """(B + 1,): the first window of each batch; last, how many windows there are."""
    num_series: int
    """Series with at least one window."""
    num_skipped: int
    """Windows left out because no past step is before them."""
    too_short: Sequence[tuple[int, int]]
    """Source and item of every series without a window."""

    @property
    def num_windows(self) -> int:
        return len(self.cut_N)

    @property
    def shows_covariates(self) -> bool:
        """Is the forecaster given any?"""
        return bool((self.num_rows_N > self.num_targets_N).any())

    @property
    def num_batches(self) -> int:
        return len(self.begin_B) - 1

    def batch(self, index: int) -> range:
        """The windows of a batch."""
        return range(int(self.begin_B[index]), int(self.begin_B[index + 1]))


class EvaluationWindow(NamedTuple):
    """A window with what is needed to forecast and to score it."""

    name: str
    """`item_id`, with the variate where a series has several, as shown to people."""
    input: ForecastInput
    label_VH: np.ndarray
    """float64, NaN is missing."""
    seasonal_error_V: np.ndarray
    """float64, of the whole past; NaN where the task does not scale errors."""
    season_length: int
    cut: int
    roll: int
    variate: int


def plan_windows(task: EvaluationTask, sources: Sequence[Source], context_length: int, batch_size: int) -> Plan:
    """Group the windows of a task into batches of at most `batch_size` rows (one window may hold more).

    Windows of similar context length share a batch, which keeps padding small. ValueError where no series is long
    enough.
    """
    if task.context_length:
        context_length = min(context_length, task.context_length)
    chosen = _chosen(task, sources)
    parts = [_windows_of(task, s, source, chosen[s]) for s, source in enumerate(sources)]
    source_N, item_N, cut_N, roll_N, variate_N, num_targets_N, num_rows_N = np.concatenate(parts, axis=1)
    num_all = sum(map(len, chosen))
    if not len(cut_N):
        longest = max(
            (int(source.lengths[c].max()) for source, c in zip(sources, chosen, strict=True) if len(c)), default=0
        )
        raise ValueError(
            f"task {task.name!r}: none of its {num_all} series is long enough for a window of "
            f"{task.prediction_length} steps with a past (the longest has {longest} steps). Shorten prediction_length, "
            "offset or num_rolls."
        )
    num_kept = int(np.count_nonzero(variate_N == 0))
    order = np.argsort(np.minimum(cut_N, context_length), kind="stable")
    return Plan(
        task, sources, context_length,
        *(one[order] for one in (source_N, item_N, cut_N, roll_N, variate_N, num_targets_N, num_rows_N)),
        begin_B=_batches(num_rows_N[order], batch_size),
        num_series=sum(len(np.unique(part[1])) for part in parts),
        num_skipped=0 if task.every_window else num_all * task.num_rolls - num_kept,
        too_short=[
            (s, item) for s, part in enumerate(parts) for item in np.setdiff1d(chosen[s], part[1]).tolist()
        ],
    )  # fmt: skip


def _windows_of(task: EvaluationTask, number: int, source: Source, item_I: np.ndarray) -> np.ndarray:
    """The windows of a source, (7, N): its number, item, cut, roll, first target, targets, rows."""
    first_I = _first_cuts(task, source, item_I) if task.first_cut else None
    i_N, roll_N, cut_N = task.rolls(source.lengths[item_I], first_I)
    item_N = item_I[i_N]
    num_targets_N = source.num_targets[item_N].astype(np.int64)
    num_covariates_N = (source.num_rows[item_N] - num_targets_N) * task.covariates
    variate_N = np.zeros_like(item_N)
    if task.variates == "split":
        repeat_N = np.repeat(np.arange(len(item_N)), num_targets_N)
        item_N, cut_N, roll_N, num_covariates_N = (one[repeat_N] for one in (item_N, cut_N, roll_N, num_covariates_N))
        ends_N = np.cumsum(num_targets_N)
        variate_N = np.arange(len(repeat_N)) - (ends_N - num_targets_N)[repeat_N]
        num_targets_N = np.ones_like(item_N)
    number_N = np.full_like(item_N, number)
    return np.stack([number_N, item_N, cut_N, roll_N, variate_N, num_targets_N, num_targets_N + num_covariates_N])


def _first_cuts(task: EvaluationTask, source: Source, item_I: np.ndarray) -> np.ndarray:
    """Where the first window of each series begins, by the date of the last step before it."""
    first = []
    for series in read_in_turn(source, item_I):
        if series.timestamps is None:
            raise ValueError(
                f"task {task.name!r}: its windows begin at {task.first_cut}, but series {series.item_id!r} of "
                f"{source.name} does not state its times. Add a column 'timestamp', or use offset."
            )
        first.append(np.searchsorted(series.timestamps, np.datetime64(task.first_cut), side="right"))
    return np.array(first, dtype=np.int64)


def _chosen(task: EvaluationTask, sources: Sequence[Source]) -> list[np.ndarray]:
    """The series of each source that `freq` and `leave_out` let through; nothing is read where neither is set."""
    everything = [np.arange(len(source)) for source in sources]
    if task.freq is None and not task.leave_out:
        return everything
    absent, found = set(task.leave_out), set[str]()
    chosen = []
    for source, items in zip(sources, everything, strict=True):
        kept = []
        for item, series in zip(items, read_in_turn(source, items), strict=True):
            freq = series.freq or "none"
            found.add(freq)
            absent.discard(series.item_id)
            if task.freq in (None, freq) and series.item_id not in task.leave_out:
                kept.append(item)
        chosen.append(np.array(kept, dtype=np.int64))
    if absent:
        raise ValueError(
            f"task {task.name!r}: leave_out names series that its data do not hold: {', '.join(sorted(absent))}. "
            "Correct the item_id, or remove it."
        )
    if not any(map(len, chosen)):
        raise ValueError(
            f"task {task.name!r}: no series is left; freq is {task.freq!r}, its data state "
            f"{', '.join(sorted(found))}, and {len(task.leave_out)} are left out."
        )
    return chosen


def _batches(num_rows_N: np.ndarray, batch_size: int) -> np.ndarray:
    """The first window of each batch, as many windows together as have `batch_size` rows; last, their number."""
    rows_up_to_N = np.cumsum(num_rows_N)
    begins, before = [0], 0
    while begins[-1] < len(num_rows_N):
        end = max(int(np.searchsorted(rows_up_to_N, before + batch_size, side="right")), begins[-1] + 1)
        before = int(rows_up_to_N[end - 1])
        begins.append(end)
    return np.array(begins)


def window_reader(plan: Plan) -> Callable[[range], list[EvaluationWindow]]:
    """A function that reads and cuts windows of the plan, a batch at a time; the series read last are kept."""
    task, horizon = plan.task, plan.task.prediction_length

    @lru_cache(maxsize=8)
    def read(source: int, item: int) -> tuple[Series, int]:
        """A series and its season."""
        series = plan.sources[source].read(item)
        return series, task.season_length or _season_of(series, plan.sources[source])

    @lru_cache(maxsize=8)
    def scales(source: int, item: int, cut: int) -> np.ndarray:
        series, m = read(source, item)
        past_VT = series.target_VT[:, :cut]
        if task.average_over == "targets" and cut <= m:  # fev leaves out what GluonTS scales with a season of 1
            return np.full(len(past_VT), np.nan)
        return seasonal_error(past_VT, m)

    @lru_cache(maxsize=8)
    def unknown(num_targets: int) -> tuple[np.ndarray, np.ndarray]:
        """A future and scales of which nothing is known."""
        return np.full((num_targets, horizon), np.nan, dtype=np.float32), np.full(num_targets, np.nan)

    def window(source: int, item: int, cut: int, roll: int, variate: int, num_targets: int) -> EvaluationWindow:
        series, season = read(source, item)
        targets = slice(variate, variate + num_targets)
        unknown_VH, no_scale_V = unknown(num_targets)
        several = task.variates == "split" and len(series.target_VT) > 1
        return EvaluationWindow(
            name=f"{series.item_id}[{variate}]" if several else series.item_id,
            input=_forecast_input(task, series, targets, cut, plan.context_length, unknown_VH),
            label_VH=np.asarray(series.target_VT[targets, cut : cut + horizon], dtype=np.float64),
            seasonal_error_V=no_scale_V if task.every_window else scales(source, item, cut)[targets],
            season_length=season,
            cut=cut,
            roll=roll,
            variate=variate,
        )

    def windows(numbers: range) -> list[EvaluationWindow]:
        columns = (plan.source_N, plan.item_N, plan.cut_N, plan.roll_N, plan.variate_N, plan.num_targets_N)
        return list(map(window, *(one_N[numbers.start : numbers.stop].tolist() for one_N in columns)))

    return windows


def _season_of(series: Series, source: Source) -> int:
    try:
        return season_length(series.freq) if series.freq else 1
    except ValueError as error:
        raise ValueError(
            f"{source.name}: series {series.item_id!r}: {error} Correct its freq, or give the task a season_length."
        ) from error


def _forecast_input(
    task: EvaluationTask, series: Series, targets: slice, cut: int, context_length: int, unknown_VH: np.ndarray
) -> ForecastInput:
    """The newest `context_length` steps; categories are encoded over the whole past, as `Model.predict` does."""
    newest = slice(max(cut - context_length, 0), cut)
    past: Mapping[str, np.ndarray] = {**series.past, **series.future} if task.covariates else {}
    if not past:
        context_VL = np.array(series.target_VT[targets, newest])
        context_VL[np.isinf(context_VL)] = np.nan
        return ForecastInput(context_VL, unknown_VH, len(context_VL))
    whole = forecast_input(
        series.target_VT[targets, :cut],
        {name: values[:cut] for name, values in past.items()},
        {name: values[cut : cut + task.prediction_length] for name, values in series.future.items()},
        task.prediction_length,
    )
    return replace(whole, context_RC=whole.context_RC[:, newest].copy())
