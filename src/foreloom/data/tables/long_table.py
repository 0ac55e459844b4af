"""A long table, one row a series and time step: what each column is, and its rows by series, then time.

Axes: T rows, sorted by series (as first met), then time; N series.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from foreloom.data.columns import ID_NAMES, TARGET_NAMES
from foreloom.data.tables import values
from foreloom.data.tables.read import Rows
from foreloom.data.tables.roles import Covariate, Role, columns_said, covariates_of, find, needed
from foreloom.data.tables.timeline import Timeline, fill_counted
from foreloom.data.tables.times import read_times

_MOST_KEYS = 6


@dataclass(frozen=True)
class LongTable:
    """A table that was read and found sound, but for its numbers, which are looked at when they are asked for. Absent
    steps stand in it as missing values, see `timeline`."""

    rows: Rows
    id_columns: tuple[str, ...]
    """Empty where nothing names the series: then each file is one."""
    time_column: str
    targets: tuple[str, ...]
    covariates: Sequence[Covariate]
    """In the order of the columns, but for those without any value, which `rows` notes."""
    keys_N: pd.Index
    """What tells the series apart: their ids as text."""
    order_T: np.ndarray
    """The row of the table that stands at each place, -1 for an absent step."""
    series_T: np.ndarray
    starts: np.ndarray
    """Series n has rows starts[n]:starts[n + 1]."""
    times_T: pd.Index
    """DatetimeIndex, or int64 where the time column counts steps."""
    timeline: Timeline | None
    """None where the time column counts steps, and of steps that come next."""

    @classmethod
    def read(cls, rows: Rows) -> LongTable:
        """Find the columns (`rows.options`), read times and ids, sort, put absent steps in. Without an id column every
        file is a series (`rows.lone`).

        ValueError, with file and row, for a column that is not there, an empty id or time, a time that a series has
        twice, and for times that are no steps of a frequency.
        """
        if not len(rows):
            raise ValueError(f"{rows.name} has no rows. Write it again, or name another.")
        time_column = needed(rows, rows.options.timestamp_column)
        id_columns = _id_columns(rows)
        targets = _targets(rows, {time_column, *id_columns})
        covariates = covariates_of(rows, {*id_columns, time_column, *targets})
        _check_distinct([*id_columns, time_column, *targets, *columns_said(rows.options)])
        times = read_times(rows, time_column)
        codes, keys = _series(rows, id_columns, rows.lone)
        table = cls._sorted(rows, id_columns, time_column, targets, covariates, keys, codes, times)
        if not id_columns:
            _check_one_series(rows, time_column, times)
        return table._with_absent_steps()

    def following(self, rows: Rows) -> LongTable:
        """A table of the steps that come next: the same columns and series, in the same order, and no targets.

        ValueError as `read`, and for a series that only one of the tables has.
        """
        if not len(rows):
            raise ValueError(f"{rows.name} has no rows. Write it again, or name another.")
        rows.time_forms.update(self.rows.time_forms)
        times = read_times(rows, self.time_column)
        codes, keys = _series(rows, self.id_columns, self.keys_N.tolist())
        codes = self.keys_N.get_indexer(keys)[codes]
        self._check_same_series(rows, codes)
        return self._sorted(rows, self.id_columns, self.time_column, (), [], self.keys_N, codes, times)

    @classmethod
    def _sorted(
        cls,
        rows: Rows,
        id_columns: tuple[str, ...],
        time_column: str,
        targets: tuple[str, ...],
        covariates: Sequence[Covariate],
        keys_N: pd.Index,
        codes: np.ndarray,
        times: pd.Index,
    ) -> LongTable:
        order = np.lexsort([instants(times), codes])
        codes, times = codes[order], times.take(order)
        starts = np.searchsorted(codes, np.arange(len(keys_N) + 1))
        table = cls(rows, id_columns, time_column, targets, covariates, keys_N, order, codes, starts, times, None)
        table._check_times()
        return table

    def _with_absent_steps(self) -> LongTable:
        options, place = self.rows.options, self.rows.name
        try:
            if isinstance(self.times_T, pd.DatetimeIndex):
                stated_N = [options.freq or self.rows.freqs.get(key) for key in self.keys_N]
                timeline = Timeline.read(self.times_T, self.starts, self.series, stated_N, options.fill_gaps)
                times_T, starts, row_T, notes = timeline.times_T, timeline.starts, timeline.row_T, timeline.notes
            else:
                timeline = None
                times_T, starts, row_T, notes = fill_counted(
                    self.times_T, self.starts, self.series, options.freq, options.fill_gaps
                )
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
        for note in notes:
            self.rows.say(f"{place}: {note}")
        order_T = np.where(row_T < 0, -1, self.order_T[row_T])
        series_T = np.repeat(np.arange(len(self.keys_N)), np.diff(starts))
        return replace(self, order_T=order_T, series_T=series_T, starts=starts, times_T=times_T, timeline=timeline)

    def part(self, chosen_T: np.ndarray) -> LongTable:
        """Some of the places, bool (T,), of every series one at least."""
        series_T = self.series_T[chosen_T]
        starts = np.searchsorted(series_T, np.arange(len(self.keys_N) + 1))
        times_T = self.times_T[chosen_T]
        timeline = self.timeline
        if timeline is not None:
            assert isinstance(times_T, pd.DatetimeIndex)
            timeline = replace(timeline, times_T=times_T, starts=starts, row_T=timeline.row_T[chosen_T])
        return replace(
            self, order_T=self.order_T[chosen_T], series_T=series_T, starts=starts, times_T=times_T, timeline=timeline
        )

    def of_role(self, *roles: Role) -> list[Covariate]:
        """The covariates of some roles, in the order of the columns."""
        return [one for one in self.covariates if one.role in roles]

    def static_values(self, covariate: Covariate) -> pa.Array:
        """The one value of each series (N,), null is missing. ValueError, with row and series, for a second one."""
        column = self.covariate(covariate)
        code_T = pd.factorize(column)[0]
        seen_T = np.flatnonzero(code_T >= 0)
        first_N = np.full(len(self.keys_N), -1)
        series, place = np.unique(self.series_T[seen_T], return_index=True)
        first_N[series] = seen_T[place]
        other_T = seen_T[code_T[seen_T] != code_T[first_N[self.series_T[seen_T]]]]
        if len(other_T):
            here, first = int(other_T[0]), int(first_N[self.series_T[other_T[0]]])
            other, known = column[[here, first]].tolist()
            raise ValueError(
                f"{self.rows.name}: column {covariate.column!r} is static, one value a series, and holds "
                f"{other!r} in {self.place(here)} after {known!r}. It is a covariate: leave it out of "
                "static, and out of its name."
            )
        is_known = first_N >= 0
        type_ = pa.large_string() if column.dtype == object else pa.float64()
        return pa.array(column[np.maximum(first_N, 0)], type_, mask=~is_known)

    def covariate(self, covariate: Covariate) -> np.ndarray:
        """A column (T,) of float64, NaN is missing, or of labels (object, None is missing), see `labels`."""
        if self.is_numeric(covariate):
            return self.numbers(covariate.column)
        return self.labels(covariate.column).to_numpy(zero_copy_only=False)

    def numbers(self, name: str) -> np.ndarray:
        """float64 (T,), NaN is missing; ValueError, with row and series, for what is no number."""
        try:
            numbers = values.numbers(self.rows, name)[self.order_T]
            numbers[self.order_T < 0] = np.nan
            return numbers
        except values.NotANumber as error:
            row = error.args_of[2]
            raise error.of(self.series(int(self.series_T[int((self.order_T == row).argmax())]))) from None

    def is_numeric(self, covariate: Covariate) -> bool:
        """Numbers, or labels?"""
        is_numeric = values.is_numeric(self.rows, covariate.column)  # also where it is said: times are refused
        return is_numeric and not covariate.is_label

    def labels(self, name: str, past: set[str] | None = None) -> pa.Array:
        """Text (T,), null is missing; written as the labels of the `past` where those are given."""
        column = values.labels(self.rows, name) if past is None else values.labels_like(self.rows, name, past)
        return column.take(pa.array(self.order_T, mask=self.order_T < 0))

    @cached_property
    def names_N(self) -> list[str]:
        """The series' ids; see `joined_id` for those of several columns."""
        return self.keys_N.tolist()

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

    def say_empty(self, target_VT: np.ndarray) -> None:
        """A note where a series has no value in any of its targets, or in one of several."""
        has_value_VN = np.add.reduceat(np.isfinite(target_VT), self.starts[:-1], axis=1, dtype=np.int64) > 0
        is_empty_N = np.asarray(~has_value_VN.any(axis=0))
        self._say_empty(is_empty_N, "no value: there is nothing to forecast from")
        for name, has_value_N in zip(self.targets, has_value_VN, strict=True):
            without = f"no value of {name!r}: there is nothing to forecast it from"
            self._say_empty(~has_value_N & ~is_empty_N, without)

    def _say_empty(self, is_empty_N: np.ndarray, what: str) -> None:
        if is_empty_N.any():
            empty = np.flatnonzero(is_empty_N)
            others = f" and {len(empty) - 1} more have" if len(empty) > 1 else " has"
            self.rows.say(f"{self.rows.name}: series {self.series(int(empty[0]))}{others} {what}.")

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
            f"({both}). Keep one row a series and time step.{_of_a_clock(self.times_T[position], self.times_T)}"
        )

    def _check_same_series(self, rows: Rows, codes: np.ndarray) -> None:
        """Of another table, whose rows belong to the series `codes` of this one, -1 to none."""
        if (codes < 0).any():
            row = int((codes < 0).argmax())
            parts = [str(rows.column(name)[row].as_py()) for name in self.id_columns]
            found = joined_id(parts) if len(parts) > 1 else parts[0]
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


