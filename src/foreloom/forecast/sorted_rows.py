"""The rows of a long table by series, then time, and its columns as numbers or labels; sentences name the row.

Axes: T rows of the table, sorted.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.api import types

from foreloom.forecast.origin import Origin


@dataclass(frozen=True)
class SortedRows:
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
    ) -> SortedRows:
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
                f"{origin.name}: series {ids.tolist()[codes[row]]!r} has {stamps[row]} twice "
                f"({origin.row(order[row])} and {origin.row(order[row + 1])}). Keep one row a series and time step."
            )
        return cls(df, origin, order, ids, codes, stamps, starts)

    @property
    def name(self) -> str:
        return self.origin.name

    def column(self, name: str) -> pd.Series:
        return self.df[name].iloc[self.order]

    def place(self, sorted_row: int) -> str:
        return f"{self.origin.row(self.order[sorted_row])} (series {self.ids.tolist()[self.codes[sorted_row]]!r})"

    def numbers(self, name: str) -> np.ndarray:
        """A column of numbers as float32; text and infinities are refused with their row."""
        column = self.column(name)
        if types.is_numeric_dtype(column):
            values = column.to_numpy(dtype=np.float32, na_value=np.nan)
        else:
            parsed = pd.to_numeric(column, errors="coerce")
            wrong = (parsed.isna() & column.notna()).to_numpy()
            if wrong.any():
                row = int(wrong.argmax())
                raise ValueError(
                    f"{self.name}: column {name!r} holds {column.iloc[row]!r} in {self.place(row)}, where a number is "
                    "needed. Correct it or leave it empty."
                )
            values = parsed.to_numpy(dtype=np.float32, na_value=np.nan)
        if np.isinf(values).any():
            raise ValueError(
                f"{self.name}: column {name!r} is infinite in {self.place(int(np.isinf(values).argmax()))}, "
                "or beyond float32 (3.4e38)."
            )
        return values

    def covariate(self, name: str, like: np.ndarray | None = None) -> np.ndarray:
        """Numbers as float32, anything else as labels (object, None is missing). `like` is the same column's past."""
        column = self.column(name)
        if types.is_datetime64_any_dtype(column):
            raise ValueError(
                f"{self.name}: column {name!r} holds times. Drop it, or make numbers of it (day of week ...)."
            )
        numeric = types.is_numeric_dtype(column) and not types.is_bool_dtype(column)
        if like is not None:
            numeric = like.dtype != object
        elif not numeric and not isinstance(column.dtype, pd.CategoricalDtype) and not types.is_bool_dtype(column):
            numeric = _mostly_numbers(column)
        if numeric:
            return self.numbers(name)
        labels = column.to_numpy(dtype=object, copy=True)
        labels[column.isna().to_numpy()] = None
        return labels


def _timestamps(df: pd.DataFrame, name: str, origin: Origin) -> pd.DatetimeIndex:
    column = df[name]
    if types.is_numeric_dtype(column):
        raise ValueError(
            f"{origin.name}: column {name!r} holds numbers, not times. Convert it: pd.to_datetime(..., unit='s')."
        )
    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    if not types.is_datetime64_any_dtype(column):
        parsed = _parse_times(column)
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


def _parse_times(column: pd.Series) -> pd.Series:
    """Text as times, NaT where it is none: in ISO 8601, or as the first one is written."""
    parsed = _parse(column, "ISO8601")
    if (parsed.isna() & column.notna()).any():
        parsed = max(parsed, _parse(column, None), key=lambda times: times.notna().sum())
    return parsed


def _parse(column: pd.Series, form: str | None) -> pd.Series:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # no common form: what stays unread is refused by its row
        warnings.simplefilter("error", FutureWarning)
        try:
            return pd.to_datetime(column, format=form, errors="coerce")
        except (ValueError, FutureWarning):  # several UTC offsets, as of a clock that is changed in spring
            return pd.to_datetime(column, format=form, errors="coerce", utc=True)


def _instants(timestamps: pd.DatetimeIndex) -> np.ndarray:
    return (timestamps if timestamps.tz is None else timestamps.tz_convert(None)).to_numpy()


def _mostly_numbers(column: pd.Series) -> bool:
    """Text among numbers is more often a slip than a category: such a column counts as numbers, and is refused."""
    present = column.dropna()
    parsed = pd.to_numeric(present, errors="coerce").notna()
    if parsed.all():
        return not present.map(lambda value: isinstance(value, str | bool)).any()
    return bool(parsed.mean() > 0.5)


def _check_same_ids(column: pd.Series, codes: np.ndarray, ids: pd.Index, origin: Origin) -> None:
    if (codes < 0).any():
        row = int((codes < 0).argmax())
        found, known = column.tolist()[row], ids.tolist()[0]
        other_type = "" if isinstance(found, type(known)) else f" Ids there look like {known!r}: convert one column."
        raise ValueError(
            f"{origin.name}: series {found!r} ({origin.row(row)}) is not in the table of the past.{other_type}"
        )
    missing = np.setdiff1d(np.arange(len(ids)), codes)
    if len(missing):
        raise ValueError(
            f"{origin.name} lacks series {ids.tolist()[missing[0]]!r} ({len(missing)} of {len(ids)} are missing)."
        )
