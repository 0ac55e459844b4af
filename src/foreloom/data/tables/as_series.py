"""Tables with one observation a row, long or wide, as one series a row: the form that data sets are mapped in.

Long: a time column and a value column, an id column where there are several series; every other column of numbers or
text is a past covariate. Wide: a date column and columns of numbers, read as one multivariate series, as the ETT and
LTSF files are meant.

Axes: T rows of the table, N series.
"""

from __future__ import annotations

import difflib
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from foreloom.data import columns
from foreloom.data.source import VARIATES
from foreloom.data.tables import values
from foreloom.data.tables.long_table import LongTable, instants, several_series
from foreloom.data.tables.options import TableOptions
from foreloom.data.tables.read import Origin, Rows, join, nearest, read_rows, separator_hint
from foreloom.data.tables.roles import find, has_values
from foreloom.data.tables.timeline import Timeline, clock_of, from_clock, keeps_to_the_wall
from foreloom.data.tables.times import read_times

_NOTES = b"foreloom.notes"
_ZONE = b"foreloom.zone"
_NOWHERE = Origin(("",), (0,))


def is_table(schema: pa.Schema, options: TableOptions) -> bool:
    """One observation a row, long or wide?"""
    rows = Rows(schema.empty_table(), _NOWHERE, options=options)
    time = find(rows, options.timestamp_column)
    if time is None or columns.is_list(schema.field(time).type):
        return False
    target = find(rows, options.target[0])
    if target is not None:
        return not columns.is_list(schema.field(target).type)
    return not any(columns.is_list(field.type) for field in schema)


def write_series_of(paths: Sequence[Path], out: Path, options: TableOptions = TableOptions()) -> None:
    """The tables of some files of one kind as one IPC stream with one series a row.

    Long tables are put together first, so a series may go on from file to file; it keeps the place where its id first
    appears, and its values are sorted by time. Each wide table is one series, and so is each long one without an id
    column. What the owner should know of the reading travels in the stream, see `say_notes`. Raises ValueError, with
    file and row, as `LongTable.read` does.
    """
    rows, is_long = read_tables(paths, options)
    if is_long:
        write_series_of_rows(join(rows), out)
    else:
        series = [_from_wide(one) for one in rows]
        notes = [note for one in rows for note in one.notes]
        _write(pa.concat_tables(series, promote_options="permissive"), notes, out)


def write_series_of_rows(rows: Rows, out: Path) -> LongTable:
    """The same of a long table, which is given back. What its owner should know is in `rows.notes` too."""
    long = LongTable.read(rows)
    _write(_from_long(long), rows.notes, out)
    return long


def _write(table: pa.Table, notes: Sequence[str], out: Path) -> None:
    if notes:
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), _NOTES: json.dumps(notes)})
    with pa.OSFile(str(out), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=4096)


def read_tables(paths: Sequence[Path], options: TableOptions) -> tuple[list[Rows], bool]:
    """The rows of files of one kind, and whether they are long tables. ValueError for files that are no tables, are
    empty, or do not have the same columns."""
    parts = [read_rows(path, options) for path in paths]
    for part in parts:
        if not is_table(part.columns.schema, options):
            raise ValueError(
                f"{part.name}: the columns {', '.join(part.names)} are neither a long table (timestamp and target, "
                "or ds and y, with an id column for several series) nor a wide one (a column date "
                "and columns of numbers). Where they are called otherwise, name them: --timestamp-column and --target "
                f"(timestamp_column, target).{separator_hint(part)}"
            )
        if not len(part):
            raise ValueError(f"{part.name} has no rows. Write it again, or name another.")
    is_long = any(find(part, options.target[0]) is not None for part in parts)
    if is_long:
        _check_same_columns(parts)
    return [replace(part, lone=(name,)) for part, name in zip(parts, _series_names(paths), strict=True)], is_long


def say_notes(schema: pa.Schema) -> None:
    """Warn of what was guessed or left out when a table was read, also where it was read long ago."""
    for note in json.loads((schema.metadata or {}).get(_NOTES, b"[]")):
        warnings.warn(note, stacklevel=5)


