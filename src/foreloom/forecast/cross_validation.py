"""How well a model forecasts a table or a data set: rolling windows of its past as frames, beside Seasonal Naive.

Axes: S rows (one target of one window), H horizon steps.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa

from foreloom.data.formats.arrow import ArrowSource
from foreloom.data.formats.reader import open_source
from foreloom.data.source import Source, has_covariates
from foreloom.data.tables.as_series import in_zone, write_series_of_rows
from foreloom.data.tables.long_table import LongTable
from foreloom.data.tables.options import TableOptions
from foreloom.data.tables.read import rows_of
from foreloom.evaluation.backtest import Backtest, Part, backtest, rolling_task, without_future
from foreloom.evaluation.baselines import SeasonalNaive
from foreloom.evaluation.skill import BASELINE
from foreloom.forecast.asked import warn_of_covariates
from foreloom.forecast.files import target_names, times_of
from foreloom.models.family import Forecaster
from foreloom.monitoring.progress import Progress

MODEL = "model"
"""What the scores call it, beside `BASELINE`."""


_OF_FORECASTS = ("cutoff", "window", "target_name", "target", "predictions", BASELINE)


@dataclass(frozen=True)
class CrossValidation:
    """Forecasts of rolling windows, and their scores."""

    forecasts: pd.DataFrame
    """A row a series, window, target and step, ordered so: id, timestamp, cutoff (the last time before the window),
    window (0 the oldest), target_name, target (what came), predictions (the median), a column a quantile level, and
    seasonal-naive. Times have the zone that the table states; of series without times the steps are counted. A frame's
    columns of ids and times are called as there."""
    scores: pd.DataFrame
    """A row a forecaster (`model`, and seasonal-naive) and part of the windows: `by` (all, series, target, step,
    window), `name`, the metrics of docs/evaluation.md, coverages, windows and points."""
    notes: Sequence[str]
    """What is not in the scores."""
    kept: Backtest

    def of(self, by: Part) -> pd.DataFrame:
        """The scores of all windows together (`all`), or by series, target, step of the horizon, or window. ValueError
        for anything else."""
        if by not in get_args(Part):
            raise ValueError(f"of({by!r}): scores are by {', '.join(get_args(Part))}.")
        return self.scores[self.scores["by"] == by].drop(columns="by").reset_index(drop=True)

    def __repr__(self) -> str:
        columns = ["model", "WQL", "MASE", "coverage_50", "coverage_80", "coverage_90", "num_windows"]
        return "\n".join([self.of("all")[columns].to_string(index=False), *(f"note: {one}" for one in self.notes)])


@contextmanager
def opened(data: Any, options: TableOptions) -> Generator[Source]:
    """The series of a path, of any layout, or of a frame; what is to be known of them is warned of."""
    with _read(data, options) as (source, _):
        yield without_future(source)


@contextmanager
def _read(data: Any, options: TableOptions) -> Generator[tuple[Source, LongTable | None]]:
    """The series, those of a frame with its table."""
    if isinstance(data, str | Path):
        yield open_source(data, table=options), None
        return
    rows = rows_of(data, "df", options)
    with TemporaryDirectory() as folder:
        written = Path(folder) / "df.arrow"
        table = write_series_of_rows(rows, written)
        for note in rows.notes:
            warnings.warn(note, stacklevel=6)
        yield open_source(written, "df"), table


def cross_validate(
    forecaster: Forecaster,
    data: Any,
    options: TableOptions,
    prediction_length: int,
    levels: Sequence[float],
    *,
    windows: int,
    step: int | None,
    season_length: int | None,
    batch_size: int,
    context_length: int | None,
    progress: Callable[[str], Progress] | None = None,
) -> CrossValidation:
    """See `Model.cross_validation`."""
    with _read(data, options) as (read, long):
        source = without_future(read)
        timestamp = long.time_column if long else options.timestamp_column
        _refuse_names(read.name, {*(long.id_columns if long else options.id_column), timestamp}, levels)
        warn_of_covariates(forecaster, has_covariates(source))
        task = rolling_task(
            source,
            prediction_length,
            windows,
            step=step,
            levels=levels,
            season_length=season_length or 0,
            context_length=context_length or 0,
        )
        kept = backtest({MODEL: forecaster, BASELINE: SeasonalNaive()}, task, batch_size=batch_size, progress=progress)
        table = _forecasts(kept, source, levels, _ids(kept, options, long), timestamp)
        notes = list(kept.notes)
        if table[timestamp].dtype.kind == "M":
            zoned = read.schema if isinstance(read, ArrowSource) else pa.schema([])
            for name in (timestamp, "cutoff"):
                table[name] = in_zone(table[name].to_numpy(), zoned)
        else:
            notes.append(f"no times are stated, in dates and hours: {timestamp} and cutoff count the steps from 0.")
        return CrossValidation(table, pd.DataFrame(kept.scores()), notes, kept)


def _refuse_names(source: str, names: set[str], levels: Sequence[float]) -> None:
    """ValueError where ids or times have a name that another column of the forecasts has."""
    if taken := names & {*_OF_FORECASTS, *map(str, levels)}:
        raise ValueError(f"{source}: a column of the forecasts is called {min(taken)!r} too: rename it in the table.")


def _ids(kept: Backtest, options: TableOptions, long: LongTable | None) -> dict[str, pd.Series]:
    """The columns that name the series, of a frame as they are there, (S,)."""
    if long and long.id_columns:
        return {name: long.id_values(name).take(kept.item_S) for name in long.id_columns}
    return {options.id_column[0] if len(options.id_column) == 1 else "item_id": pd.Series(kept.name_S)}


def _forecasts(
    kept: Backtest, source: Source, levels: Sequence[float], ids: Mapping[str, pd.Series], timestamp: str
) -> pd.DataFrame:
    length = kept.label_SH.shape[1]
    asked = kept.task.asked_levels
    found = {item: source.read(item) for item in np.unique(kept.item_S).tolist()}
    counted = any(one.timestamps is None and (one.start is None or one.freq is None) for one in found.values())
    path = Path(source.name)
    clocks = {item: np.arange(one.length) if counted else times_of(one, path) for item, one in found.items()}
    names = {item: target_names(one) for item, one in found.items()}
    places = list(zip(kept.item_S.tolist(), kept.cut_S.tolist(), kept.target_S.tolist(), strict=True))
    times = [clocks[item][cut : cut + length] for item, cut, _ in places]
    cutoffs = [clocks[item][cut - 1] for item, cut, _ in places]
    targets = [names[item][target] for item, _, target in places]
    by_step = lambda values_S: np.repeat(np.asarray(values_S), length)
    ours_SHQ, median = kept.forecast_SHQ[MODEL], asked.index(0.5)
    columns = {
        **{name: values.repeat(length).array for name, values in ids.items()},
        timestamp: np.concatenate(times),
        "cutoff": by_step(cutoffs),
        "window": by_step(kept.window_S),
        "target_name": by_step(np.array(targets, dtype=object)),
        "target": kept.label_SH.ravel(),
        "predictions": ours_SHQ[..., median].ravel(),
        **{str(level): ours_SHQ[..., asked.index(level)].ravel() for level in levels},
        BASELINE: kept.forecast_SHQ[BASELINE][..., median].ravel(),
    }
    return pd.DataFrame(columns)
