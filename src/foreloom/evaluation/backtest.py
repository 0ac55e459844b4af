"""Forecasters on rolling windows of the same series, every forecast kept: scores of whichever part is asked for.

Axes: S rows (one target of one window), H horizon steps, Q quantile levels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from foreloom.data.forecast_input import ForecastInput
from foreloom.data.source import Shortened, Source, read_in_turn
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.metrics import METRICS, MetricSums, metric_sums
from foreloom.evaluation.plan import EvaluationWindow, Plan
from foreloom.evaluation.result import EvaluationResult, data_notes, fallback_notes
from foreloom.evaluation.tasks import OpenedTask
from foreloom.models.family import Forecaster
from foreloom.monitoring.progress import Progress

Part = Literal["all", "series", "target", "step", "window"]
MOST_LOOKED_AT = 1000
"""Series whose frequencies are compared."""
SCORED = (*METRICS, "coverage_50", "coverage_80", "coverage_90")
"""Columns of scores."""


@dataclass(frozen=True)
class Backtest:
    """What several forecasters said of the same windows, and what came."""

    task: OpenedTask
    item_S: np.ndarray
    """Number of the series in the source; rows are ordered by it, then by window, then by target."""
    window_S: np.ndarray
    """Number of the window in its series, 0 the oldest."""
    target_S: np.ndarray
    cut_S: np.ndarray
    """Steps of the series before the window."""
    name_S: np.ndarray
    """`item_id`."""
    scale_S: np.ndarray
    """What MASE divides by: the seasonal error of the window's past."""
    label_SH: np.ndarray
    """float64, NaN is missing."""
    forecast_SHQ: Mapping[str, np.ndarray]
    """By forecaster, at the task's `asked_levels`."""
    notes: Sequence[str]
    """Sentences about what the scores do not hold."""

    def sums(self, model: str, rows: np.ndarray | slice = slice(None), steps: slice = slice(None)) -> MetricSums:
        """Of some of the rows and steps."""
        forecast_SHQ, label_SH = self.forecast_SHQ[model][rows, steps], self.label_SH[rows, steps]
        names = self.name_S[rows].tolist()
        levels, scored = self.task.asked_levels, self.task.quantile_levels
        return metric_sums(forecast_SHQ, label_SH, self.scale_S[rows], levels, names, scored)

    def scores(self, *parts: Part) -> list[dict[str, Any]]:
        """A row a forecaster and part: `model`, `by` (all, series, target, step, window), `name` of the part, the
        metrics, coverages, windows and points. Targets are told apart where there are several, and called by number."""
        rows = []
        for part in parts or get_args(Part):
            for name, chosen, steps in self._parts(part):
                for model in self.forecast_SHQ:
                    sums = self.sums(model, chosen, steps)
                    own = sums.scores()
                    counts = {"num_windows": int(sums.num_windows), "num_points": int(sums.num_points)}
                    named = {"model": model, "by": part, "name": str(name)}
                    rows.append(named | {key: own[key] for key in SCORED} | counts)
        return rows

    def _parts(self, part: Part) -> Iterator[tuple[Any, np.ndarray | slice, slice]]:
        every = slice(None)
        if part == "all":
            yield "all", every, every
        elif part == "step":
            for step in range(self.label_SH.shape[1]):
                yield step + 1, every, slice(step, step + 1)
        elif part == "series":
            begins = np.flatnonzero(np.diff(self.item_S, prepend=-1))
            for begin, end in zip(begins, [*begins[1:], len(self.item_S)], strict=True):
                yield self.name_S[begin], np.arange(begin, end), every
        else:
            of_row = self.window_S if part == "window" else self.target_S
            numbers = np.unique(of_row)
            for number in numbers if part == "window" or len(numbers) > 1 else ():
                yield number, np.flatnonzero(of_row == number), every


