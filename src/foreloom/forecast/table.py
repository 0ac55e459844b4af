"""Tables in, tables of forecasts out: frames of `Model.predict_df`, and files.

Axes: T rows sorted by series (as first met), then time; N series, V targets, H horizon steps, Q levels.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from foreloom.data.columns import ID_NAMES
from foreloom.data.encoding import encode_many
from foreloom.data.forecast_input import ForecastInput, forecast_input
from foreloom.data.tables import values
from foreloom.data.tables.long_table import TIME_NAMES, LongTable
from foreloom.data.tables.read import Rows, TableOptions, nearest, read_rows, rows_of
from foreloom.data.tables.timeline import Timeline
from foreloom.data.tables.times import read_times
from foreloom.files import whole_or_absent

TABLE_OPTIONS = [field.name for field in fields(TableOptions)]


@dataclass(frozen=True)
class Table:
    """A table that was read and found sound."""

    past: LongTable
    target_VT: np.ndarray
    """float32."""
    past_covariates: dict[str, np.ndarray]
    """Every covariate over the past, (T,): float32, or labels (object, None is missing)."""
    future_covariates: dict[str, np.ndarray]
    """The covariates known ahead, (N * H,)."""
    ahead: pd.DatetimeIndex
    """The time steps to forecast, N * H."""

    @classmethod
    def read(
        cls,
        df: Any,
        future_df: Any,
        prediction_length: int,
        options: TableOptions = TableOptions(),
        freq: str | None = None,
    ) -> Table:
        """Check and sort `df` and `future_df` (see `Model.predict_df`); ValueError is a sentence for their owner.

        What was guessed, and what was left out, is warned of.
        """
        rows = rows_of(df, "df", options)
        table = LongTable.read(rows)
        said = list(rows.notes)  # before what follows, which may fail of a wrong guess
        for note in said:
            warnings.warn(note, stacklevel=3)
        if not isinstance(table.times_T, pd.DatetimeIndex):
            raise ValueError(
                f"{rows.name}: column {table.time_column!r} holds numbers, not times ({table.times_T[0]} ...). Write "
                "times as 2024-01-31 12:00:00; years, 20240131 and seconds since 1970 are known too."
            )
        taken = {"target_name", "predictions"} & {*table.id_columns, table.time_column}
        if taken:
            raise ValueError(
                f"{rows.name}: a column of the forecast is called {min(taken)!r} too: rename it in the table."
            )
        timeline = Timeline.read(table.times_T, table.starts, table.series, freq)
        ahead = timeline.ahead(prediction_length)
        target_VT = np.stack([_finite(table, name) for name in table.targets])
        _say_empty(table, target_VT)
        past = {name: _covariate(table, name) for name in table.covariates}
        future: dict[str, np.ndarray] = {}
        if future_df is not None:
            ahead_rows = rows_of(future_df, "future_df", options)
            known = _known_ahead(table, ahead_rows)
            later = table.following(ahead_rows)
            _check_future(later, ahead, prediction_length, timeline.freq)
            future = {name: _covariate(later, name, past[name]) for name in known if name in past}
            rows.notes.extend(ahead_rows.notes)
        for note in dict.fromkeys(rows.notes):
            if note not in said:
                warnings.warn(note, stacklevel=3)
        return cls(table, target_VT, past, future, ahead)

    def inputs(self) -> list[ForecastInput]:
        """One thing to forecast a series: slices of the table, but where labels stand beside several targets."""
        starts, num_series = self.past.starts, len(self.past.keys_N)
        length = len(self.ahead) // num_series
        labelled = [name for name, column in self.past_covariates.items() if column.dtype == object]
        if labelled and len(self.target_VT) > 1:
            return [self._encoded(n, slice(starts[n], starts[n + 1]), length) for n in range(num_series)]
        known = sorted(self.future_covariates)
        names = sorted(set(self.past_covariates) - set(known)) + known
        num_targets, num_past = len(self.target_VT), len(names) - len(known)
        context_RT = np.concatenate([self.target_VT, np.empty((len(names), self.target_VT.shape[1]), np.float32)])
        future_NRH = np.full((num_series, len(context_RT), length), np.nan, dtype=np.float32)
        for row, name in enumerate(names, start=num_targets):
            past_T, future = self.past_covariates[name], self.future_covariates.get(name)
            future_NH = None if future is None else future.reshape(num_series, length)
            if name in labelled:
                past_T, future_NH = encode_many(past_T, self.target_VT[0], starts, future_NH)
            context_RT[row] = past_T
            if future_NH is not None:
                future_NRH[:, row] = future_NH
        return [
            ForecastInput(context_RT[:, begin:end], future_RH, num_targets, num_past, len(known))
            for begin, end, future_RH in zip(starts[:-1].tolist(), starts[1:].tolist(), future_NRH, strict=True)
        ]

    def _encoded(self, n: int, rows: slice, length: int) -> ForecastInput:
        horizon = slice(n * length, (n + 1) * length)
        return forecast_input(
            self.target_VT[:, rows],
            {name: column[rows] for name, column in self.past_covariates.items()},
            {name: column[horizon] for name, column in self.future_covariates.items()},
            length,
        )

    def result(self, forecasts: Sequence[np.ndarray], quantile_levels: Sequence[float], num_shown: int) -> pd.DataFrame:
        """Forecasts (V, H, Q) a series as rows (series, target, step); the first `num_shown` levels get columns."""
        forecast_NVHQ = np.stack(forecasts)
        num_series, num_targets, length, _ = forecast_NVHQ.shape
        flat = forecast_NVHQ.reshape(-1, len(quantile_levels))
        steps = np.arange(num_series * length).reshape(num_series, 1, length).repeat(num_targets, axis=1).ravel()
        series = np.repeat(np.arange(num_series), num_targets * length)
        columns: dict[str, Any] = {name: ids.take(series).array for name, ids in self._ids().items()}
        columns[self.past.time_column] = self.ahead.take(steps)
        columns["target_name"] = np.tile(np.repeat(np.array(self.past.targets, dtype=object), length), num_series)
        columns["predictions"] = flat[:, list(quantile_levels).index(0.5)]
        for i, level in enumerate(quantile_levels[:num_shown]):
            columns[str(level)] = flat[:, i]
        return pd.DataFrame(columns)

    def _ids(self) -> dict[str, pd.Series]:
        if not self.past.id_columns:
            return {self.past.rows.options.id_column[0]: pd.Series(self.past.names_N)}
        return {name: self.past.id_values(name) for name in self.past.id_columns}


def options_of_table(options: Mapping[str, Any]) -> TableOptions:
    """Those of some options that say what a table does not, names alone or in lists; None says nothing."""
    said = {name: options[name] for name in TABLE_OPTIONS if options.get(name) is not None}
    for name in ("id_column", "target"):
        if name in said:
            several = isinstance(said[name], Sequence) and not isinstance(said[name], str)
            said[name] = tuple(map(str, said[name] if several else [said[name]]))
    return TableOptions(**said)


def rows_of_file(path: str | Path, options: TableOptions = TableOptions()) -> Rows:
    """The rows of a .csv (also .csv.gz, .tsv) or .parquet file; ValueError for one that cannot be read."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; a forecast is made from one table, a .csv, .tsv or .parquet file.")
    if not path.is_file():
        raise ValueError(f"no file {path}.")
    suffix_of(path)
    return read_rows(path, options)


