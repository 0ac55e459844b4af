"""A long table, one row a series and time step, as things to forecast; and forecasts as a table.

Axes: T rows sorted by series (as first met), then time; N series, V targets, H horizon steps, Q levels.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from foreloom.data.forecast_input import ForecastInput, forecast_input
from foreloom.forecast.origin import Origin
from foreloom.forecast.sorted_rows import SortedRows
from foreloom.forecast.timeline import Timeline

LONE_ID = "series"
_NIXTLA = {"item_id": "unique_id", "timestamp": "ds", "target": "y"}


@dataclass(frozen=True)
class Table:
    """A table that was read and found sound."""

    id_column: str
    timestamp_column: str
    targets: tuple[str, ...]
    ids_N: pd.Index
    starts: np.ndarray
    """Series n has rows starts[n]:starts[n + 1]."""
    target_VT: np.ndarray
    past: dict[str, np.ndarray]
    """Every covariate over the past, (T,): float32, or labels."""
    future: dict[str, np.ndarray]
    """The covariates known ahead, (N * H,)."""
    ahead: pd.DatetimeIndex
    """The time steps to forecast, N * H."""

    @classmethod
    def read(
        cls,
        df: pd.DataFrame,
        future_df: pd.DataFrame | None,
        prediction_length: int,
        id_column: str = "item_id",
        timestamp_column: str = "timestamp",
        target: str | Sequence[str] = "target",
        freq: str | None = None,
    ) -> Table:
        """Check and sort `df` and `future_df` (see `Model.predict_df`); ValueError is a sentence for their owner."""
        origin = Origin.of(df, "df")
        if df.empty:
            raise ValueError(f"{origin.name} has no rows: there is nothing to forecast.")
        _check_unique(df, origin)
        df = with_ids(df, id_column, timestamp_column)
        id_column, timestamp_column = _column(df, id_column, origin), _column(df, timestamp_column, origin)
        asked = [target] if isinstance(target, str) else list(target)
        targets = tuple(_column(df, name, origin) for name in asked)
        _check_distinct([id_column, timestamp_column, *targets])
        rows = SortedRows.read(df, id_column, timestamp_column, origin, ids=None)
        timeline = Timeline.read(rows.timestamps, rows.starts, rows.ids.tolist(), freq)
        ahead = timeline.ahead(prediction_length)

        covariates = [name for name in df.columns if name not in (id_column, timestamp_column, *targets)]
        past = {name: rows.covariate(name) for name in covariates}
        future: dict[str, np.ndarray] = {}
        if future_df is not None:
            _check_unique(future_df, Origin.of(future_df, "future_df"))
            future_df = with_ids(future_df, id_column, timestamp_column)
            known = _known_ahead(df, future_df, id_column, timestamp_column, targets)
            later = SortedRows.read(
                future_df, id_column, timestamp_column, Origin.of(future_df, "future_df"), ids=rows.ids
            )
            _check_future(later, ahead, prediction_length, timeline.freq)
            future = {name: later.covariate(name, like=past[name]) for name in known}
        return cls(
            id_column=id_column,
            timestamp_column=timestamp_column,
            targets=targets,
            ids_N=rows.ids,
            starts=rows.starts,
            target_VT=np.stack([rows.numbers(name) for name in targets]),
            past=past,
            future=future,
            ahead=ahead,
        )

    def inputs(self) -> list[ForecastInput]:
        """One thing to forecast a series."""
        length = len(self.ahead) // len(self.ids_N)
        inputs = []
        for n, (start, end) in enumerate(zip(self.starts[:-1], self.starts[1:], strict=True)):
            horizon = slice(n * length, (n + 1) * length)
            inputs.append(
                forecast_input(
                    self.target_VT[:, start:end],
                    {name: values[start:end] for name, values in self.past.items()},
                    {name: values[horizon] for name, values in self.future.items()},
                    length,
                )
            )
        return inputs

    def result(self, forecasts: Sequence[np.ndarray], quantile_levels: Sequence[float], num_shown: int) -> pd.DataFrame:
        """Forecasts (V, H, Q) a series as rows (series, target, step); the first `num_shown` levels get columns."""
        forecast_NVHQ = np.stack(forecasts)
        num_series, num_targets, length, _ = forecast_NVHQ.shape
        flat = forecast_NVHQ.reshape(-1, len(quantile_levels))
        steps = np.arange(num_series * length).reshape(num_series, 1, length).repeat(num_targets, axis=1).ravel()
        columns = {
            self.id_column: self.ids_N.take(np.repeat(np.arange(num_series), num_targets * length)),
            self.timestamp_column: self.ahead.take(steps),
            "target_name": np.tile(np.repeat(np.array(self.targets, dtype=object), length), num_series),
            "predictions": flat[:, list(quantile_levels).index(0.5)],
        }
        for i, level in enumerate(quantile_levels[:num_shown]):
            columns[str(level)] = flat[:, i]
        return pd.DataFrame(columns)


def with_ids(df: pd.DataFrame, id_column: str, timestamp_column: str) -> pd.DataFrame:
    """A table without the usual id columns is one series, called "series", unless a time stands in it twice."""
    if id_column not in _NIXTLA or id_column in df or _NIXTLA[id_column] in df:
        return df
    times = next((name for name in (timestamp_column, _NIXTLA["timestamp"]) if name in df), None)
    return df if times is None or df[times].duplicated().any() else df.assign(**{id_column: LONE_ID})


def _column(df: pd.DataFrame, name: str, origin: Origin) -> str:
    """`name`, or Nixtla's word where a default name is absent."""
    if name in df.columns:
        return name
    if _NIXTLA.get(name) in df.columns:
        return _NIXTLA[name]
    raise ValueError(f"{origin.name} has no column {name!r}. {_nearest(name, df.columns)}")


