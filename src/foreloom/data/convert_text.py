"""Text files as Arrow: JSON lines with one series a line, CSV with one observation a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from foreloom.data import columns, tables
from foreloom.data.columns import Kind
from foreloom.data.progress import conversion_bar
from foreloom.data.series import Series
from foreloom.data.writer import write_series

_LARGEST_BLOCK_BYTES = 2**30


def jsonl_to_arrow(paths: Sequence[Path], out: Path) -> None:
    """Lines are objects with `target` or `sequence`, and any other column of `data/columns.py`."""
    with conversion_bar(paths[0].name, sum(path.stat().st_size for path in paths)) as advance:
        write_series(_json_series(paths, advance), out)


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
        raise ValueError(f"{path}: not a readable CSV table: {error}") from error
    if not (tables.is_long(table.schema) or tables.is_wide(table.schema)):
        raise ValueError(
            f"{path}: the columns {', '.join(table.schema.names)} are neither a long table (timestamp and target, or "
            "ds and y, with an id column for several series) nor a wide one (a column date and columns of numbers)."
        )
    if not len(table):
        raise ValueError(f"{path}: the table has no rows.")
    return table


def _json_series(paths: Sequence[Path], advance: Any) -> Iterator[Series]:
    for path in paths:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                advance(len(line))
                if line.strip():
                    yield _parse_line(line, path, number)


def _parse_line(line: bytes, path: Path, number: int) -> Series:
    where = f"{path}:{number}"
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error}). Each line is one object.") from None
    name = next((name for name in columns.TARGET_NAMES if isinstance(record, dict) and name in record), None)
    if name is None:
        raise ValueError(f'{where}: no series found; a line looks like {{"target": [1.0, 2.0, null]}}.')
    target_VT = np.atleast_2d(_array(record[name], where, name))
    found: dict[Kind, dict[str, np.ndarray]] = {Kind.PAST: {}, Kind.FUTURE: {}}
    for key, values in record.items():
        kind = columns.kind_of(key)
        if kind is None or kind[0] is Kind.TARGET or values is None:
            continue
        if "_cat__" in key:
            rows = {kind[1]: np.array([None if v is None else str(v) for v in values], dtype=object)}
        else:
            array = _array(values, where, key)
            rows = (
                {kind[1]: array}
                if array.ndim == 1
                else {f"{key}_{number:03d}": row for number, row in enumerate(array)}
            )
        for covariate, row in rows.items():
            if len(row) != target_VT.shape[1]:
                raise ValueError(
                    f"{where}: covariate {key!r} has {len(row)} steps, the target {target_VT.shape[1]}. A covariate "
                    "must be as long as its target; null stands for missing values."
                )
            found[kind[0]][covariate] = row
    return Series(
        item_id=str(next((record[key] for key in columns.ID_NAMES if key in record), number - 1)),
        target_VT=target_VT,
        start=_time(record.get("start"), where),
        freq=record.get("freq"),
        past=found[Kind.PAST],
        future=found[Kind.FUTURE],
        static={key.removeprefix("static__"): value for key, value in record.items() if key.startswith("static__")},
    )


def _array(values: Any, where: str, name: str) -> np.ndarray:
    """float64, one or two axes; null is NaN."""
    try:
        # Asked for floats, numpy reads None as NaN, but text of digits as a number too.
        array = np.array(values, dtype=np.float64)
        if array.ndim in (1, 2) and np.asarray(values).dtype.kind not in "US":
            return array
    except (TypeError, ValueError):
        pass
    rows = values if isinstance(values, list) and values and all(isinstance(row, list) for row in values) else [values]
    if len({len(row) for row in rows if isinstance(row, list)}) > 1:
        raise ValueError(f"{where}: the variates of {name!r} differ in length. Bring them to one length with null.")
    for row in rows:
        for step, value in enumerate(row if isinstance(row, list) else [row]):
            if value is not None and not isinstance(value, int | float):
                raise ValueError(f"{where}: {name!r} holds {value!r} at step {step}, a number or null is wanted.")
    raise ValueError(f"{where}: {name!r} is not a list of numbers, nor a list of such lists.")


def _time(value: Any, where: str) -> np.datetime64 | None:
    try:
        return None if value is None else np.datetime64(value, "us")
    except ValueError:
        raise ValueError(f"{where}: start {value!r} is not a time. Write it as 2024-01-31 12:00:00.") from None
