"""Tables with one observation a row, long or wide, as one series a row: sorted, grouped and split without a loop.

Long: a time column and a value column (item_id/timestamp/target or unique_id/ds/y), an id column where there are
several series; every other column of numbers or text is a past covariate. Wide: a date column and columns of numbers,
read as one multivariate series, as the ETT and LTSF files are meant.

Axes: N observations.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from foreloom.data import columns

_VALUE_NAMES = ("target", "y")
_DATE_NAMES = ("timestamp", "ds", "date", "datetime", "time")


def is_long(schema: pa.Schema) -> bool:
    """One observation of one series a row?"""
    return any(_is_scalar(schema, name) for name in _VALUE_NAMES) and _first(schema, _DATE_NAMES) is not None


def is_wide(schema: pa.Schema) -> bool:
    """One moment a row, one variate a column?"""
    return _first(schema, _DATE_NAMES) is not None and not any(columns.is_list(field.type) for field in schema)


@dataclass(frozen=True)
class Origin:
    """Where the rows of a table come from, for names and errors."""

    paths: Sequence[Path]
    num_rows: Sequence[int]
    """Rows of each file."""
    first_line: int
    """The number that a file's first row has for its reader: 0, or 2 below the header of a text file."""

    @property
    def name(self) -> str:
        return self.paths[0].stem

    def row(self, row: int) -> str:
        """The file, and the row in it."""
        first_rows = np.cumsum([0, *self.num_rows[:-1]])
        file = int(np.searchsorted(first_rows, row, side="right")) - 1
        return f"{self.paths[file]}: row {row - first_rows[file] + self.first_line}"


def series_table(parts: Sequence[pa.Table], paths: Sequence[Path], first_line: int = 0) -> pa.Table:
    """One series a row, from the tables of one or more files.

    Long tables are put together first, so a series may go on from file to file; it keeps the place where its id first
    appears, and its values are sorted by time. Each wide table is one series. Raises ValueError, with file and row, for
    text among the numbers, a missing or repeated time.
    """
    sizes = [len(part) for part in parts]
    if is_long(parts[0].schema):
        return _from_long(_put_together(parts, paths, first_line), Origin(paths, sizes, first_line))
    series = []
    for part, path in zip(parts, paths, strict=True):
        if not is_wide(part.schema):
            raise ValueError(f"{path}: the table has no date column, {paths[0].name} beside it has one.")
        series.append(_from_wide(part, Origin([path], [len(part)], first_line)))
    return pa.concat_tables(series, promote_options="permissive")


def _put_together(parts: Sequence[pa.Table], paths: Sequence[Path], first_line: int) -> pa.Table:
    for part, path in zip(parts, paths, strict=True):
        for name in _VALUE_NAMES:
            if name in part.schema.names:
                _numbers(part, name, Origin([path], [len(part)], first_line))
    try:
        return pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowTypeError as error:
        raise ValueError(f"{paths[0].parent}: the columns of the files do not fit together: {error}") from error


def _from_long(table: pa.Table, origin: Origin) -> pa.Table:
    id_name = _first(table.schema, columns.ID_NAMES)
    date_name = _first(table.schema, _DATE_NAMES)
    value_name = next(name for name in _VALUE_NAMES if name in table.schema.names)
    time_N = _times(table, date_name, origin)
    if id_name is None:
        code_N, ids = np.zeros(len(table), dtype=np.int64), [origin.name]
    else:
        encoded = table.column(id_name).combine_chunks().dictionary_encode(null_encoding="encode")
        code_N = encoded.indices.to_numpy(zero_copy_only=False)
        ids = [str(value) for value in encoded.dictionary.to_pylist()]
    order_N = np.lexsort((time_N, code_N))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(code_N, minlength=len(ids)))])
    code_N, time_N = code_N[order_N], time_N[order_N]
    repeated = np.flatnonzero((code_N[1:] == code_N[:-1]) & (time_N[1:] == time_N[:-1]))
    if len(repeated):
        row = int(order_N[repeated[0] + 1])
        raise ValueError(
            f"{origin.row(row)}: series {ids[code_N[repeated[0]]]!r} has the time {time_N[repeated[0]]} "
            "twice. Keep one row a series and time."
        )

    arrays: dict[str, pa.Array] = {"item_id": pa.array(ids, pa.string()), **_clock(time_N, offsets)}
    list_offsets = pa.array(offsets, pa.int64())
    for name in table.schema.names:
        if name in (id_name, date_name):
            continue
        if name != value_name and columns.is_text(table.schema.field(name).type):
            labels = table.column(name).combine_chunks().cast(pa.string()).take(pa.array(order_N))
            arrays[f"past_cat__{name}"] = pa.LargeListArray.from_arrays(list_offsets, labels)
            continue
        values_N = _numbers(table, name, origin)[order_N]
        column_name = "target" if name == value_name else f"past__{name}"
        arrays[column_name] = pa.LargeListArray.from_arrays(list_offsets, pa.array(values_N))
    return pa.table(arrays)


