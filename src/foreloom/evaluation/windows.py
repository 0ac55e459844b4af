"""Windows of a task: planned from lengths alone, in the same order on every rank, read and cut batch by batch.

Axes: V target variates, T time, L context steps, H horizon steps, R rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from foreloom.data.forecast_input import ForecastInput, forecast_input
from foreloom.data.source import Series, Source, read_in_turn
from foreloom.evaluation.grouped_sums import Group
from foreloom.evaluation.metrics import seasonal_error
from foreloom.evaluation.season import season_length
from foreloom.evaluation.tasks import EvaluationTask


@dataclass(frozen=True)
class PlannedWindow:
    """One cut of one series: all its targets, or one of them."""

    source: int
    item: int
    cut: int
    variates: tuple[int, ...]
    num_rows: int
    roll: int
    """Number of the window in its series."""


@dataclass(frozen=True)
class EvaluationWindow:
    """A window with what is needed to forecast and to score it."""

    name: str
    """`item_id`, with the variate where a series has several, as shown to people."""
    input: ForecastInput
    label_VH: np.ndarray
    """float32, NaN is missing."""
    seasonal_error_V: np.ndarray
    """float64, of the whole past."""
    season_length: int
    cut: int
    """Steps of the series before the window."""
    groups_V: tuple[Group, ...]
    """What each target's score is averaged with."""


@dataclass(frozen=True)
class Plan:
    """The batches of a task and what was left out."""

    batches: list[list[PlannedWindow]]
    num_series: int
    """Series with at least one window."""
    num_skipped: int
    """Windows left out because no past step is before them."""


def plan_windows(task: EvaluationTask, sources: Sequence[Source], context_length: int, batch_size: int) -> Plan:
    """Group the windows of a task into batches of at most `batch_size` rows (one window may hold more).

    Windows of similar context length share a batch, which keeps padding small. ValueError where no series is long
    enough.
    """
    planned: list[PlannedWindow] = []
    num_series = 0
    chosen = _chosen(task, sources)
    for s, source in enumerate(sources):
        for item in chosen[s]:
            length, num_rows = int(source.lengths[item]), int(source.num_rows[item])
            rolls = task.rolls(length, _timestamps(task, source, item) if task.first_cut else None)
            if not rolls:
                continue
            num_series += 1
            num_targets = 1 if num_rows == 1 else source.read(item).target_VT.shape[0]
            num_covariates = num_rows - num_targets if task.covariates else 0
            groups = [(v,) for v in range(num_targets)] if task.variates == "split" else [tuple(range(num_targets))]
            planned += [
                PlannedWindow(s, item, cut, variates, len(variates) + num_covariates, roll)
                for roll, cut in rolls.items()
                for variates in groups
            ]
    num_all = sum(map(len, chosen))
    if not planned:
        longest = max(
            (int(source.lengths[i]) for source, items in zip(sources, chosen, strict=True) for i in items), default=0
        )
        raise ValueError(
            f"task {task.name!r}: none of its {num_all} series is long enough for a window of "
            f"{task.prediction_length} steps with a past (the longest has {longest} steps). Shorten prediction_length, "
            "offset or num_rolls."
        )
    num_kept = len({(p.source, p.item, p.cut) for p in planned})
    planned.sort(key=lambda p: min(p.cut, context_length))
    return Plan(_fill(planned, batch_size), num_series, num_all * task.num_rolls - num_kept)


