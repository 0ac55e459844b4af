"""Tables in, tables of forecasts out.

Axes: T rows sorted by series (as first met), then time; N series, V targets, H horizon steps, Q levels.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from foreloom.data.encoding import encode_many
from foreloom.data.forecast_input import ForecastInput, forecast_input
from foreloom.data.tables.long_table import LongTable
from foreloom.data.tables.options import TableOptions, table_options
from foreloom.data.tables.read import Rows, nearest, rows_of
from foreloom.data.tables.roles import Covariate, short_name
from foreloom.data.tables.timeline import Timeline
from foreloom.forecast.elsewhere import refuse_options_of_others

TABLE_OPTIONS = [field.name for field in fields(TableOptions)]
_SEVERAL = ("id_column", "target", "known_ahead", "past", "static", "category")
_OF_FORECASTS = ("target_name", "predictions")


@dataclass(frozen=True)
class Table:
    """A table that was read and found sound."""

    past: LongTable
    target_VT: np.ndarray
    """float64."""
    past_covariates: dict[str, np.ndarray]
    """Every covariate over the past, (T,): float64, or labels (object, None is missing)."""
    future_covariates: dict[str, np.ndarray]
    """The covariates known ahead, (N * H,)."""
    ahead: pd.DatetimeIndex
    """The time steps to forecast, N * H."""

    @classmethod
    def read(cls, df: Any, future_df: Any, prediction_length: int, options: TableOptions = TableOptions()) -> Table:
        """Check and sort `df` and `future_df` (see `Model.predict_df`); ValueError is a sentence for their owner.

        What was guessed, and what was left out, is warned of.
        """
        rows = rows_of(df, "df", options)
        table = LongTable.read(rows)
        said = list(rows.notes)  # before what follows, which may fail of a wrong guess
        for note in said:
            warnings.warn(note, stacklevel=3)
        if table.timeline is None:
            raise ValueError(
                f"{rows.name}: column {table.time_column!r} holds numbers, not times ({table.times_T[0]} ...). Write "
                "times as 2024-01-31 12:00:00; years, 20240131 and seconds since 1970 are known too."
            )
        later, steps_ahead = None, table.of_role("future")
        if future_df is None and steps_ahead:
            table, later = _parted(table, prediction_length)
        assert table.timeline is not None
        try:
            ahead = table.timeline.ahead(prediction_length)
        except ValueError as error:
            raise ValueError(f"{rows.name}: {error}") from None
        target_VT = np.stack([_finite(table, name) for name in table.targets])
        table.say_empty(target_VT)
        past = {one.name: _covariate(table, one) for one in table.of_role("past", "future")}
        for one in table.of_role("static"):
            table.static_values(one)
        future: dict[str, np.ndarray] = {}
        if future_df is not None:
            ahead_rows = rows_of(future_df, "future_df", options)
            known = _known_ahead(table, ahead_rows)
            later = table.following(ahead_rows)
            _check_future(later, ahead, prediction_length, table.timeline)
            future = {one.name: _covariate(later, one, past[one.name]) for one in known}
            rows.notes.extend(ahead_rows.notes)
        elif later is not None:
            future = {one.name: _covariate(later, one, past[one.name]) for one in steps_ahead}
        for note in dict.fromkeys(rows.notes):
            if note not in said:
                warnings.warn(note, stacklevel=3)
        return cls(table, target_VT, past, future, ahead)

    def understood(self) -> str:
        """What the table was taken for, in a line: series, frequency, and the role of every column."""
        assert self.past.timeline is not None
        lengths, freqs = np.diff(self.past.starts), Counter(self.past.timeline.freqs_N).most_common()
        steps = f"{lengths.min():,}" if lengths.min() == lengths.max() else f"{lengths.min():,} to {lengths.max():,}"
        often = ", ".join(f"{freq} ({count:,})" if len(freqs) > 1 else f"{freq}" for freq, count in freqs)
        known = [name for name in self.past_covariates if name in self.future_covariates]
        roles = {
            "target": self.past.targets,
            "known ahead": known,
            "past": [name for name in self.past_covariates if name not in known],
            "static": [one.name for one in self.past.of_role("static")],
        }
        named = "; ".join(f"{role} {', '.join(names)}" for role, names in roles.items() if names)
        return f"{len(lengths):,} series of {steps} steps, frequency {often}; {named}"

    def refuse_names(self, quantile_levels: Sequence[float]) -> None:
        """ValueError where ids or times have a name that a column of the forecast has."""
        taken = {*_OF_FORECASTS, *map(str, quantile_levels)} & {*self.past.id_columns, self.past.time_column}
        if taken:
            raise ValueError(
                f"{self.past.rows.name}: a column of the forecast is called {min(taken)!r} too: rename it in the table."
            )

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
        context_RT = np.concatenate([self.target_VT, np.empty((len(names), self.target_VT.shape[1]))])
        future_NRH = np.full((num_series, len(context_RT), length), np.nan)
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


def options_of_table(said: Mapping[str, Any]) -> TableOptions:
    """Those of some options that say what a table does not: names, alone or in lists; None says nothing."""
    names = {name: said[name] for name in TABLE_OPTIONS if said.get(name) is not None}
    for name, value in names.items():
        if name in _SEVERAL:
            several = isinstance(value, Sequence) and not isinstance(value, str)
            names[name] = tuple(map(str, value if several else [value]))
        elif name == "timestamp_column":
            names[name] = str(value)
    return table_options(names)


def refuse_unknown(said: Mapping[str, Any]) -> None:
    """TypeError, with the nearest, or what others' option is called here, for an option that there is not."""
    refuse_options_of_others("a table", said, TABLE_OPTIONS)
    for name in said:
        if name not in TABLE_OPTIONS:
            hint = nearest(name, TABLE_OPTIONS).replace("Its columns", "Options of a table")
            raise TypeError(f"there is no option {name!r}. {hint}")