def read_table(path: str | Path, id_column: str = "item_id") -> pd.DataFrame:
    """A .csv (also .csv.gz, .tsv) or .parquet file as a frame; ids are text as written, a series may be called NA."""
    rows = rows_of_file(path)
    if not rows.is_text:
        return rows.columns.to_pandas()
    return pd.DataFrame({name: _as_given(rows, name, name in (*ID_NAMES, id_column)) for name in rows.names})


def write_table(df: pd.DataFrame, path: str | Path) -> None:
    """Write a frame as .csv or .parquet: beside, then renamed, so that `path` is never half a file."""
    path = Path(path)
    suffix = suffix_of(path)
    with whole_or_absent(path) as beside:
        if suffix == ".parquet":
            df.to_parquet(beside, index=False)
        else:
            df.to_csv(beside, index=False, sep="\t" if ".tsv" in path.suffixes else ",")


def suffix_of(path: Path) -> str:
    """.csv, .tsv or .parquet, compression aside."""
    known = [suffix for suffix in path.suffixes if suffix in (".csv", ".tsv", ".parquet")]
    if not known:
        raise ValueError(f"{path}: foreloom reads and writes tables as .csv, .tsv and .parquet.")
    return known[-1]


def _as_given(rows: Rows, name: str, is_id: bool) -> Any:
    """A column of a text file as a frame holds it."""
    if is_id:
        return rows.column(name).to_pandas()
    if name in TIME_NAMES:
        return read_times(rows, name)
    try:
        column = values.numbers(rows, name)
    except values.NotANumber:
        return values.written(rows, name).to_pandas()
    return column.astype(np.int64) if (column == np.floor(column)).all() and (abs(column) < 2**53).all() else column