def _chosen(task: EvaluationTask, sources: Sequence[Source]) -> list[Sequence[int]]:
    """The series of each source that `freq` and `leave_out` let through; nothing is read where neither is set."""
    everything: list[Sequence[int]] = [range(len(source)) for source in sources]
    if task.freq is None and not task.leave_out:
        return everything
    absent, found = set(task.leave_out), set[str]()
    chosen: list[Sequence[int]] = []
    for source, items in zip(sources, everything, strict=True):
        kept = []
        for item, series in zip(items, read_in_turn(source, np.asarray(items)), strict=True):
            freq = series.freq or "none"
            found.add(freq)
            absent.discard(series.item_id)
            if task.freq in (None, freq) and series.item_id not in task.leave_out:
                kept.append(item)
        chosen.append(kept)
    if absent:
        raise ValueError(
            f"task {task.name!r}: leave_out names series that its data do not hold: {', '.join(sorted(absent))}. "
            "Correct the item_id, or remove it."
        )
    if not any(chosen):
        raise ValueError(
            f"task {task.name!r}: no series is left; freq is {task.freq!r}, its data state "
            f"{', '.join(sorted(found))}, and {len(task.leave_out)} are left out."
        )
    return chosen


def _timestamps(task: EvaluationTask, source: Source, item: int) -> np.ndarray:
    series = source.read(item)
    if series.timestamps is None:
        raise ValueError(
            f"task {task.name!r}: its windows begin at {task.first_cut}, but series {series.item_id!r} of "
            f"{source.name} does not state its times. Add a column 'timestamp', or use offset."
        )
    return series.timestamps


def _fill(planned: Sequence[PlannedWindow], batch_size: int) -> list[list[PlannedWindow]]:
    batches: list[list[PlannedWindow]] = []
    num_rows = batch_size
    for window in planned:
        if num_rows + window.num_rows > batch_size:
            batches.append([])
            num_rows = 0
        batches[-1].append(window)
        num_rows += window.num_rows
    return batches


def _season_of(series: Series, source: Source) -> int:
    try:
        return season_length(series.freq) if series.freq else 1
    except ValueError as error:
        raise ValueError(
            f"{source.name}: series {series.item_id!r}: {error} Correct its freq, or give the task a season_length."
        ) from error


def window_reader(
    task: EvaluationTask, sources: Sequence[Source], context_length: int
) -> Callable[[PlannedWindow], EvaluationWindow]:
    """A function that reads and cuts one planned window; the series read last are kept."""

    @lru_cache(maxsize=8)
    def read(source: int, item: int) -> Series:
        return sources[source].read(item)

    @lru_cache(maxsize=8)
    def scales(source: int, item: int, cut: int, m: int) -> np.ndarray:
        past_VT = read(source, item).target_VT[:, :cut]
        if task.average_over == "targets" and cut <= m:  # fev leaves out what GluonTS scales with a season of 1
            return np.full(len(past_VT), np.nan)
        return seasonal_error(past_VT, m)

    def cut_window(planned: PlannedWindow) -> EvaluationWindow:
        series = read(planned.source, planned.item)
        end = planned.cut + task.prediction_length
        variates = list(planned.variates)
        m = task.season_length or _season_of(series, sources[planned.source])
        several = task.variates == "split" and len(series.target_VT) > 1
        return EvaluationWindow(
            name=f"{series.item_id}[{variates[0]}]" if several else series.item_id,
            input=_forecast_input(task, series, variates, planned.cut, context_length),
            label_VH=np.asarray(series.target_VT[variates, planned.cut : end], dtype=np.float32),
            seasonal_error_V=scales(planned.source, planned.item, planned.cut, m)[variates],
            season_length=m,
            cut=planned.cut,
            groups_V=tuple((planned.roll, variate) for variate in planned.variates),
        )

    return cut_window


def _forecast_input(
    task: EvaluationTask, series: Series, variates: list[int], cut: int, context_length: int
) -> ForecastInput:
    """The newest `context_length` steps; categories are encoded over the whole past, as `Model.predict` does."""
    past: Mapping[str, np.ndarray] = {**series.past, **series.future} if task.covariates else {}
    ahead = series.future if task.covariates else {}
    keep = 0 if past else max(cut - context_length, 0)
    whole = forecast_input(
        series.target_VT[variates, keep:cut],
        {name: values[:cut] for name, values in past.items()},
        {name: values[cut : cut + task.prediction_length] for name, values in ahead.items()},
        task.prediction_length,
    )
    return replace(whole, context_RC=whole.context_RC[:, max(cut - keep - context_length, 0) :].copy())
