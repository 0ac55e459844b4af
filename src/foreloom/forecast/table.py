"""A long table, one row a series and time step, as things to forecast; and forecasts as a table.

Axes: T rows sorted by series (as first met), then time; N series, V targets, H horizon steps, Q levels.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.api import types

from foreloom.data.forecast_input import forecast_input
from foreloom.data.windows import ForecastInput
from foreloom.forecast.origin import Origin
from foreloom.forecast.timeline import Timeline

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
        id_column, timestamp_column = _column(df, id_column, origin), _column(df, timestamp_column, origin)
        asked = [target] if isinstance(target, str) else list(target)
        targets = tuple(_column(df, name, origin) for name in asked)
        rows = _SortedRows.read(df, id_column, timestamp_column, origin, ids=None)
        timeline = Timeline.read(rows.timestamps, rows.starts, rows.ids.tolist(), freq)
        ahead = timeline.ahead(prediction_length)

        covariates = [name for name in df.columns if name not in (id_column, timestamp_column, *targets)]
        past = {name: _covariate(rows.column(name), name, rows) for name in covariates}
        future: dict[str, np.ndarray] = {}
        if future_df is not None:
            known = _known_ahead(df, future_df, id_column, timestamp_column, targets)
            later = _SortedRows.read(
                future_df, id_column, timestamp_column, Origin.of(future_df, "future_df"), ids=rows.ids
            )
            _check_future(later, ahead, prediction_length, timeline.freq)
            future = {name: _covariate(later.column(name), name, later, like=past[name]) for name in known}
        return cls(
            id_column=id_column,
            timestamp_column=timestamp_column,
            targets=targets,
            ids_N=rows.ids,
            starts=rows.starts,
            target_VT=np.stack([_numbers(rows.column(name), name, rows) for name in targets]),
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


@dataclass(frozen=True)
class _SortedRows:
    """The rows of a frame by series, then time."""

    df: pd.DataFrame
    origin: Origin
    """What sentences call `df`."""
    order: np.ndarray
    ids: pd.Index
    codes: np.ndarray
    """Sorted: the series of each row."""
    timestamps: pd.DatetimeIndex
    starts: np.ndarray

    @classmethod
    def read(
        cls, df: pd.DataFrame, id_column: str, timestamp_column: str, origin: Origin, ids: pd.Index | None
    ) -> _SortedRows:
        """Sort by `ids` where given (then they must be the same set), else by first appearance."""
        if df[id_column].isna().any():
            row = int(df[id_column].isna().to_numpy().argmax())
            raise ValueError(f"{origin.name}: column {id_column!r} is empty in {origin.row(row)}.")
        stamps = _timestamps(df, timestamp_column, origin)
        if ids is None:
            codes, ids = pd.factorize(df[id_column])
            ids = pd.Index(ids)
        else:
            codes = ids.get_indexer(pd.Index(df[id_column]))
            _check_same_ids(df[id_column], codes, ids, origin)
        order = np.lexsort([_instants(stamps), codes])
        codes, stamps = codes[order], stamps.take(order)
        starts = np.searchsorted(codes, np.arange(len(ids) + 1))
        twice = (np.diff(codes) == 0) & (np.diff(_instants(stamps)) == np.timedelta64(0))
        if twice.any():
            row = int(twice.argmax())
            raise ValueError(
                f"{origin.name}: series {ids[codes[row]]!r} has {stamps[row]} twice "
                f"({origin.row(order[row])} and {origin.row(order[row + 1])}). Keep one row a series and time step."
            )
        return cls(df, origin, order, ids, codes, stamps, starts)

    @property
    def name(self) -> str:
        return self.origin.name

    def column(self, name: str) -> pd.Series:
        return self.df[name].iloc[self.order]

    def place(self, sorted_row: int) -> str:
        return f"{self.origin.row(self.order[sorted_row])} (series {self.ids[self.codes[sorted_row]]!r})"


def _column(df: pd.DataFrame, name: str, origin: Origin) -> str:
    """`name`, or Nixtla's word where a default name is absent."""
    if name in df.columns:
        return name
    if _NIXTLA.get(name) in df.columns:
        return _NIXTLA[name]
    raise ValueError(f"{origin.name} has no column {name!r}. {_nearest(name, df.columns)}")