def joined_id(parts: Iterable[str]) -> str:
    r"""The id of a series that several columns name: `a/b`. Strokes of their own are `\/`, so that the ids of no two
    series are the same."""
    return "/".join(part.replace("\\", r"\\").replace("/", r"\/") for part in parts)


def instants(times: pd.Index) -> np.ndarray:
    """datetime64 in UTC, or int64."""
    if isinstance(times, pd.DatetimeIndex) and times.tz is not None:
        return times.tz_convert(None).to_numpy()
    return times.to_numpy()


def several_series(rows: Rows, time: str, stamp: object, both: str, order: np.ndarray, times: pd.Index) -> ValueError:
    """A time that stands twice where nothing names the series: which columns may."""
    keys = _likely_keys(rows, time, np.argsort(order), times)
    remedy = "Name the column that tells them apart with id_column= (--id-column)."
    if keys:
        quoted, asked = " and ".join(map(repr, keys)), ",".join(keys)
        given = repr(keys[0]) if len(keys) == 1 else repr(list(keys))
        remedy = f"Is the series named by {quoted}? Then say id_column={given} (--id-column {asked})."
    return ValueError(
        f"{rows.name} has no column {rows.options.id_column[0]!r}. Its columns: {', '.join(rows.names)}. The time "
        f"{stamp} stands in it twice ({both}), so it holds more than one series. {remedy}{_of_a_clock(stamp, times)}"
    )


