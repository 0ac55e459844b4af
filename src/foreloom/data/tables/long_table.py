"""A long table, one row a series and time step: what each column is, and its rows by series, then time.

Axes: T rows, sorted by series (as first met), then time; N series.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import pandas as pd
import pyarrow as pa

from foreloom.data.columns import ID_NAMES
from foreloom.data.tables import values
from foreloom.data.tables.read import Rows
from foreloom.data.tables.times import read_times

TIME_NAMES = ("timestamp", "ds", "date", "datetime", "time")
TARGET_NAMES = ("target", "y")
_BETWEEN_KEYS = "\x1f"
_MOST_KEYS = 6


def find(rows: Rows, asked: str) -> str | None:
    """The column of that name; for a default name, any that is known for the same thing."""
    if asked in rows.names:
        return asked
    known = next((names for names in (ID_NAMES, TIME_NAMES, TARGET_NAMES) if asked == names[0]), ())
    return next((name for name in known if name in rows.names), None)


@dataclass(frozen=True)
class LongTable:
    """A table that was read and found sound, but for its numbers, which are looked at when they are asked for."""

    rows: Rows
    id_columns: tuple[str, ...]
    """Empty where nothing names the series: then each file is one."""
    time_column: str
    targets: tuple[str, ...]
    keys_N: pd.Index
    """What tells the series apart: their ids as text."""
    order_T: np.ndarray
    """The row of the table that stands at each place."""
    series_T: np.ndarray
    starts: np.ndarray
    """Series n has rows starts[n]:starts[n + 1]."""
    times_T: pd.Index
    """DatetimeIndex, or int64 where the time column counts steps."""

    @classmethod
    def read(cls, rows: Rows, *, lone: Sequence[str] = ("series",)) -> LongTable:
        """Find the columns (`rows.options`), read times and ids, sort. Without an id column every file is a series,
        called as in `lone`.

        ValueError, with file and row, for a column that is not there, an empty id or time, and a time that a series has
        twice.
        """
        if not len(rows):
            raise ValueError(f"{rows.name} has no rows.")
        time_column = _needed(rows, rows.options.timestamp_column)
        targets = tuple(_needed(rows, name) for name in rows.options.target)
        if not targets:
            raise ValueError("target is an empty list: name the column to forecast.")
        id_columns = _id_columns(rows)
        _check_distinct([*id_columns, time_column, *targets])
        times = read_times(rows, time_column)
        codes, keys = _series(rows, id_columns, lone)
        return cls._sorted(rows, id_columns, time_column, targets, keys, codes, times)

    def following(self, rows: Rows) -> LongTable:
        """A table of the steps that come next: the same columns and series, in the same order, and no targets.

        ValueError as `read`, and for a series that only one of the tables has.
        """
        if not len(rows):
            raise ValueError(f"{rows.name} has no rows.")
        rows.time_forms.update(self.rows.time_forms)
        times = read_times(rows, self.time_column)
        codes, keys = _series(rows, self.id_columns, self.keys_N.tolist())
        codes = self.keys_N.get_indexer(keys)[codes]
        self._check_same_series(rows, codes)
        return self._sorted(rows, self.id_columns, self.time_column, (), self.keys_N, codes, times)

    @classmethod
    def _sorted(
        cls,
        rows: Rows,
        id_columns: tuple[str, ...],
        time_column: str,
        targets: tuple[str, ...],
        keys_N: pd.Index,
        codes: np.ndarray,
        times: pd.Index,
    ) -> LongTable:
        order = np.lexsort([instants(times), codes])
        codes, times = codes[order], times.take(order)
        starts = np.searchsorted(codes, np.arange(len(keys_N) + 1))
        table = cls(rows, id_columns, time_column, targets, keys_N, order, codes, starts, times)
        table._check_times()
        return table

    @cached_property
    def covariates(self) -> list[str]:
        """The columns that are left, but for those without any value, which `rows` notes."""
        used = {*self.id_columns, self.time_column, *self.targets}
        return [name for name in self.rows.names if name not in used and has_values(self.rows, name)]

    def numbers(self, name: str) -> np.ndarray:
        """float64 (T,), NaN is missing; ValueError, with row and series, for what is no number."""
        try:
            return values.numbers(self.rows, name)[self.order_T]
        except values.NotANumber as error:
            row = error.args_of[2]
            raise error.of(self.series(int(self.series_T[int((self.order_T == row).argmax())]))) from None

    def is_numeric(self, name: str) -> bool:
        """Numbers, or labels?"""
        return values.is_numeric(self.rows, name)

    def labels(self, name: str, past: set[str] | None = None) -> pa.Array:
        """Text (T,), null is missing; written as the labels of the `past` where those are given."""
        column = values.labels(self.rows, name) if past is None else values.labels_like(self.rows, name, past)
        return column.take(pa.array(self.order_T))

    @cached_property
    def names_N(self) -> list[str]:
        """The series' ids, the parts of one of several columns joined by a stroke."""
        return [key.replace(_BETWEEN_KEYS, "/") for key in self.keys_N]

    def id_values(self, name: str) -> pd.Series:
        """An id column as it was given, (N,)."""
        firsts = self.order_T[self.starts[:-1]]
        return self.rows.columns.column(name).take(pa.array(firsts)).to_pandas()

    def series(self, n: int) -> str:
        """A series, for sentences: as its owner wrote it."""
        if len(self.id_columns) == 1:
            row = int(self.order_T[self.starts[n]])
            return repr(self.rows.column(self.id_columns[0])[row].as_py())
        return repr(self.names_N[n])

    def place(self, position: int) -> str:
        """A sorted row, for sentences."""
        return f"{self.rows.origin.row(self.order_T[position])} (series {self.series(self.series_T[position])})"

    def _check_times(self) -> None:
        instants_T = instants(self.times_T)
        twice = (self.series_T[1:] == self.series_T[:-1]) & (instants_T[1:] == instants_T[:-1])
        if not twice.any():
            return
        position = int(twice.argmax())
        origin, (one, two) = self.rows.origin, self.order_T[position : position + 2]
        both = f"{origin.row(one)} and {origin.row(two)}"
        if origin.file(one) != origin.file(two):
            both = f"{origin.row(one)} of {origin.file(one)} and {origin.row(two)}"
        if not self.id_columns:
            both += f" of {origin.file(two)}" if len(origin.files) > 1 else ""
            raise several_series(self.rows, self.time_column, self.times_T[position], both, self.order_T, self.times_T)
        raise ValueError(
            f"{origin.file(two)}: series {self.series(self.series_T[position])} has {self.times_T[position]} twice "
            f"({both}). Keep one row a series and time step."
        )

    def _check_same_series(self, rows: Rows, codes: np.ndarray) -> None:
        """Of another table, whose rows belong to the series `codes` of this one, -1 to none."""
        if (codes < 0).any():
            row = int((codes < 0).argmax())
            found = "/".join(str(rows.column(name)[row].as_py()) for name in self.id_columns)
            raise ValueError(
                f"{rows.name}: series {found!r} ({rows.origin.row(row)}) is not in the table of the past, whose series "
                f"are called {', '.join(self.names_N[:3])}{' ...' if len(self.names_N) > 3 else ''}."
            )
        missing = np.setdiff1d(np.arange(len(self.keys_N)), codes)
        if len(missing):
            raise ValueError(
                f"{rows.name} lacks series {self.series(int(missing[0]))} ({len(missing)} of {len(self.keys_N)} are "
                "missing)."
            )