def _finite(table: LongTable, name: str) -> np.ndarray:
    """A column as float32 (T,); infinities are refused with their row."""
    with np.errstate(over="ignore"):
        column = table.numbers(name).astype(np.float32)
    if np.isinf(column).any():
        raise ValueError(
            f"{table.rows.name}: column {name!r} is infinite in {table.place(int(np.isinf(column).argmax()))}, "
            "or beyond float32 (3.4e38)."
        )
    return column


def _covariate(table: LongTable, name: str, past: np.ndarray | None = None) -> np.ndarray:
    """Numbers as float32, anything else as labels (object, None is missing). `past` is the same column's past."""
    if table.is_numeric(name) if past is None else past.dtype != object:
        return _finite(table, name)
    if past is None:
        return table.labels(name).to_numpy(zero_copy_only=False)
    known = {label for label in pd.unique(past) if label is not None}
    labels = table.labels(name, known)
    distinct = pc.unique(labels.drop_null()).to_pylist()
    if distinct and known and not known & set(distinct):
        table.rows.say(
            f"{table.rows.name}: no label of column {name!r} ({', '.join(map(repr, distinct[:3]))}) occurs in the past "
            f"({', '.join(map(repr, sorted(known)[:3]))}): are they written differently?"
        )
    return labels.to_numpy(zero_copy_only=False)


def _say_empty(table: LongTable, target_VT: np.ndarray) -> None:
    has_value_N = np.add.reduceat(np.isfinite(target_VT).any(axis=0), table.starts[:-1]) > 0
    if not has_value_N.all():
        empty = np.flatnonzero(~has_value_N)
        others = f" and {len(empty) - 1} more have" if len(empty) > 1 else " has"
        table.rows.say(
            f"{table.rows.name}: series {table.series(int(empty[0]))}{others} no value: there is nothing to "
            "forecast from."
        )


def _known_ahead(past: LongTable, future: Rows) -> list[str]:
    for name in (*past.id_columns, past.time_column):
        if name not in future.names:
            raise ValueError(f"{future.name} has no column {name!r}. {future.nearest(name)}")
    used = (*past.id_columns, past.time_column)
    known = [name for name in future.names if name not in used]
    for name in known:
        if name in past.targets:
            raise ValueError(f"{future.name} holds the target column {name!r}: drop it, it is what is forecast.")
        if name not in past.rows.names:
            raise ValueError(
                f"{future.name} has a column {name!r} that {past.rows.name} lacks. {nearest(name, past.rows.names)}"
            )
    return known


def _check_future(table: LongTable, ahead: pd.DatetimeIndex, prediction_length: int, freq: str) -> None:
    name, counts_N = table.rows.name, np.diff(table.starts)
    if (counts_N != prediction_length).any():
        n = int((counts_N != prediction_length).argmax())
        raise ValueError(
            f"{name} has {counts_N[n]} rows for series {table.series(n) if counts_N[n] else table.names_N[n]}; "
            f"prediction_length is {prediction_length}, so it needs that many, from {ahead[n * prediction_length]} on."
        )
    stamps = table.times_T
    if not isinstance(stamps, pd.DatetimeIndex) or (stamps.tz is None) != (ahead.tz is None):
        raise ValueError("of df and future_df only one states a time zone; give both the same.")
    wrong = stamps != ahead
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"{name} has {stamps[row]} in {table.place(row)} where {ahead[row]} comes next: the steps of a series "
            f"follow its last time in the past at {freq}."
        )
