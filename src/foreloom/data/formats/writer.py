"""Writes series as Arrow or Parquet, one series a row, in the columns of `data/columns.py`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from foreloom.data.source import Series

_BATCH_VALUES = 4 * 2**20
"""Numbers a record batch, about: bounds the memory of a conversion."""
_BATCH_SERIES = 4096


def write_series(
    series: Iterable[Series], path: Path, form: Literal["arrow", "parquet"] = "arrow", *, origin: Path | None = None
) -> int:
    """Write all series to one file and return their number. "arrow" is the IPC stream format, uncompressed.

    The columns are those of the first batch; a covariate that turns up later raises ValueError, and so does what does
    not fit their types. `origin` is where the series come from, for that sentence.
    """
    writer = None
    count = 0
    names: _Names | None = None
    with pa.OSFile(str(path), "wb") as sink, ExitStack() as at_the_end:
        for group in _batches(series):
            names = names or _Names(group, f"{origin}: " if origin else "")
            names.check(group)
            batch = _record_batch(group, names)
            if writer is None:
                writer = at_the_end.enter_context(closing(_open(sink, batch.schema, form)))
            writer.write_batch(batch.cast(writer.schema) if batch.schema != writer.schema else batch)
            count += len(group)
        if writer is None:
            no_series = pa.schema([("item_id", pa.string()), ("target", pa.list_(pa.float32()))])
            at_the_end.enter_context(closing(_open(sink, no_series, form)))
    return count


class _Stream:
    """An IPC stream writer that remembers its schema, as a Parquet writer does."""

    def __init__(self, sink: pa.NativeFile, schema: pa.Schema):
        self.schema = schema
        self._writer = pa.ipc.new_stream(sink, schema)
        self.write_batch = self._writer.write_batch
        self.close = self._writer.close


def _open(sink: pa.NativeFile, schema: pa.Schema, form: str):
    if form == "arrow":
        return _Stream(sink, schema)
    import pyarrow.parquet as pq

    return pq.ParquetWriter(sink, schema, compression="zstd")


class _Names:
    """The covariates of a file; a categorical one is told by its labels."""

    def __init__(self, group: Sequence[Series], where: str):
        self.where = where
        self.columns: dict[str, tuple[str, str]] = {}
        """Column name -> (role, covariate)."""
        for one in group:
            for role in ("past", "future"):
                for name, values in getattr(one, role).items():
                    self.columns.setdefault(self._column(role, name, values), (role, name))
        self.static = sorted({name for one in group for name in one.static})
        self.stamped = any(one.timestamps is not None for one in group)
        self.single = all(len(one.target_VT) == 1 for one in group)
        self.type = pa.float32() if all(one.target_VT.dtype == np.float32 for one in group) else pa.float64()
        self._static_types: dict[str, pa.DataType] = {}

    @staticmethod
    def _column(role: str, name: str, values: np.ndarray) -> str:
        return f"{role}__{name}" if values.dtype.kind in "fiub" else f"{role}_cat__{name}"

    def static_column(self, name: str, group: Sequence[Series]) -> pa.Array:
        try:
            column = pa.array([one.static.get(name) for one in group], self._static_types.get(name))
            column = column.cast(pa.string()) if pa.types.is_null(column.type) else column
            self._static_types.setdefault(name, column.type)
            return column
        except (pa.ArrowException, OverflowError):
            given = {type(one.static[name]): one for one in reversed(group) if one.static.get(name) is not None}
            listed = ", ".join(f"{one.static[name]!r} of series {one.item_id!r}" for one in given.values())
            raise ValueError(
                f"{self.where}static__{name} holds values of several kinds, or one too large: {listed}. Write all of "
                "them as text."
            ) from None

    def check(self, group: Sequence[Series]) -> None:
        for one in group:
            values = one.target_VT
            if self.type == pa.float32() and values.dtype != np.float32:
                with np.errstate(over="ignore"):
                    is_exact = np.array_equal(values.astype(np.float32), values, equal_nan=True)
                if not is_exact:
                    raise ValueError(
                        f"{self.where}series {one.item_id!r} holds numbers that float32, the type of the series before "
                        "it, does not hold exactly. Bring all series to float64."
                    )
            if self.single and len(one.target_VT) > 1:
                raise ValueError(
                    f"{self.where}series {one.item_id!r} has {len(one.target_VT)} variates, those before it one. "
                    "Write univariate and multivariate series to different files."
                )
            for role in ("past", "future"):
                for name, values in getattr(one, role).items():
                    if self._column(role, name, values) not in self.columns:
                        raise ValueError(
                            f"{self.where}series {one.item_id!r} has the {role} covariate {name!r}, which no series "
                            "before it has. Give every series the same covariates (all NaN where unknown)."
                        )


def _batches(series: Iterable[Series]) -> Iterable[list[Series]]:
    group: list[Series] = []
    num_values = 0
    for one in series:
        group.append(one)
        num_values += one.length * sum(one.counts)
        if num_values >= _BATCH_VALUES or len(group) >= _BATCH_SERIES:
            yield group
            group, num_values = [], 0
    if group:
        yield group


def _record_batch(group: Sequence[Series], names: _Names) -> pa.RecordBatch:
    arrays: dict[str, pa.Array] = {
        "item_id": pa.array([one.item_id for one in group], pa.string()),
        "start": pa.array([one.start for one in group], pa.timestamp("us")),
        "freq": pa.array([one.freq for one in group], pa.string()),
    }
    if names.single:
        arrays["target"] = _lists([one.target_VT[0] for one in group], names.type)
    else:
        rows = _lists([row for one in group for row in one.target_VT], names.type)
        offsets = np.cumsum([0, *(len(one.target_VT) for one in group)], dtype=np.int32)
        arrays["target"] = pa.ListArray.from_arrays(pa.array(offsets), rows)
    for column, (role, name) in names.columns.items():
        found = [getattr(one, role).get(name) for one in group]
        if "_cat__" in column:
            arrays[column] = pa.array([None if v is None else v.tolist() for v in found], pa.list_(pa.string()))
        else:
            arrays[column] = _lists(found, names.type)
    for name in names.static:
        arrays[f"static__{name}"] = names.static_column(name, group)
    if names.stamped:
        arrays["timestamp"] = pa.array([one.timestamps for one in group], pa.list_(pa.timestamp("us")))
    return pa.RecordBatch.from_pydict(arrays)


def _lists(rows: Sequence[np.ndarray | None], type_: pa.DataType) -> pa.ListArray:
    """List array of numbers; None makes a null row."""
    offsets = np.cumsum([0, *(0 if row is None else len(row) for row in rows)], dtype=np.int32)
    present = [row for row in rows if row is not None and len(row)]
    values = np.concatenate(present) if present else np.empty(0)
    missing = np.array([row is None for row in rows])
    mask = pa.array(missing) if missing.any() else None
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.astype(type_.to_pandas_dtype())), mask=mask)