def instants(times: pd.Index) -> np.ndarray:
    """datetime64 in UTC, or int64."""
    if isinstance(times, pd.DatetimeIndex) and times.tz is not None:
        return times.tz_convert(None).to_numpy()
    return times.to_numpy()


def has_values(rows: Rows, name: str) -> bool:
    """A column without any value is left out; a note says so."""
    if values.is_empty(rows, name):
        rows.say(f"{rows.name}: column {name!r} holds no value and is left out.")
        return False
    return True


def several_series(rows: Rows, time: str, stamp: object, both: str, order: np.ndarray, times: pd.Index) -> ValueError:
    """A time that stands twice where nothing names the series: which columns may."""
    keys = _likely_keys(rows, time, np.argsort(order), times)
    verbs = "with foreloom forecast, data inspect and data convert"
    remedy = f"Name the column that tells them apart with id_column= (--id-column {verbs})."
    if keys:
        quoted, asked = " and ".join(map(repr, keys)), ",".join(keys)
        given = repr(keys[0]) if len(keys) == 1 else repr(list(keys))
        remedy = f"Is the series named by {quoted}? Then say id_column={given} (--id-column {asked} {verbs})."
    return ValueError(
        f"{rows.name} has no column {rows.options.id_column[0]!r}. Its columns: {', '.join(rows.names)}. The time "
        f"{stamp} stands in it twice ({both}), so it holds more than one series. {remedy}"
    )