def _from_wide(table: pa.Table, origin: Origin) -> pa.Table:
    date_name = _first(table.schema, _DATE_NAMES)
    time_N = _times(table, date_name, origin)
    order_N = np.argsort(time_N, kind="stable")
    names = [name for name in table.schema.names if name != date_name]
    id_name = _first(table.schema, columns.ID_NAMES)
    if id_name is not None:
        close = difflib.get_close_matches("target", names, n=1)
        which = f"Is it {close[0]!r}? Rename it" if close else "Rename the one that holds the values"
        raise ValueError(
            f"{origin.paths[0]}: {id_name!r} names the series of a long table, which needs a column target (or y) too; "
            f"the columns are {', '.join(table.schema.names)}. {which}, or take {id_name!r} out of a table with a "
            "column for each series."
        )
    if not names:
        raise ValueError(f"{origin.paths[0]}: there is no column beside {date_name!r}; add those that hold the series.")
    values = np.concatenate([_numbers(table, name, origin)[order_N] for name in names])
    inner = pa.LargeListArray.from_arrays(pa.array(np.arange(len(names) + 1) * len(table)), pa.array(values))
    arrays = {
        "item_id": pa.array([origin.name]),
        **_clock(time_N[order_N], np.array([0, len(table)])),
        "target": pa.LargeListArray.from_arrays(pa.array([0, len(names)], pa.int64()), inner),
        "static__variates": pa.array([", ".join(names)]),
    }
    return pa.table(arrays)


def _times(table: pa.Table, name: str | None, origin: Origin) -> np.ndarray:
    """datetime64[us] (N,), or int64 where the column counts steps."""
    assert name is not None
    column = table.column(name).combine_chunks()
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise ValueError(f"{origin.row(row)}: {name!r} is empty. Every observation needs its time.")
    if pa.types.is_integer(column.type):
        return column.to_numpy()
    if columns.is_text(column.type):
        import pandas as pd

        parsed = pd.to_datetime(pd.Series(column.to_pylist()), errors="coerce", format="mixed")
        wrong = np.flatnonzero(parsed.isna().to_numpy())
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(
                f"{origin.row(row)}: {name!r} is {column[row].as_py()!r}, not a time. Write it as 2024-01-31 12:00:00."
            )
        return parsed.to_numpy(dtype="datetime64[us]")
    return column.to_numpy(zero_copy_only=False).astype("datetime64[us]")


def _numbers(table: pa.Table, name: str, origin: Origin) -> np.ndarray:
    """float64 (N,), null as NaN."""
    column = table.column(name).combine_chunks()
    if columns.is_text(column.type):
        import pandas as pd

        text = pd.Series(column.to_pylist())
        numbers = pd.to_numeric(text, errors="coerce")
        wrong = np.flatnonzero((numbers.isna() & text.notna()).to_numpy())
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(
                f"{origin.row(row)}: column {name!r} is {text[row]!r}, a number is wanted. "
                "Correct the row; leave the cell empty where the value is missing."
            )
        return numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def _clock(time_N: np.ndarray, offsets: np.ndarray) -> dict[str, pa.Array]:
    """Columns start and freq, and timestamp where a series is not regular."""
    if time_N.dtype.kind != "M":
        return {}
    freqs: list[str | None] = []
    known: dict[bytes, str | None] = {}
    regular = True
    for begin, end in pairwise(offsets):
        stamps = time_N[begin:end]
        steps = np.diff(stamps)
        even = len(steps) > 0 and bool((steps == steps[0]).all())
        # An evenly spaced clock is known by its first stamps; a calendar (months, business days) needs them all.
        stamps = stamps[:30] if even else stamps
        key = stamps.tobytes()
        if key not in known:
            known[key] = _infer_freq(stamps)
        freqs.append(known[key])
        regular &= len(stamps) < 3 or known[key] is not None
    arrays = {"start": pa.array(time_N[offsets[:-1]]), "freq": pa.array(freqs, pa.string())}
    if not regular:
        arrays["timestamp"] = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(time_N))
    return arrays


def _infer_freq(stamps: np.ndarray) -> str | None:
    import pandas as pd

    return pd.DatetimeIndex(stamps, freq="infer").freqstr if len(stamps) >= 3 else None


def _first(schema: pa.Schema, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if _is_scalar(schema, name)), None)


def _is_scalar(schema: pa.Schema, name: str) -> bool:
    return name in schema.names and not columns.is_list(schema.field(name).type)
