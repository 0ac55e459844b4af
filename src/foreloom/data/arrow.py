"""Series in memory-mapped Arrow files (IPC stream or file), one series a row: nothing is read before it is asked for.

A whole file is one flat array of numbers a column; of each series we keep where in it its values start. So a window is
a slice, whatever the length of the series and the number of rows.

Axes: N series, V variates, T time steps, R rows of a window, C context, H horizon.
"""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from foreloom.data import columns
from foreloom.data.columns import Kind
from foreloom.data.encoding import encode
from foreloom.data.series import RowCounts, Series

FILE_MAGIC = b"ARROW1"


class NotMappable(Exception):
    """The values cannot be used where they lie (compressed, bit-packed, unaligned): the file must be rewritten."""


class MappedFile:
    """One Arrow file in memory-mapped form."""

    def __init__(self, path: Path):
        with path.open("rb") as file:
            try:
                self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError:
                raise ValueError(f"{path}: the file is empty, not an Arrow file. Write it again.") from None
        self.buffer = pa.py_buffer(self.map)
        self.path = path
        try:
            if self.map[: len(FILE_MAGIC)] == FILE_MAGIC:
                reader = pa.ipc.open_file(self.buffer)
                batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
            else:
                reader = batches = pa.ipc.open_stream(self.buffer)
            self.schema = reader.schema
            self.batches = []
            for batch in batches:
                if not self.batches:
                    self._refuse_compressed(batch)
                self.batches.append(batch)
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(
                f"{path}: not a readable Arrow file ({error}). It may be cut short: copy or write it again."
            ) from error

    def flat(self, dtype: np.dtype) -> np.ndarray:
        """The whole file as numbers of one type; a remainder at the end is left out."""
        return np.frombuffer(self.map, dtype=dtype, count=len(self.map) // dtype.itemsize)

    def position(self, buffer: pa.Buffer, item_bytes: int) -> int:
        """Where in `flat` a buffer starts."""
        begin = buffer.address - self.buffer.address
        if not 0 <= begin <= len(self.map) or begin % item_bytes:
            raise NotMappable(f"{self.path}: a buffer is compressed or not aligned")
        return begin // item_bytes

    def _refuse_compressed(self, batch: pa.RecordBatch) -> None:
        for column in batch.columns:
            for buffer in column.buffers():
                if buffer is not None and buffer.size:
                    self.position(buffer, 1)

    def forget_pages(self) -> None:
        """Give back the pages read so far: the kernel keeps them cached, but they no longer count as ours."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.map.madvise(mmap.MADV_DONTNEED)


class NumberColumn:
    """A column of numbers over all files: where each series' values start, and how to cut a window out of them."""

    def __init__(self, name: str, files: Sequence[MappedFile], origin: Path):
        self.name = name
        self._flat: list[np.ndarray] = []
        self._bits: list[np.ndarray] = []
        starts, variates, lengths, validities = [], [], [], []
        num_rows = 0
        for file in files:
            type_ = columns.leaf_type(file.schema.field(name).type)[0]
            dtype = _dtype(type_, origin, name)
            self._flat.append(file.flat(dtype))
            self._bits.append(file.flat(np.dtype(np.uint8)))
            for batch in file.batches:
                shape_name = name + columns.SHAPE_SUFFIX
                shapes = batch.column(shape_name) if shape_name in batch.schema.names else None
                extent = columns.locate(batch.column(name), shapes)
                if extent.ragged_row is not None:
                    row = num_rows + extent.ragged_row
                    raise ValueError(
                        f"{origin}: row {row}: the variates of {name!r} differ in length. "
                        "Bring them to one length; NaN stands for missing values."
                    )
                validity, data = extent.values.buffers()[:2]
                begin = extent.values.offset
                position = file.position(data, dtype.itemsize) if data is not None and data.size else 0
                starts.append(extent.start_N + (position + begin))
                variates.append(extent.variates_N)
                lengths.append(extent.length_N)
                if extent.values.null_count and validity is not None:
                    validities.append(extent.start_N + (file.position(validity, 1) * 8 + begin))
                else:
                    validities.append(None)
                num_rows += len(batch)
        self.start_N = _join(starts, np.int64)
        self.variates_N = _join(variates, np.int32)
        self.length_N = _join(lengths, np.int64)
        self._validity_N = None
        if any(validity is not None for validity in validities):
            whole = [np.full(len(s), -1) if v is None else v for s, v in zip(starts, validities, strict=True)]
            self._validity_N = _join(whole, np.int64)

    def cut(self, file: int, item: int, begin: int, end: int) -> np.ndarray:
        """(variates, end - begin): a view of the file, or a copy with NaN where values are null."""
        length, num_variates, start = int(self.length_N[item]), int(self.variates_N[item]), int(self.start_N[item])
        flat = self._flat[file]
        values_VT = flat[start : start + num_variates * length].reshape(num_variates, length)[:, begin:end]
        if self._validity_N is None or self._validity_N[item] < 0:
            return values_VT
        first_bit = int(self._validity_N[item])
        values_VT = values_VT.astype(np.result_type(flat.dtype, np.float32))
        for variate in range(num_variates):
            low = first_bit + variate * length + begin
            high = low + end - begin
            bits = np.unpackbits(self._bits[file][low // 8 : -(-high // 8)], bitorder="little")
            values_VT[variate, bits[low % 8 : low % 8 + end - begin] == 0] = np.nan
        return values_VT


class LabelColumn:
    """A column of lists of labels (a categorical covariate), read through Arrow."""

    def __init__(self, name: str, batches: Sequence[pa.RecordBatch], first_rows: Sequence[int]):
        self.name = name
        self._chunks = [batch.column(name) for batch in batches]
        self._first_rows = first_rows
        extents = [columns.locate(chunk) for chunk in self._chunks]
        self.variates_N = _join([extent.variates_N for extent in extents], np.int32)
        self.length_N = _join([extent.length_N for extent in extents], np.int64)

    def cut(self, item: int, begin: int, end: int) -> np.ndarray:
        """Object array (end - begin,), None is missing."""
        chunk = bisect_right(self._first_rows, item) - 1
        labels = self._chunks[chunk][item - self._first_rows[chunk]].values
        return np.array(labels[begin:end].to_pylist(), dtype=object)


class ArrowSource:
    """`Source` over Arrow files with the columns listed in `data/columns.py`. `origin` is what errors name."""

    def __init__(self, paths: Sequence[Path], *, name: str, fingerprint: str, origin: Path | None = None):
        self.name = name
        self.fingerprint = fingerprint
        self._origin = origin or paths[0]
        self._files = [MappedFile(path) for path in paths]
        self.num_bytes = sum(len(file.map) for file in self._files)
        self._batches = [batch for file in self._files for batch in file.batches]
        self._first_rows = _first_rows([len(batch) for batch in self._batches])
        self._first_items = _first_rows([sum(map(len, file.batches)) for file in self._files])
        schema = _common_schema(self._files, self._origin)
        self._id_name = next((name for name in columns.ID_NAMES if name in schema.names), None)
        self._target_name = next(name for name in columns.TARGET_NAMES if name in schema.names)
        self._static_names = [name for name in schema.names if name.startswith(("static__", "feat_static_"))]
        self._schema = schema

        self._target = NumberColumn(self._target_name, self._files, self._origin)
        self.lengths = self._target.length_N
        self.num_rows = self._target.variates_N.copy()
        self._covariates: dict[Kind, list[NumberColumn | LabelColumn]] = {Kind.PAST: [], Kind.FUTURE: []}
        for column_name in sorted(schema.names, key=lambda name: (columns.kind_of(name) or (Kind.TARGET, name))[1]):
            kind = columns.kind_of(column_name)
            if kind is None or kind[0] is Kind.TARGET or not columns.is_list(_storage(schema.field(column_name).type)):
                continue
            column = self._open_covariate(column_name)
            self._check_lengths(column)
            self.num_rows += column.variates_N
            self._covariates[kind[0]].append(column)
        if not len(self.lengths):
            raise ValueError(f"{self._origin}: the data set is empty, it has no series. Check how it was written.")
        for file in self._files:
            file.forget_pages()

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, item: int) -> Series:
        """Series `item`; its arrays are views of the file where the file holds floats without nulls."""
        file, length = self._file_of(item), int(self.lengths[item])
        target_VT = self._target.cut(file, item, 0, length)
        if target_VT.dtype not in (np.float32, np.float64):
            target_VT = target_VT.astype(np.float64 if target_VT.dtype.itemsize > 2 else np.float32)
        stamps = self._timestamps(item)
        start = self._start(item)
        if start is None and stamps is not None and len(stamps):
            start = stamps[0]
        return Series(
            item_id=str(item) if self._id_name is None else str(self._cell(self._id_name, item)),
            target_VT=target_VT,
            start=start,
            freq=self._cell("freq", item) if "freq" in self._schema.names else None,
            past=self._read_covariates(Kind.PAST, file, item, length),
            future=self._read_covariates(Kind.FUTURE, file, item, length),
            static={name.removeprefix("static__"): self._cell(name, item) for name in self._static_names},
            timestamps=stamps,
        )

    def fill_window(self, item: int, cut: int, context_RC: np.ndarray, future_RH: np.ndarray) -> RowCounts:
        file, length = self._file_of(item), int(self.lengths[item])
        num_steps = min(cut, context_RC.shape[1])
        num_ahead = min(length - cut, future_RH.shape[1])
        begin, end = cut - num_steps, cut + num_ahead
        context = context_RC[:, context_RC.shape[1] - num_steps :]
        future = future_RH[:, :num_ahead]

        num_targets = int(self._target.variates_N[item])
        values_VT = self._target.cut(file, item, begin, end)
        context[:num_targets] = values_VT[:, :num_steps]
        future[:num_targets] = values_VT[:, num_steps:]
        row = num_targets
        counts = [num_targets]
        for kind in (Kind.PAST, Kind.FUTURE):
            for column in self._covariates[kind]:
                num_variates = int(column.variates_N[item])
                if not num_variates:
                    continue
                if isinstance(column, LabelColumn):
                    labels = column.cut(item, begin, end)
                    encoded = encode(labels[:num_steps], context[:num_targets], labels[num_steps:])
                    context[row], future[row] = encoded
                else:
                    values_VT = column.cut(file, item, begin, end)
                    context[row : row + num_variates] = values_VT[:, :num_steps]
                    future[row : row + num_variates] = values_VT[:, num_steps:]
                row += num_variates
            counts.append(row - sum(counts))
        return RowCounts(*counts)

    def _file_of(self, item: int) -> int:
        return bisect_right(self._first_items, item) - 1

    def _cell(self, name: str, item: int) -> Any:
        batch = bisect_right(self._first_rows, item) - 1
        return self._batches[batch].column(name)[item - self._first_rows[batch]].as_py()

    def _start(self, item: int) -> np.datetime64 | None:
        if "start" not in self._schema.names:
            return None
        value = self._cell("start", item)
        if isinstance(value, list):
            value = value[0]
        try:
            return None if value is None else np.datetime64(value, "us")
        except ValueError:
            raise ValueError(
                f"{self._origin}: row {item}: start {value!r} is not a time. Write it as 2024-01-31 12:00:00."
            ) from None

    def _timestamps(self, item: int) -> np.ndarray | None:
        if "timestamp" not in self._schema.names or not columns.is_list(self._schema.field("timestamp").type):
            return None
        batch = bisect_right(self._first_rows, item) - 1
        values = self._batches[batch].column("timestamp")[item - self._first_rows[batch]].values
        return None if values is None else values.to_numpy(zero_copy_only=False)

    def _read_covariates(self, kind: Kind, file: int, item: int, length: int) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for column in self._covariates[kind]:
            short_name = columns.kind_of(column.name)[1]  # type: ignore[index]
            if isinstance(column, LabelColumn):
                if column.variates_N[item]:
                    found[short_name] = column.cut(item, 0, length)
                continue
            for number, row in enumerate(column.cut(file, item, 0, length)):
                found[short_name if "__" in column.name else f"{short_name}_{number:03d}"] = row
        return found

    def _open_covariate(self, name: str) -> NumberColumn | LabelColumn:
        leaf = columns.leaf_type(self._schema.field(name).type)[0]
        if columns.is_text(leaf) and name.startswith(("past_cat__", "future_cat__")):
            return LabelColumn(name, self._batches, self._first_rows)
        return NumberColumn(name, self._files, self._origin)

    def _check_lengths(self, column: NumberColumn | LabelColumn) -> None:
        wrong = np.flatnonzero((column.variates_N > 0) & (column.length_N != self.lengths))
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(
                f"{self._origin}: row {row}: covariate {column.name!r} has {column.length_N[row]} steps, the target "
                f"{self.lengths[row]}. A covariate must be as long as its target; NaN stands for missing values."
            )


def _dtype(type_: pa.DataType, path: Path, name: str) -> np.dtype:
    if columns.is_text(type_):
        raise ValueError(f"{path}: column {name!r} holds text, numbers are wanted. Convert it, or drop the column.")
    if not columns.is_number(type_):
        raise NotMappable(f"{path}: column {name!r} holds {type_}")
    return np.dtype(type_.to_pandas_dtype())


def _common_schema(files: Sequence[MappedFile], origin: Path) -> pa.Schema:
    schema = files[0].schema
    if not any(name in schema.names for name in columns.TARGET_NAMES):
        raise ValueError(
            f"{origin}: there is no column 'target' (or 'sequence'); the columns are "
            f"{', '.join(schema.names)}. Rename the column that holds the series."
        )
    for file in files[1:]:
        if file.schema.names != schema.names:
            raise ValueError(
                f"{file.path}: the columns {file.schema.names} differ from those of {files[0].path.name}, "
                f"{schema.names}. Files of one data set have the same columns."
            )
    return schema


def _storage(type_: pa.DataType) -> pa.DataType:
    return type_.storage_type if isinstance(type_, pa.BaseExtensionType) else type_


def _first_rows(sizes: Sequence[int]) -> list[int]:
    return [0, *np.cumsum(sizes).tolist()[:-1]] if len(sizes) else [0]


def _join(parts: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts).astype(dtype, copy=False) if parts else np.empty(0, dtype)