def in_zone(clock: np.ndarray, schema: pa.Schema) -> np.ndarray | pd.DatetimeIndex:
    """Times of series that were made of a table, datetime64, in the zone that the table states; as they are where it
    states none."""
    if (said := (schema.metadata or {}).get(_ZONE)) is None:
        return clock
    zone, on_wall = json.loads(said)
    return from_clock(clock, zone, on_wall)


def _zone(times_T: pd.Index) -> dict[bytes, str]:
    """Metadata: the zone, and whether `_clock` writes what stands on its clocks, or UTC."""
    if not isinstance(times_T, pd.DatetimeIndex) or times_T.tz is None:
        return {}
    return {_ZONE: json.dumps([pa.timestamp("us", times_T.tz).tz, keeps_to_the_wall(times_T)])}


def _series_names(paths: Sequence[Path]) -> list[str]:
    """What a file's one series is called: sales, of sales.csv.gz."""
    stems = [Path(path.name.removesuffix(".gz")).stem for path in paths]
    return stems if len({*stems}) == len(stems) else [path.name for path in paths]


def _check_same_columns(parts: Sequence[Rows]) -> None:
    """Long tables of one folder have the same columns: what a file lacks would be missing there in silence."""
    first = parts[0]
    for part in parts[1:]:
        for one, other in ((part, first), (first, part)):
            lacking = [name for name in other.names if name not in one.names]
            if lacking:
                raise ValueError(
                    f"{one.name} has no column {lacking[0]!r}, {Path(other.name).name} beside it has one. "
                    f"{nearest(lacking[0], one.names)} Give the files of one folder the same columns, or put them into "
                    "folders of their own."
                )


def _from_long(table: LongTable) -> pa.Table:
    freqs = [None] * len(table.keys_N) if table.timeline is None else table.timeline.freqs_N
    arrays: dict[str, pa.Array] = {
        "item_id": pa.array(table.names_N, pa.string()),
        **_clock(table.times_T, table.starts, freqs),
    }
    offsets = pa.array(table.starts, pa.int64())
    target_VT = np.stack([table.numbers(name) for name in table.targets])
    table.say_empty(target_VT)
    _say_infinite(table.rows, table.targets, target_VT, table.place)
    if len(target_VT) == 1:
        arrays["target"] = pa.LargeListArray.from_arrays(offsets, pa.array(target_VT[0]))
    else:
        arrays["target"] = _variates(target_VT, table.starts)
        arrays[f"static__{VARIATES}"] = pa.array([", ".join(table.targets)] * len(table.keys_N))
    for one in table.of_role("past", "future"):
        values_T = table.covariate(one)
        is_label = values_T.dtype == object
        column = pa.array(values_T, pa.string()) if is_label else pa.array(values_T)
        called = f"{one.role}{'_cat' * is_label}__{one.name}"
        if called in arrays:
            raise ValueError(f"{table.rows.name} has two columns for the covariate {called!r}. Rename or drop one.")
        arrays[called] = pa.LargeListArray.from_arrays(offsets, column)
    for one in table.of_role("static"):
        arrays[f"static__{one.name}"] = table.static_values(one)
    return pa.table(arrays).replace_schema_metadata(_zone(table.times_T))