def _likely_keys(rows: Rows, time: str, place: np.ndarray, times: pd.Index) -> tuple[str, ...]:
    """The fewest-valued columns of text or whole numbers that, with the time, are unique in every row."""
    stamps = pd.factorize(instants(times)[place])[0]
    codes = {}
    for name in rows.names:
        type_ = rows.column(name).type
        if name == time or not (pa.types.is_large_string(type_) or pa.types.is_integer(type_)):
            continue
        code = pd.factorize(rows.column(name).to_pandas())[0]
        if 1 < code.max() + 1 <= len(code) // 2:
            codes[name] = code
    best: tuple[int, tuple[str, ...]] | None = None
    for names in [*((name,) for name in codes), *combinations(list(codes)[:_MOST_KEYS], 2)]:
        frame = pd.DataFrame({name: codes[name] for name in names})
        if not frame.assign(stamp=stamps).duplicated().any():
            found = (len(frame.drop_duplicates()), names)
            best = found if best is None or found[0] < best[0] else best
    return best[1] if best else ()


def _id_columns(rows: Rows) -> tuple[str, ...]:
    asked = rows.options.id_column
    if len(asked) == 1 and asked[0] == ID_NAMES[0]:
        found = find(rows, asked[0])
        return () if found is None else (found,)
    return tuple(_needed(rows, name) for name in asked)


def _needed(rows: Rows, asked: str) -> str:
    found = find(rows, asked)
    if found is None:
        raise ValueError(f"{rows.name} has no column {asked!r}. {rows.nearest(asked)}")
    return found


def _check_distinct(used: Sequence[str]) -> None:
    """Do the id, the time and the targets, one at least, have a column each?"""
    for name in used:
        if used.count(name) > 1:
            raise ValueError(
                f"column {name!r} is asked for twice; the id, the time and each target need one of their own."
            )


def _series(rows: Rows, id_columns: Sequence[str], lone: Sequence[str]) -> tuple[np.ndarray, pd.Index]:
    """The number of each row's series, in order of appearance, and what tells them apart."""
    if not id_columns:
        sizes = rows.origin.num_rows if len(lone) > 1 else (len(rows),)
        return np.repeat(np.arange(len(lone)), sizes), pd.Index(list(lone), dtype=object)
    encoded = [values.ids(rows, name).dictionary_encode() for name in id_columns]
    if len(encoded) == 1:
        codes, keys = encoded[0].indices.to_numpy(zero_copy_only=False), encoded[0].dictionary.to_pylist()
        return codes.astype(np.int64), pd.Index(keys, dtype=object)
    joined = np.zeros(len(rows), np.int64)
    for one in encoded:
        joined = joined * len(one.dictionary) + one.indices.to_numpy(zero_copy_only=False)
    codes, _ = pd.factorize(joined)
    firsts = np.unique(codes, return_index=True)[1]
    parts = [one.dictionary.take(one.indices.take(pa.array(firsts))).to_pylist() for one in encoded]
    return codes, pd.Index([_BETWEEN_KEYS.join(part) for part in zip(*parts, strict=True)], dtype=object)