def _check_unique(df: pd.DataFrame, origin: Origin) -> None:
    if not df.columns.is_unique:
        twice = df.columns[df.columns.duplicated()][0]
        raise ValueError(f"{origin.name} has two columns {twice!r}. Rename or drop one.")


def _check_distinct(used: Sequence[str]) -> None:
    """Do the id, the time and the targets, one at least, have a column each?"""
    for name in used:
        if used.count(name) > 1:
            raise ValueError(
                f"column {name!r} is asked for twice; the id, the time and each target need one of their own."
            )
    if len(used) < 3:
        raise ValueError("target is an empty list: name the column to forecast.")


def _nearest(name: object, known: Iterable[object]) -> str:
    names = [str(other) for other in known]
    close = difflib.get_close_matches(str(name), names, n=1)
    columns = f"Its columns: {', '.join(names)}."
    return f"Did you mean {close[0]!r}? {columns}" if close else columns


def _known_ahead(
    df: pd.DataFrame, future_df: pd.DataFrame, id_column: str, timestamp_column: str, targets: Sequence[str]
) -> list[str]:
    later = Origin.of(future_df, "future_df").name
    for name in (id_column, timestamp_column):
        if name not in future_df.columns:
            raise ValueError(f"{later} has no column {name!r}. {_nearest(name, future_df.columns)}")
    known = [name for name in future_df.columns if name not in (id_column, timestamp_column)]
    for name in known:
        if name in targets:
            raise ValueError(f"{later} holds the target column {name!r}: drop it, it is what is forecast.")
        if name not in df.columns:
            earlier = Origin.of(df, "df").name
            raise ValueError(f"{later} has a column {name!r} that {earlier} lacks. {_nearest(name, df.columns)}")
    return known


def _check_future(rows: SortedRows, ahead: pd.DatetimeIndex, prediction_length: int, freq: str) -> None:
    counts_N = np.diff(rows.starts)
    if (counts_N != prediction_length).any():
        n = int((counts_N != prediction_length).argmax())
        raise ValueError(
            f"{rows.name} has {counts_N[n]} rows for series {rows.ids.tolist()[n]!r}; prediction_length is "
            f"{prediction_length}, so it needs that many, from {ahead[n * prediction_length]} on."
        )
    stamps = rows.timestamps
    if (stamps.tz is None) != (ahead.tz is None):
        raise ValueError("of df and future_df only one states a time zone; give both the same.")
    wrong = stamps != ahead
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"{rows.name} has {stamps[row]} in {rows.place(row)} where {ahead[row]} comes next: the steps of a "
            f"series follow its last time in the past at {freq}."
        )
