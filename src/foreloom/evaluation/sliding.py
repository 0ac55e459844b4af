"""Forecasters scored on every window of data sets at several horizons: what `evaluate --data` and the suite ltsf do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from foreloom.data.columns import ID_NAMES
from foreloom.data.formats.reader import open_source
from foreloom.data.source import MemorySource, Source, has_covariates
from foreloom.data.tables.options import TableOptions
from foreloom.data.tables.read import read_names
from foreloom.data.tables.roles import TARGET_NAMES
from foreloom.evaluation.baselines import Naive
from foreloom.evaluation.evaluate import Evaluator, evaluate_all
from foreloom.evaluation.ltsf import HORIZONS, WindowProtocol, default_context, read_ltsf
from foreloom.evaluation.result import Evaluation, TaskResult, data_notes, examples_of, fallback_notes
from foreloom.evaluation.skill import BASELINE
from foreloom.evaluation.tasks import SlidingTask
from foreloom.models.family import Forecaster

Normalization = Literal["none", "context"]
"""Is the forecaster to take the values as they are, or to normalise each context as it does for users?"""
LAST_VALUE = "last-value"


@dataclass(frozen=True)
class SlidingOptions:
    """How a data set becomes windows. What is None is chosen by the data."""

    horizons: tuple[int, ...] | None = None
    """Default: 96, 192, 336 and 720 for a CSV, 96 for other data."""
    context_length: int | None = None
    """Default by horizon, see `evaluation.ltsf.default_context`; never more than the model uses."""
    protocol: WindowProtocol = "standard"
    normalization: Normalization = "none"
    channels: tuple[str, ...] | None = None
    """Columns of a CSV."""
    date_column: str | None = None
    """Of a CSV."""
    season_length: int | None = None
    """Default: by the frequency of the data."""
    table: TableOptions = field(default_factory=TableOptions)
    """Of a table with a row a series and time step: what it does not say itself; a CSV is read as one then."""


@dataclass(frozen=True)
class Horizon:
    """A data set at one horizon: a row of the table a model."""

    name: str
    data: str
    steps: int
    task: Callable[[str, int, int], SlidingTask]
    """task(name, prediction_length, context_length); ValueError where the data are too short."""
    is_scaled: bool
    """Does the data set's protocol bring the values to unit scale?"""


def horizons_of(data: Path, options: SlidingOptions, named: Sequence[tuple[str, int]] | None = None) -> list[Horizon]:
    """The horizons of a data set, which is read once: those of the options, or `named` ones.

    A CSV is read by the LTSF protocol unless it is a long table, anything else as series in raw values.
    """
    is_csv = ".csv" in data.suffixes and not _is_long(data, options)
    task = _csv_tasks(data, options) if is_csv else _raw_tasks(data, options)
    steps = options.horizons or (HORIZONS if is_csv else HORIZONS[:1])
    named = named or [(f"{data.stem}-{one}", one) for one in steps]
    return [Horizon(name, data.stem, one, task, is_csv) for name, one in named]


def _is_long(data: Path, options: SlidingOptions) -> bool:
    """Has a CSV a row a series and time step, as its names or its owner say?"""
    if options.table != TableOptions() or options.date_column or options.channels:
        return options.table != TableOptions()
    names = read_names(data) if data.is_file() else []
    return bool({*ID_NAMES} & {*names}) and bool({*TARGET_NAMES} & {*names})


def _csv_tasks(data: Path, options: SlidingOptions) -> Callable[[str, int, int], SlidingTask]:
    table = read_ltsf(
        data, channels=options.channels, date_column=options.date_column, season_length=options.season_length
    )
    return lambda name, horizon, context: table.task(horizon, context, options.protocol, name=name)


def _raw_tasks(data: Path, options: SlidingOptions) -> Callable[[str, int, int], SlidingTask]:
    for setting in ("channels", "date_column"):
        if getattr(options, setting) is not None:
            raise ValueError(f"{data}: {setting} names columns of a CSV; other data are scored whole. Leave it out.")
    source = open_source(data, table=options.table)
    return lambda name, horizon, context: raw_task(
        source, horizon, context, options.protocol, name=name, path=data, season_length=options.season_length
    )


def raw_task(
    source: Source,
    prediction_length: int,
    context_length: int,
    protocol: WindowProtocol = "standard",
    *,
    name: str = "",
    path: Path = Path(),
    season_length: int | None = None,
) -> SlidingTask:
    """Every window of every target of a source, in its own units; the season by each series' frequency unless given."""
    is_last_left_out = protocol == "timemoe"
    need, longest = context_length + prediction_length + is_last_left_out, int(source.lengths.max(initial=0))
    if longest < need:
        raise ValueError(
            f"none of the {source.num_targets.sum():,} series is long enough: a context of {context_length:,} and a "
            f"horizon of {prediction_length:,} steps need {need:,} (protocol {protocol}), the longest "
            f"has {longest:,}. Use a shorter context or horizon."
        )
    if is_last_left_out:
        series = map(source.read, range(len(source)))
        source = MemorySource([replace(one, target_VT=one.target_VT[:, :-1]) for one in series], source.name)
    return SlidingTask(
        name=name,
        path=path,
        data=source,
        prediction_length=prediction_length,
        context_length=context_length,
        min_past=context_length,
        season_length=season_length or 0,
    )