def _nearest(name: object, known: Iterable[object]) -> str:
    names = [str(other) for other in known]
    close = difflib.get_close_matches(str(name), names, n=1)
    columns = f"Its columns: {', '.join(names)}."
    return f"Did you mean {close[0]!r}? {columns}" if close else columns


def _timestamps(df: pd.DataFrame, name: str, origin: Origin) -> pd.DatetimeIndex:
    column = df[name]
    if types.is_numeric_dtype(column):
        raise ValueError(
            f"{origin.name}: column {name!r} holds numbers, not times. Convert it: pd.to_datetime(..., unit='s')."
        )
    if not types.is_datetime64_any_dtype(column):
        parsed = pd.to_datetime(column, errors="coerce")
        wrong = parsed.isna() & column.notna()
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            raise ValueError(
                f"{origin.name}: column {name!r} holds {column.iloc[row]!r} in {origin.row(row)}, which is not a time."
            )
        column = parsed
    if column.isna().any():
        row = int(column.isna().to_numpy().argmax())
        raise ValueError(f"{origin.name}: column {name!r} is empty in {origin.row(row)}.")
    return pd.DatetimeIndex(column)


def _instants(timestamps: pd.DatetimeIndex) -> np.ndarray:
    return (timestamps if timestamps.tz is None else timestamps.tz_convert(None)).to_numpy()


def _numbers(column: pd.Series, name: str, rows: _SortedRows) -> np.ndarray:
    """A column of numbers as float32; text and infinities are refused with their row."""
    if types.is_numeric_dtype(column):
        values = column.to_numpy(dtype=np.float32, na_value=np.nan)
    else:
        parsed = pd.to_numeric(column, errors="coerce")
        wrong = (parsed.isna() & column.notna()).to_numpy()
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(
                f"{rows.name}: column {name!r} holds {column.iloc[row]!r} in {rows.place(row)}, where a number is "
                "needed. Correct it or leave it empty."
            )
        values = parsed.to_numpy(dtype=np.float32, na_value=np.nan)
    if np.isinf(values).any():
        raise ValueError(f"{rows.name}: column {name!r} is infinite in {rows.place(int(np.isinf(values).argmax()))}.")
    return values


def _covariate(column: pd.Series, name: str, rows: _SortedRows, like: np.ndarray | None = None) -> np.ndarray:
    """Numbers as float32, anything else as labels (object, None is missing); as in the past where `like` says so."""
    if types.is_datetime64_any_dtype(column):
        raise ValueError(f"{rows.name}: column {name!r} holds times. Drop it, or make numbers of it (day of week ...).")
    numeric = types.is_numeric_dtype(column) and not types.is_bool_dtype(column)
    if like is not None:
        numeric = like.dtype != object
    elif not numeric and not isinstance(column.dtype, pd.CategoricalDtype) and not types.is_bool_dtype(column):
        numeric = _mostly_numbers(column)
    if numeric:
        return _numbers(column, name, rows)
    labels = column.to_numpy(dtype=object, copy=True)
    labels[column.isna().to_numpy()] = None
    return labels


def _mostly_numbers(column: pd.Series) -> bool:
    """Text among numbers is more often a slip than a category: such a column counts as numbers, and is refused."""
    present = column.dropna()
    parsed = pd.to_numeric(present, errors="coerce").notna()
    if parsed.all():
        return not present.map(lambda value: isinstance(value, str | bool)).any()
    return bool(parsed.mean() > 0.5)


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


def _check_same_ids(column: pd.Series, codes: np.ndarray, ids: pd.Index, origin: Origin) -> None:
    if (codes < 0).any():
        row = int((codes < 0).argmax())
        raise ValueError(
            f"{origin.name}: series {column.iloc[row]!r} ({origin.row(row)}) is not in the table of the past."
        )
    missing = np.setdiff1d(np.arange(len(ids)), codes)
    if len(missing):
        raise ValueError(f"{origin.name} lacks series {ids[missing[0]]!r} ({len(missing)} of {len(ids)} are missing).")


def _check_future(rows: _SortedRows, ahead: pd.DatetimeIndex, prediction_length: int, freq: str) -> None:
    counts_N = np.diff(rows.starts)
    if (counts_N != prediction_length).any():
        n = int((counts_N != prediction_length).argmax())
        raise ValueError(
            f"{rows.name} has {counts_N[n]} rows for series {rows.ids[n]!r}; prediction_length is "
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