def _of_a_clock(stamp: Any, times: pd.Index) -> str:
    """A word where a time that stands twice may be the hour of a clock that was set back."""
    if not isinstance(times, pd.DatetimeIndex) or times.tz is not None or len(np.unique(times.time)) < 2:
        return ""
    is_night = pd.Timestamp(stamp).hour <= 3
    return " If a clock was set back there, write all times with their UTC offset: 02:00+01:00." if is_night else ""


def _likely_keys(rows: Rows, time: str, place: np.ndarray, times: pd.Index) -> tuple[str, ...]:
    """The fewest-valued columns of text or whole numbers that, with the time, are unique in every row."""
    stamps = pd.factorize(instants(times)[place])[0]
    codes = {}
    for name in rows.names:
        type_ = rows.column(name).type
        if name == time or not (pa.types.is_large_string(type_) or pa.types.is_integer(type_)):
            continue
        code, labels = pd.factorize(rows.column(name).to_pandas())
        is_measured = name in (*rows.options.target, *TARGET_NAMES) or _are_fractions(labels)
        if 1 < code.max() + 1 <= len(code) // 2 and not is_measured:
            codes[name] = code
    best: tuple[int, tuple[str, ...]] | None = None
    for names in [*((name,) for name in codes), *combinations(list(codes)[:_MOST_KEYS], 2)]:
        frame = pd.DataFrame({name: codes[name] for name in names})
        if not frame.assign(stamp=stamps).duplicated().any():
            found = (len(frame.drop_duplicates()), names)
            best = found if best is None or found[0] < best[0] else best
    return best[1] if best else ()