def _from_wide(rows: Rows) -> pa.Table:
    time = find(rows, rows.options.timestamp_column)
    assert time is not None
    id_name = find(rows, rows.options.id_column[0])
    if id_name is not None:
        close = difflib.get_close_matches("target", rows.names, n=1)
        which = f"Is it {close[0]!r}? Rename it" if close else "Rename the one that holds the values"
        raise ValueError(
            f"{rows.name}: {id_name!r} names the series of a long table, which needs a column target (or y) too; "
            f"the columns are {', '.join(rows.names)}. {which}, name it with --target, or take {id_name!r} out of a "
            "table with a column for each series."
        )
    options = rows.options
    roles = (*options.known_ahead, *(options.past or ()), *options.static, *options.category)
    if roles:
        raise ValueError(
            f"{rows.name} has no column {options.target[0]!r}, so it is a wide table: every column is a target, and "
            f"{roles[0]!r} cannot be a covariate. Name the target(s) with target (--target)."
        )
    times_T = read_times(rows, time)
    names = [name for name in rows.names if name != time and has_values(rows, name)]
    if not names:
        raise ValueError(f"{rows.name}: there is no column beside {time!r}; add those that hold the series.")
    order = np.argsort(instants(times_T), kind="stable")
    times_T = times_T.take(order)
    sorted_T = instants(times_T)
    twice = sorted_T[1:] == sorted_T[:-1]
    if twice.any():
        place = int(twice.argmax())
        both = f"{rows.origin.row(order[place])} and {rows.origin.row(order[place + 1])}"
        raise several_series(rows, time, times_T[place], both, order, times_T)
    starts, freqs, row_T = np.array([0, len(rows)]), [None], np.arange(len(rows))
    if isinstance(times_T, pd.DatetimeIndex):
        try:
            timeline = Timeline.read(times_T, starts, lambda n: repr(rows.lone[0]), options.freq, options.fill_gaps)
        except ValueError as error:
            raise ValueError(f"{rows.name}: {error}") from None
        times_T, starts, freqs, row_T = timeline.times_T, timeline.starts, timeline.freqs_N, timeline.row_T
        for note in timeline.notes:
            rows.say(f"{rows.name}: {note}")
    target_VT = np.stack([values.numbers(rows, name)[order][row_T] for name in names])
    target_VT[:, row_T < 0] = np.nan
    _say_infinite(rows, names, target_VT, lambda place: rows.origin.row(order[row_T[place]]))
    arrays = {
        "item_id": pa.array([rows.lone[0]]),
        **_clock(times_T, starts, freqs),
        "target": _variates(target_VT, starts),
        f"static__{VARIATES}": pa.array([", ".join(names)]),
    }
    return pa.table(arrays).replace_schema_metadata(_zone(times_T))


def _say_infinite(rows: Rows, names: Sequence[str], target_VT: np.ndarray, place: Callable[[int], str]) -> None:
    """A note on values that are read as missing though something stands there."""
    for name, target_T in zip(names, target_VT, strict=True):
        found = np.flatnonzero(np.isinf(target_T))
        if len(found):
            rows.say(
                f"{rows.name}: column {name!r} holds {len(found):,} infinite value{'s' * (len(found) > 1)}, taken as "
                f"missing: the first in {place(int(found[0]))}."
            )


def _variates(variates: Sequence[np.ndarray] | np.ndarray, starts: np.ndarray) -> pa.Array:
    """V columns of numbers (T,) as N lists of V lists."""
    lengths_N = np.diff(starts)
    inner_offsets = np.concatenate([[0], np.cumsum(np.repeat(lengths_N, len(variates)))])
    flat = [one[begin:end] for begin, end in pairwise(starts) for one in variates]
    inner = pa.LargeListArray.from_arrays(pa.array(inner_offsets), pa.array(np.concatenate(flat)))
    return pa.LargeListArray.from_arrays(pa.array(np.arange(len(lengths_N) + 1) * len(variates)), inner)


def _clock(times_T: pd.Index, starts: np.ndarray, freqs: Sequence[str | None]) -> dict[str, pa.Array]:
    """Columns start and freq, and timestamp where a series is not regular; none where the times are counted steps."""
    if not isinstance(times_T, pd.DatetimeIndex):
        return {}
    stamps_T = clock_of(times_T).astype("datetime64[us]")
    arrays = {"start": pa.array(stamps_T[starts[:-1]]), "freq": pa.array(freqs, pa.string())}
    if any(freq is None and length >= 3 for freq, length in zip(freqs, np.diff(starts), strict=True)):
        arrays["timestamp"] = pa.LargeListArray.from_arrays(pa.array(starts, pa.int64()), pa.array(stamps_T))
    return arrays