def evaluate_sliding(
    forecasters: Mapping[str, Forecaster],
    horizons: Sequence[Horizon],
    options: SlidingOptions,
    evaluator: Evaluator = evaluate_all,
) -> Evaluation:
    """Score forecasters, the last value and Seasonal Naive among them, on every window.

    All see the same contexts. A horizon that the data are too short for is noted and the others run; ValueError where
    none can.
    """
    tasks, notes = plan_horizons(
        horizons, options.context_length, min(one.context_length for one in forecasters.values())
    )
    asked = {(task.prediction_length, task.context_length) for task in tasks.values() if task}
    for forecaster in forecasters.values():
        # Lengths that do not fit a model are refused before hours of forecasts.
        for horizon, context_length in asked:
            forecaster.predict_quantiles([], horizon, [0.5], context_length=context_length)
    raw = [label for label, one in forecasters.items() if one.on_scaled_data() is not one]
    as_is = options.normalization == "none"
    if as_is and raw and not all(horizon.is_scaled for horizon in horizons):
        notes.append(
            f"{' and '.join(raw)} expects values of unit scale and was given raw ones, as in the published "
            "evaluation; --normalization context scores it as it forecasts for users."
        )
    entered = {label: one.on_scaled_data() if as_is else one for label, one in forecasters.items()}
    baseline = entered.pop(BASELINE)
    if not any(isinstance(one, Naive) for one in entered.values()):
        entered[LAST_VALUE] = Naive()
    entered[BASELINE] = baseline
    scored = [task for task in tasks.values() if task]
    results = evaluator(entered, scored)
    if lacking := [one.name for one in scored if has_covariates(one.data)]:
        notes.append(
            f"every window is scored on values alone: no model is given the covariates of {', '.join(lacking)}. "
            "foreloom backtest gives them, and so do tasks with covariates: true."
        )
    of_task = {label: {task.name: task for task in result.tasks} for label, result in results.items()}
    return Evaluation(
        rows=[
            _row(label, one, tasks[one.name], of_task[label].get(one.name), options)
            for label in entered
            for one in horizons
        ],
        examples=examples_of({label: results[label] for label in results if label in forecasters}),
        notes=[*notes, *fallback_notes(results), *data_notes(results[BASELINE].tasks)],
    )


def plan_horizons(
    horizons: Sequence[Horizon], context_length: int | None, most_context: int
) -> tuple[dict[str, SlidingTask | None], list[str]]:
    """The task of each horizon, None where there is none, and sentences about what is not as usual."""
    if context_length is not None and context_length > most_context:
        raise ValueError(
            f"a context of {context_length:,} steps was asked for, but the model uses {most_context:,} at most. Ask "
            f"for {most_context} or less."
        )
    tasks: dict[str, SlidingTask | None] = {}
    notes = []
    is_one_set = len({one.data for one in horizons}) == 1
    for one in horizons:
        what = f"horizon {one.steps}" if is_one_set else one.name
        usual = default_context(one.steps)
        context = context_length or min(usual, most_context)
        try:
            tasks[one.name] = one.task(one.name, one.steps, context)
        except ValueError as error:
            tasks[one.name] = None
            notes.append(f"{what} was not scored. {error}")
            continue
        if not context_length and context < usual:
            notes.append(f"{what}: the context is {context:,} steps, all that the model uses, instead of {usual:,}.")
    if not any(tasks.values()):
        raise ValueError("\n".join(notes))
    return tasks, notes


def _row(
    model: str, horizon: Horizon, task: SlidingTask | None, result: TaskResult | None, options: SlidingOptions
) -> dict[str, Any]:
    """A row of the CSV; a task that could not be scored has no windows and NaN as scores."""
    return {
        "model": model,
        "task": horizon.name,
        "data": horizon.data,
        "horizon": horizon.steps,
        "context": task.context_length if task else 0,
        "protocol": options.protocol,
        "normalization": options.normalization,
        "MSE": result.scores["MSE"] if result else math.nan,
        "MAE": result.scores["MAE"] if result else math.nan,
        "num_windows": int(result.sums.num_windows) if result else 0,
        "num_channels": int(task.data.num_targets.sum()) if task else 0,
        "num_points": int(result.sums.num_points) if result else 0,
        "seconds": round(result.seconds, 3) if result else 0.0,
    }
