"""Text files as Arrow: JSON with one series a line or an element, CSV with one observation a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from foreloom.data import columns, tables
from foreloom.data.formats.cache import conversion_bar
from foreloom.data.formats.writer import write_series
from foreloom.data.record import records_of, series_of
from foreloom.data.source import Series

_LARGEST_BLOCK_BYTES = 2**30


def jsonl_to_arrow(paths: Sequence[Path], out: Path) -> None:
    """Lines are objects with `target` or `sequence` and any other column of `data/columns.py`, or lists of numbers."""
    with conversion_bar(paths[0].name, sum(path.stat().st_size for path in paths)) as advance:
        write_series((one for path in paths for one in _lines(path, advance)), out)


def json_to_arrow(paths: Sequence[Path], out: Path) -> None:
    """One document, a list of what a JSON line holds, or lines as in JSONL."""
    with conversion_bar(paths[0].name, sum(path.stat().st_size for path in paths)) as advance:
        write_series((one for path in paths for one in _lines_or_document(path, advance)), out)


def csv_to_arrow(paths: Sequence[Path], out: Path) -> None:
    """Long or wide tables, see `data/tables.py`."""
    write_tables([_read_csv(path) for path in paths], paths, out, first_line=2)


def write_tables(parts: Sequence[pa.Table], paths: Sequence[Path], out: Path, first_line: int = 0) -> None:
    """Tables with one observation a row as one IPC stream with one series a row, see `data/tables.py`."""
    table = tables.series_table(parts, paths, first_line)
    with pa.OSFile(str(out), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=4096)


def _read_csv(path: Path) -> pa.Table:
    from pyarrow import csv

    # One block as large as the file: a column's type is told from all of its values.
    block_bytes = min(max(path.stat().st_size, 2**16), _LARGEST_BLOCK_BYTES)
    try:
        table = csv.read_csv(
            path,
            read_options=csv.ReadOptions(block_size=block_bytes),
            convert_options=csv.ConvertOptions(strings_can_be_null=True),
        )
    except pa.ArrowInvalid as error:
        reason = str(error).rstrip(".")
        raise ValueError(f"{path}: not a readable CSV table: {reason}.{_separator_hint(path)}") from error
    if not (tables.is_long(table.schema) or tables.is_wide(table.schema)):
        raise ValueError(
            f"{path}: the columns {', '.join(table.schema.names)} are neither a long table (timestamp and target, or "
            "ds and y, with an id column for several series) nor a wide one (a column date and columns of numbers)."
            f"{_separator_hint(path)}"
        )
    if not len(table):
        raise ValueError(f"{path}: the table has no rows.")
    return _with_ids_as_written(table, path)


def _with_ids_as_written(table: pa.Table, path: Path) -> pa.Table:
    """Ids are text, and a series may be called NA or null, which is missing in any other column."""
    from pyarrow import csv

    id_name = next((name for name in columns.ID_NAMES if name in table.schema.names), None)
    if id_name is None or not table.column(id_name).null_count:
        return table
    as_text = csv.ConvertOptions(include_columns=[id_name], column_types={id_name: pa.string()})
    read = csv.ReadOptions(block_size=min(max(path.stat().st_size, 2**16), _LARGEST_BLOCK_BYTES))
    ids = csv.read_csv(path, read_options=read, convert_options=as_text).column(id_name)
    for row, one in enumerate(ids.to_pylist()):
        if not one:
            raise ValueError(f"{path}: column {id_name!r} is empty in row {row + 2}.")
    return table.set_column(table.schema.get_field_index(id_name), id_name, ids)


def _separator_hint(path: Path) -> str:
    """What spreadsheets of countries with a decimal comma write looks like a table of one column."""
    with path.open("rb") as file:
        header = file.readline()
    for separator, name in ((b";", "semicolons"), (b"\t", "tabs")):
        if separator in header and b"," not in header:
            return f" Its columns seem to be parted by {name}; save it with commas, and numbers with a decimal point."
    return ""


def _lines(path: Path, advance: Any) -> Iterator[Series]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            advance(len(line))
            if line.strip():
                where = f"{path}:{number}"
                try:
                    record = json.loads(line)
                except ValueError as error:
                    raise ValueError(f"{where}: not JSON ({error}). Each line is one object or one list.") from None
                yield series_of(record, where, str(number - 1))


def _lines_or_document(path: Path, advance: Any) -> Iterator[Series]:
    if _has_lines(path):
        yield from _lines(path, advance)
        return
    try:
        document = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON ({error}). A list of series is wanted.") from None
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}). A list of series is wanted.") from None
    advance(path.stat().st_size)
    for number, record in enumerate(records_of(document)):
        yield series_of(record, f"{path}: series {number}", str(number))


def _has_lines(path: Path) -> bool:
    """Is each line a series of its own? A list alone on its line is a document, whatever it holds."""
    with path.open("rb") as file:
        first = next((line for line in file if line.strip()), b"")
        try:
            value = json.loads(first)
        except ValueError:
            return not first
        return isinstance(value, dict) or any(line.strip() for line in file)
