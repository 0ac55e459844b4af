"""Tables from and to files; data sets of other layouts as tables.

Axes: T steps of all series.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from foreloom.data.columns import ID_NAMES, TIME_NAMES
from foreloom.data.formats.columnar import read_parquet_schema
from foreloom.data.formats.reader import find_parts, open_source
from foreloom.data.source import Series, Source, read_in_turn
from foreloom.data.tables import values
from foreloom.data.tables.as_series import is_table, read_tables
from foreloom.data.tables.frequency import steps_from
from foreloom.data.tables.options import TableOptions, refuse_table_options
from foreloom.data.tables.read import Origin, Rows, join
from foreloom.data.tables.times import read_times
from foreloom.files import whole_or_absent


def rows_of_file(path: str | Path, options: TableOptions = TableOptions()) -> Rows:
    """The rows of a table (.csv, also .csv.gz, .tsv, .parquet), of a folder of tables, or those that the series of
    another data set would have in one. ValueError for what cannot be read, and for series that state no times."""
    path = Path(path).expanduser()
    if not path.exists():
        raise ValueError(f"no file {path}. Relative paths start at {Path.cwd()}.")
    parts = find_parts(path)
    if len(parts) == 1 and _are_tables(parts[0].layout, parts[0].files, options):
        return join(read_tables(parts[0].files, options)[0])
    refuse_table_options(path, options)
    return _rows_of_series(open_source(path), path)


def _are_tables(layout: str, files: Any, options: TableOptions) -> bool:
    return layout == "csv" or (layout == "parquet" and is_table(read_parquet_schema(files[0]), options))


def _rows_of_series(source: Source, path: Path) -> Rows:
    """A row a series and step."""
    all_series = list(read_in_turn(source, np.arange(len(source))))
    empty = [one.item_id for one in all_series if not one.length]
    all_series = [one for one in all_series if one.length]
    if not all_series:
        raise ValueError(f"{path}: no series has a step, so there is nothing to forecast.")
    names = target_names(all_series[0])
    columns: dict[str, list[Any]] = {"item_id": [], "timestamp": [], **{name: [] for name in names}}
    roles = {"past": "past", "future": "future"}
    covariates = {
        f"{role}__{name}": (role, name) for one in all_series for role in roles for name in sorted(getattr(one, role))
    }
    for one in all_series:
        if len(one.target_VT) != len(names):
            raise ValueError(
                f"{path}: series {one.item_id!r} has {len(one.target_VT)} targets, the first series {len(names)}. "
                "Forecast those of one kind together."
            )
        columns["item_id"].append(np.full(one.length, one.item_id, dtype=object))
        columns["timestamp"].append(times_of(one, path))
        for name, row_T in zip(names, one.target_VT, strict=True):
            columns[name].append(row_T)
        for column, (role, name) in covariates.items():
            absent = np.full(one.length, None, dtype=object)
            columns.setdefault(column, []).append(getattr(one, role).get(name, absent))
    table = pa.table({name: pa.array(np.concatenate(parts), from_pandas=True) for name, parts in columns.items()})
    freqs = {one.item_id: one.freq for one in all_series if one.freq is not None}
    if odd := next((one for one in all_series if one.freq not in (None, freqs.get(one.item_id))), None):
        raise ValueError(
            f"{path}: several series are called {odd.item_id!r}, of the frequencies {odd.freq} and "
            f"{freqs[odd.item_id]}. Give each a name of its own."
        )
    rows = Rows(table, Origin((str(path),), (len(table),)), options=TableOptions(target=tuple(names)), freqs=freqs)
    named = Counter(one.item_id for one in all_series)
    if twice := [name for name, count in named.items() if count > 1]:
        rows.say(
            f"{path}: {named[twice[0]]:,} series are called {twice[0]!r} and taken as parts of one"
            f"{f', as are those of {len(twice) - 1:,} more names' if len(twice) > 1 else ''}."
        )
    if empty:
        others = f" and {len(empty) - 1:,} more have" if len(empty) > 1 else " has"
        rows.say(f"{path}: series {empty[0]!r}{others} no step, and no forecast is made of it.")
    return rows


def target_names(series: Series) -> list[str]:
    """Of each target: as a table had them that became this series, or numbered."""
    num_targets = len(series.target_VT)
    stated = str(series.static.get("variates", "")).split(", ")
    if num_targets == 1 or len(stated) != num_targets:
        return ["target"] if num_targets == 1 else [f"target_{number}" for number in range(num_targets)]
    return stated


def times_of(series: Series, path: Path) -> np.ndarray:
    if series.timestamps is not None:
        return np.asarray(series.timestamps, "datetime64[us]")
    if series.start is None or series.freq is None:
        raise ValueError(
            f"{path}: series {series.item_id!r} states no times (start and freq, or timestamp), and a forecast is a "
            "table of times. Write them into the data, or forecast its values with from_pretrained(...).predict."
        )
    try:
        return steps_from(series.start, series.length, series.freq).astype("datetime64[us]")
    except ValueError as error:
        raise ValueError(f"{path}: series {series.item_id!r}: {error}") from None


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
            df.to_csv(beside, index=False, sep="\t" if suffix == ".tsv" else ",")


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