def rolling_task(
    source: Source,
    prediction_length: int,
    windows: int,
    *,
    step: int | None = None,
    levels: Sequence[float] = (),
    season_length: int = 0,
    context_length: int = 0,
) -> OpenedTask:
    """The last `windows` windows of every series, `step` apart (default: the horizon), with all covariates; the newest
    ends the series. `levels` are to be forecast besides those that are scored.

    ValueError where no series is long enough for one window.
    """
    stride = step or prediction_length
    longest = int(source.lengths.max())
    if longest < prediction_length + 1:
        raise ValueError(
            f"{source.name}: the longest of its {len(source):,} series has {longest:,} steps, and one window of a "
            f"horizon of {prediction_length:,} needs {prediction_length + 1:,} at least. Shorten the horizon."
        )
    return OpenedTask(
        name=source.name,
        path=Path(source.name),
        data=source,
        prediction_length=prediction_length,
        num_rolls=windows,
        stride=stride,
        offset=-(prediction_length + (windows - 1) * stride),
        season_length=season_length,
        context_length=context_length,
        extra_levels=tuple(levels),
        covariates=True,
        variates="joint",
    )


def backtest(
    forecasters: Mapping[str, Forecaster],
    task: OpenedTask,
    *,
    batch_size: int = 256,
    progress: Callable[[str], Progress] | None = None,
) -> Backtest:
    """Forecast every window of the task by each forecaster; `progress(name)` is opened while one is asked."""
    kept: dict[str, list[_Kept]] = {}
    results: dict[str, EvaluationResult] = {}
    for name, forecaster in forecasters.items():
        found: list[_Kept] = []
        with progress(name) if progress else nullcontext() as entered:
            keep = partial(_keep, found)
            results[name] = evaluate(forecaster, [task], batch_size=batch_size, progress=entered, keep=keep)
        kept[name] = sorted(found, key=lambda one: (one.item, one.window.roll))
    first, *_ = kept.values()
    num_targets = [len(one.window.label_VH) for one in first]
    of_row = lambda values: np.repeat(np.array(values), num_targets)
    (result,) = next(iter(results.values())).tasks
    notes = [*fallback_notes(results), *data_notes([result]), *_frequencies(task.data)]
    if result.num_skipped:
        asked = len(task.data) * task.num_rolls
        notes.append(f"{result.num_skipped:,} of {asked:,} windows do not fit into their series, and are left out.")
    return Backtest(
        task=task,
        item_S=of_row([one.item for one in first]),
        window_S=of_row([one.window.roll for one in first]),
        target_S=np.concatenate([np.arange(num) for num in num_targets]),
        cut_S=of_row([one.window.cut for one in first]),
        name_S=np.repeat(np.array([one.window.name for one in first], dtype=object), num_targets),
        scale_S=np.concatenate([one.window.seasonal_error_V for one in first]),
        label_SH=np.concatenate([one.window.label_VH for one in first]),
        forecast_SHQ={name: np.concatenate([one.forecast_VHQ for one in its]) for name, its in kept.items()},
        notes=notes,
    )


def _frequencies(source: Source) -> list[str]:
    """A note where the series are of several: a horizon is so many steps of each."""
    some = np.arange(min(len(source), MOST_LOOKED_AT))
    freqs = Counter(one.freq or "none stated" for one in read_in_turn(source, some))
    if len(freqs) == 1:
        return []
    listed = ", ".join(f"{freq} ({num:,})" for freq, num in freqs.most_common())
    return [f"the series are of several frequencies, {listed}: a horizon is so many steps of each."]


class _Kept(NamedTuple):
    item: int
    window: EvaluationWindow
    """Without its input, which has been forecast."""
    forecast_VHQ: np.ndarray


def _keep(
    found: list[_Kept],
    plan: Plan,
    batch: range,
    windows: Sequence[EvaluationWindow],
    forecasts: Sequence[np.ndarray],
) -> None:
    nothing = ForecastInput(_NOTHING, _NOTHING, 0)
    for n, window, forecast_VHQ in zip(batch, windows, forecasts, strict=True):
        found.append(_Kept(int(plan.item_N[n]), window._replace(input=nothing), forecast_VHQ))


_NOTHING = np.empty((0, 0), np.float32)


def without_future(source: Source) -> Source:
    """The series without the steps at their ends that hold known-ahead covariates and no target, as tables for
    `forecast` have them: there is nothing to score. As it is where series end otherwise."""
    if not source.read(0).future:
        return source
    ahead_I = np.zeros(len(source), np.int64)
    for item, series in enumerate(read_in_turn(source, np.arange(len(source)))):
        observed_T = np.flatnonzero(np.isfinite(series.target_VT).any(axis=0))
        ahead_I[item] = series.length - 1 - observed_T[-1] if len(observed_T) else 0
    if not (ahead_I == ahead_I[0]).all() or not ahead_I[0]:
        return source
    return Shortened(source, source.lengths - ahead_I)