def _are_fractions(labels: pd.Index) -> bool:
    """Numbers of a text file, and not whole ones: values, and no names."""
    numbers = pd.to_numeric(pd.Series(labels), errors="coerce")
    return bool(numbers.notna().all() and (numbers % 1 != 0).any())


def _id_columns(rows: Rows) -> tuple[str, ...]:
    asked = rows.options.id_column
    if len(asked) == 1 and asked[0] == ID_NAMES[0]:
        found = find(rows, asked[0])
        return () if found is None else (found,)
    return tuple(needed(rows, name) for name in asked)


def _targets(rows: Rows, used: set[str]) -> tuple[str, ...]:
    asked = rows.options.target
    if not asked:
        raise ValueError("target is an empty list: name the column to forecast.")
    if asked == (TARGET_NAMES[0],) and find(rows, asked[0]) is None:
        likely = next(
            (name for name in reversed(rows.names) if name not in used and _has_numbers(rows, name)), "COLUMN"
        )
        raise ValueError(
            f"{rows.name} has no column {asked[0]!r}. {rows.nearest(asked[0])} Say what is to be forecast, as in "
            f"target={likely!r} (--target {likely})."
        )
    return tuple(needed(rows, name) for name in asked)


def _has_numbers(rows: Rows, name: str) -> bool:
    try:
        return values.is_numeric(rows, name)
    except ValueError:  # times, lists
        return False


def _check_one_series(rows: Rows, time: str, times: pd.Index) -> None:
    """Without an id, times that go back just where a column of text changes are those of several series."""
    instants_T = instants(times)
    back = instants_T[1:] < instants_T[:-1]
    if len(rows.lone) > 1 or not back.any():
        return
    for name in rows.names:
        if name == time or not pa.types.is_large_string(rows.column(name).type):
            continue
        code, labels = pd.factorize(rows.column(name).to_pandas())
        changes = code[1:] != code[:-1]
        if not any(character.isalpha() for label in labels[:2] for character in label):
            continue  # a number
        if changes.sum() == code.max() and (changes >= back).all() and 2 * changes.sum() < len(code):
            row = int(back.argmax()) + 1
            raise ValueError(
                f"{rows.name} has no column {rows.options.id_column[0]!r}, and its times go back in "
                f"{rows.origin.row(row)}, where {name!r} changes from {rows.column(name)[row - 1].as_py()!r} to "
                f"{rows.column(name)[row].as_py()!r}: is that the name of the series? Then say id_column={name!r} "
                f"(--id-column {name}); else sort the rows by time."
            )


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
    codes = np.zeros(len(rows), np.int64)
    for one in encoded:  # numbered anew with each column: the product of many would not fit
        codes, _ = pd.factorize(codes * len(one.dictionary) + one.indices.to_numpy(zero_copy_only=False))
    firsts = np.unique(codes, return_index=True)[1]
    parts = [one.dictionary.take(one.indices.take(pa.array(firsts))).to_pylist() for one in encoded]
    return codes, pd.Index([joined_id(part) for part in zip(*parts, strict=True)], dtype=object)