def _finite(table: LongTable, name: str) -> np.ndarray:
    """A column as float64 (T,); what float32 cannot hold is refused with its row."""
    column = table.numbers(name)
    with np.errstate(over="ignore"):
        is_beyond_T = np.isinf(column.astype(np.float32))
    if is_beyond_T.any():
        raise ValueError(
            f"{table.rows.name}: column {name!r} is infinite in {table.place(int(is_beyond_T.argmax()))}, "
            "or beyond float32 (3.4e38). Leave the cell empty if its value is not known."
        )
    return column


def _covariate(table: LongTable, one: Covariate, past: np.ndarray | None = None) -> np.ndarray:
    """Numbers as float64, anything else as labels (object, None is missing). `past` is the same column's past."""
    if table.is_numeric(one) if past is None else past.dtype != object:
        return _finite(table, one.column)
    if past is None:
        return table.covariate(one)
    known = {label for label in pd.unique(past) if label is not None}
    labels = table.labels(one.column, known)
    distinct = pc.unique(labels.drop_null()).to_pylist()
    if distinct and known and not known & set(distinct):
        table.rows.say(
            f"{table.rows.name}: no label of column {one.column!r} ({', '.join(map(repr, distinct[:3]))}) occurs in "
            f"the past ({', '.join(map(repr, sorted(known)[:3]))}): are they written differently?"
        )
    return labels.to_numpy(zero_copy_only=False)


def _parted(table: LongTable, prediction_length: int) -> tuple[LongTable, LongTable]:
    """A table whose last rows have no target as its past and the steps that come next: what is known ahead stands
    there. ValueError where a series has another number of them."""
    has_value_T = np.any([~np.isnan(table.numbers(name)) for name in table.targets], axis=0)
    place_T = np.arange(len(has_value_T))
    last_N = np.maximum.reduceat(np.where(has_value_T, place_T, -1), table.starts[:-1])
    count_N = table.starts[1:] - 1 - np.maximum(last_N, table.starts[:-1])
    if (count_N != prediction_length).any():
        n = int((count_N != prediction_length).argmax())
        names = ", ".join(repr(one.column) for one in table.of_role("future"))
        raise ValueError(
            f"{table.rows.name}: {names}: known ahead, but the values over the horizon are not there. Give the "
            f"{prediction_length} steps after each series in a file with --future (future_df), or as its last rows, "
            f"without a target (series {table.series(n)} ends in {count_N[n]} such); or name it with past (--past)."
        )
    is_past_T = place_T <= np.repeat(table.starts[1:] - 1 - prediction_length, np.diff(table.starts))
    return table.part(is_past_T), table.part(~is_past_T)


def _known_ahead(past: LongTable, future: Rows) -> list[Covariate]:
    """The covariates of the past table that the future one has too, under its own names."""
    for name in (*past.id_columns, past.time_column):
        if name not in future.names:
            raise ValueError(f"{future.name} has no column {name!r}. {future.nearest(name)}")
    used = (*past.id_columns, past.time_column)
    of_name = {key: one for one in past.covariates for key in (one.name, one.column)}
    known: list[Covariate] = []
    for name in future.names:
        one = of_name.get(name) or of_name.get(short_name(name))
        if name in used:
            continue
        if name in past.targets:
            raise ValueError(f"{future.name} holds the target column {name!r}: drop it, it is what is forecast.")
        if one is None and name not in past.rows.names and short_name(name) not in past.rows.names:
            raise ValueError(
                f"{future.name} has a column {name!r} that {past.rows.name} lacks. {nearest(name, past.rows.names)}"
            )
        if one is not None and one.role != "static" and one.column not in (past.rows.options.past or ()):
            known.append(replace(one, column=name))
    for one in past.of_role("future"):
        if one.name not in (other.name for other in known):
            raise ValueError(
                f"{future.name} has no column {one.column!r}, which is known ahead. {future.nearest(one.column)}"
            )
    return known


def _check_future(table: LongTable, ahead: pd.DatetimeIndex, prediction_length: int, timeline: Timeline) -> None:
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
            f"follow its last time in the past at {timeline.freqs_N[table.series_T[row]]}."
        )
