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
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from foreloom.data import columns
from foreloom.data.source import VARIATES
from foreloom.data.tables import values
from foreloom.data.tables.long_table import LongTable, find, has_values, instants, several_series
from foreloom.data.tables.read import Origin, Rows, TableOptions, join, nearest, read_rows, separator_hint
from foreloom.data.tables.timeline import infer_freq
from foreloom.data.tables.times import read_times

_NOTES = b"foreloom.notes"
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
    parts = [read_rows(path, options) for path in paths]
    for part in parts:
        if not is_table(part.columns.schema, options):
            raise ValueError(
                f"{part.name}: the columns {', '.join(part.names)} are neither a long table (timestamp and target, "
                "or ds and y, with an id column for several series) nor a wide one (a column date "
                "and columns of numbers)."
                f"{separator_hint(part)}"
            )
        if not len(part):
            raise ValueError(f"{part.name} has no rows.")
    names = _series_names(paths)
    if any(find(part, options.target[0]) is not None for part in parts):
        _check_same_columns(parts)
        whole = join(parts)
        table, notes = _from_long(LongTable.read(whole, lone=names)), whole.notes
    else:
        series = [_from_wide(part, name) for part, name in zip(parts, names, strict=True)]
        table = pa.concat_tables(series, promote_options="permissive")
        notes = [note for part in parts for note in part.notes]
    if notes:
        table = table.replace_schema_metadata({_NOTES: json.dumps(notes)})
    with pa.OSFile(str(out), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=4096)


def say_notes(schema: pa.Schema) -> None:
    """Warn of what was guessed or left out when a table was read, also where it was read long ago."""
    for note in json.loads((schema.metadata or {}).get(_NOTES, b"[]")):
        warnings.warn(note, stacklevel=4)


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
    arrays: dict[str, pa.Array] = {
        "item_id": pa.array(table.names_N, pa.string()),
        **_clock(table.times_T, table.starts),
    }
    offsets = pa.array(table.starts, pa.int64())
    if len(table.targets) == 1:
        arrays["target"] = pa.LargeListArray.from_arrays(offsets, pa.array(table.numbers(table.targets[0])))
    else:
        arrays["target"] = _variates([table.numbers(name) for name in table.targets], table.starts)
        arrays[f"static__{VARIATES}"] = pa.array([", ".join(table.targets)] * len(table.keys_N))
    for name in table.covariates:
        is_numeric = table.is_numeric(name)
        column = pa.array(table.numbers(name)) if is_numeric else table.labels(name).cast(pa.string())
        called = _column_name(name, is_numeric)
        if called in arrays:
            raise ValueError(f"{table.rows.name} has two columns for the covariate {called!r}. Rename or drop one.")
        arrays[called] = pa.LargeListArray.from_arrays(offsets, column)
    return pa.table(arrays)


def _column_name(name: str, is_numeric: bool) -> str:
    """A covariate with its role: known ahead where its own name says so (future__price), else of the past."""
    stated = columns.kind_of(name) if "__" in name else None
    role, short = ("past", name) if stated is None else (stated[0].value, stated[1])
    return f"{role}__{short}" if is_numeric else f"{role}_cat__{short}"


def _from_wide(rows: Rows, item_id: str) -> pa.Table:
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
    starts = np.array([0, len(rows)])
    arrays = {
        "item_id": pa.array([item_id]),
        **_clock(times_T, starts),
        "target": _variates([values.numbers(rows, name)[order] for name in names], starts),
        f"static__{VARIATES}": pa.array([", ".join(names)]),
    }
    return pa.table(arrays)


def _variates(variates: Sequence[np.ndarray], starts: np.ndarray) -> pa.Array:
    """V columns of numbers (T,) as N lists of V lists."""
    lengths_N = np.diff(starts)
    inner_offsets = np.concatenate([[0], np.cumsum(np.repeat(lengths_N, len(variates)))])
    flat = [one[begin:end] for begin, end in pairwise(starts) for one in variates]
    inner = pa.LargeListArray.from_arrays(pa.array(inner_offsets), pa.array(np.concatenate(flat)))
    return pa.LargeListArray.from_arrays(pa.array(np.arange(len(lengths_N) + 1) * len(variates)), inner)


def _clock(times_T: pd.Index, starts: np.ndarray) -> dict[str, pa.Array]:
    """Columns start and freq, and timestamp where a series is not regular; none where the times are counted steps."""
    if not isinstance(times_T, pd.DatetimeIndex):
        return {}
    stamps_T = instants(times_T).astype("datetime64[us]")
    freqs = _freqs(stamps_T, starts)
    arrays = {"start": pa.array(stamps_T[starts[:-1]]), "freq": pa.array(freqs, pa.string())}
    if any(freq is None and length >= 3 for freq, length in zip(freqs, np.diff(starts), strict=True)):
        arrays["timestamp"] = pa.LargeListArray.from_arrays(pa.array(starts, pa.int64()), pa.array(stamps_T))
    return arrays


def _freqs(stamps_T: np.ndarray, starts: np.ndarray) -> list[str | None]:
    """The frequency of every series; those that look alike are asked about once."""
    lengths_N = np.diff(starts)
    steps_T = np.append(np.diff(stamps_T), np.timedelta64(0, "us")).astype(np.int64)
    last_T = np.zeros(len(stamps_T), dtype=bool)
    last_T[starts[1:] - 1] = True  # no step of one series
    first_step_N = steps_T[starts[:-1]]
    uneven_T = ~last_T & (steps_T != np.repeat(first_step_N, lengths_N))
    is_even_N = np.add.reduceat(uneven_T, starts[:-1]) == 0
    known: dict[object, str | None] = {}
    freqs = []
    day = 86_400_000_000
    weekday_N = (stamps_T[starts[:-1]].astype(np.int64) // day) % 7
    for n, (begin, end) in enumerate(pairwise(starts)):
        # An even step under 28 days is told by the step and the weekday; a calendar needs the stamps.
        if is_even_N[n] and first_step_N[n] < 28 * day:
            stamps = stamps_T[begin : min(end, begin + 30)]
            key: object = (first_step_N[n], weekday_N[n], min(end - begin, 3))
        else:
            stamps = stamps_T[begin : begin + 30 if is_even_N[n] else end]
            key = stamps.tobytes()
        if key not in known:
            known[key] = infer_freq(stamps)
        freqs.append(known[key])
    return freqs
