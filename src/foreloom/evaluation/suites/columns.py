"""Hub tables whose columns have names of their own (`HUFL`, `power_mw`) as the columns that `open_source` reads.

Axes: N rows (series), V target columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from foreloom.data.columns import ID_NAMES, TARGET_NAMES, is_list, is_number, is_text, leaf_type
from foreloom.data.formats.cache import cached
from foreloom.data.formats.columnar import arrow_batches, parquet_batches
from foreloom.data.formats.parts import find_parts
from foreloom.data.tables.frequency import infer_freq
from foreloom.evaluation.suites.suite import SuiteTask

_TIME_NAMES = ("timestamp", "timestamps")
_NUM_STAMPS = 30
"""Stamps that tell a series' frequency."""


@dataclass(frozen=True)
class Roles:
    """What each column of a table with one series a row is."""

    targets: tuple[str, ...]
    past: tuple[str, ...] = ()
    future: tuple[str, ...] = ()
    static: tuple[str, ...] = ()


def readable(path: Path, task: SuiteTask) -> Path:
    """A path that `open_source` reads as the task means it: `path` itself, or an Arrow file in the cache.

    Data in our own form (a `target` column, covariates as `past__x` and `future__x`), CSV and JSONL stay as they are.
    Raises ValueError where a column of the task is not there.
    """
    part, *others = find_parts(path)
    if others or part.layout not in ("arrow", "parquet"):
        return path
    layout, files = part.layout, part.files
    batches = parquet_batches if layout == "parquet" else arrow_batches
    schema = next(iter(batches(files[:1]))).schema
    roles = roles_of(schema, task, path)
    if roles is None:
        return path
    return cached(files, lambda out: _rewrite(batches(files), roles, out), variant=repr(roles))


def roles_of(schema: pa.Schema, task: SuiteTask, path: Path) -> Roles | None:
    """The roles of a table's columns for a task; None where the table needs no translation."""
    named = (*task.targets, *task.past, *task.future, *task.static)
    absent = [name for name in named if name not in schema.names]
    has_target = any(name in schema.names for name in TARGET_NAMES)
    if has_target and len(absent) == len(named):
        return None
    if absent:
        raise ValueError(
            f"{path}: task {task.name!r} needs the columns {', '.join(absent)}; those there are "
            f"{', '.join(schema.names)}. Fetch the data set again."
        )
    targets = task.targets or (("target",) if "target" in schema.names else _number_lists(schema))
    if not targets:
        raise ValueError(f"{path}: no column holds numbers over time; those there are {', '.join(schema.names)}.")
    return Roles(targets, task.past, task.future, task.static)


def _number_lists(schema: pa.Schema) -> tuple[str, ...]:
    """Every column of numbers over time, as Chronos's own evaluation takes them."""
    return tuple(f.name for f in schema if is_list(f.type) and is_number(leaf_type(f.type)[0]))


def _rewrite(batches: Iterable[pa.RecordBatch], roles: Roles, out: Path) -> None:
    with pa.OSFile(str(out), "wb") as sink:
        writer = None
        for batch in batches:
            table = _translate(batch, roles)
            writer = writer or pa.ipc.new_stream(sink, table.schema)
            writer.write_batch(table)
        assert writer is not None, "an empty table has no schema to take roles from"
        writer.close()


def _translate(batch: pa.RecordBatch, roles: Roles) -> pa.RecordBatch:
    arrays: dict[str, pa.Array] = {}
    id_name = next((name for name in ID_NAMES if name in batch.schema.names), None)
    if id_name is not None:
        arrays["item_id"] = batch.column(id_name).cast(pa.string())
    time_name = next((name for name in _TIME_NAMES if name in batch.schema.names), None)
    if time_name is not None:
        arrays |= _clock(batch.column(time_name))
    arrays["target"] = _stack([_floats(batch.column(name)) for name in roles.targets])
    for role, names in (("past", roles.past), ("future", roles.future)):
        for name in names:
            column = batch.column(name)
            if is_text(leaf_type(column.type)[0]):
                arrays[f"{role}_cat__{name}"] = column
            else:
                arrays[f"{role}__{name}"] = _floats(column)
    arrays |= {f"static__{name}": batch.column(name) for name in roles.static}
    return pa.RecordBatch.from_pydict(arrays)


def _floats(column: pa.Array) -> pa.LargeListArray:
    """Lists of float64, null as NaN: mapped as they lie."""
    column = column.cast(pa.large_list(pa.float64()), safe=False)
    values = column.values.fill_null(float("nan"))
    return pa.LargeListArray.from_arrays(column.offsets, values)


def _stack(columns: Sequence[pa.LargeListArray]) -> pa.Array:
    """V columns of lists as one column of V lists a row."""
    if len(columns) == 1:
        return columns[0]
    length_NV = np.stack([np.diff(column.offsets.to_numpy()) for column in columns], axis=1)
    first_NV = np.stack([column.offsets.to_numpy()[:-1] for column in columns], axis=1)
    first_NV = first_NV + np.cumsum([0, *(len(column.values) for column in columns[:-1])])
    length, first = length_NV.ravel(), first_NV.ravel()
    ends = np.cumsum(length)
    order = np.repeat(first - (ends - length), length) + np.arange(ends[-1] if len(ends) else 0)
    values = pa.concat_arrays([column.values for column in columns]).take(pa.array(order))
    inner = pa.LargeListArray.from_arrays(pa.array(np.concatenate([[0], ends])), values)
    return pa.LargeListArray.from_arrays(pa.array(np.arange(len(length_NV) + 1) * len(columns)), inner)


def _clock(stamps: pa.Array) -> dict[str, pa.Array]:
    """start and timestamp of each series, and the frequency that the first one shows, if it shows one."""
    stamps = stamps.cast(pa.large_list(pa.timestamp("us")))
    begin_N = stamps.offsets.to_numpy()[:-1]
    end_N = stamps.offsets.to_numpy()[1:]
    values = stamps.values
    starts = values.take(pa.array(np.where(end_N > begin_N, begin_N, 0)))
    freq = infer_freq(values[begin_N[0] : min(end_N[0], begin_N[0] + _NUM_STAMPS)].to_numpy(zero_copy_only=False))
    return {"start": starts, "timestamp": stamps, "freq": pa.array([freq] * len(stamps), pa.string())}
