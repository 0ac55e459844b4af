"""Columns of series in mapped files: each knows where every series' values lie and cuts windows out of them.

A whole file is one flat array of numbers; of each series we keep where in it its values start. So a window is a slice,
whatever the length of the series and the number of rows.

Axes: N series, V variates, T time steps.
"""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from foreloom.data import columns
from foreloom.data.formats.cache import FILE_MAGIC
from foreloom.data.formats.open_files import leave_room
from foreloom.data.mistaken import what_it_is

_MOST_EMPTY = 2**20
_MOST_A_BYTE = 8
"""A bit of validity is the least that a value takes."""


class NotMappable(Exception):
    """The values cannot be used where they lie (compressed, bit-packed, unaligned): the file must be rewritten."""


class Damaged(ValueError):
    """A file that is not what its name says, or only a part of it."""


def read_ipc(file: pa.NativeFile) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Schema and batches of an IPC stream or file."""
    is_file = file.read(len(FILE_MAGIC)) == FILE_MAGIC
    file.seek(0)
    if not is_file:
        stream = pa.ipc.open_stream(file)
        return stream.schema, iter(stream)
    reader = pa.ipc.open_file(file)
    return reader.schema, (reader.get_batch(number) for number in range(reader.num_record_batches))


class MappedFile:
    """One Arrow file in memory-mapped form. Raises `Damaged` where what it says of itself does not fit its bytes."""

    def __init__(self, path: Path):
        with path.open("rb") as file:
            leave_room(path, file.fileno())
            try:
                self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError:
                raise Damaged(f"{path}: the file is empty, not an Arrow file. Write it again.") from None
        self.buffer = pa.py_buffer(self.map)
        self.path = path
        self.batches = []
        try:
            self.schema, batches = read_ipc(pa.BufferReader(self.buffer))
            for batch in batches:
                if not self.batches:
                    self._refuse_compressed(batch)
                batch.validate()  # sizes alone
                for name, column in zip(batch.schema.names, batch.columns, strict=True):
                    if _longest(column) > max(_MOST_EMPTY, _MOST_A_BYTE * len(self.map)):
                        raise Damaged(
                            f"{path}: {name!r} holds more values than the file has room for: nothing, again and again. "
                            "Copy or write the file again."
                        )
                    if not _offsets_fit(column):
                        raise Damaged(f"{path}: the lists of {name!r} are damaged. Copy or write the file again.")
                self.batches.append(batch)
        except (pa.ArrowException, OSError) as error:
            otherwise = "It may be cut short: copy or write it again."
            raise Damaged(f"{path}: not a readable Arrow file ({error}). {what_it_is(path, otherwise)}") from error

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


def _longest(column: pa.Array) -> int:
    """The most values at any depth of its lists: what holds nothing takes no room in a file, and may say any number."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    return max(len(column), _longest(column.values)) if columns.is_list(column.type) else len(column)


def _offsets_fit(column: pa.Array) -> bool:
    """Do all lists lie within their values? Of the values themselves nothing is read."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if not columns.is_list(column.type):
        return True
    if not pa.types.is_fixed_size_list(column.type):
        offsets = column.offsets.to_numpy()
        if len(offsets) and not (offsets[0] >= 0 and offsets[-1] <= len(column.values)):
            return False
        if (offsets[1:] < offsets[:-1]).any():
            return False
    return _offsets_fit(column.values)


class NumberColumn:
    """A column of numbers over all files: where each series' values start, and how to cut a window out of them."""

    def __init__(self, name: str, files: Sequence[MappedFile], origin: Path, row: Callable[[int], str]):
        """`row` names one for people; `origin` is the data set."""
        self.name = name
        self._flat: list[np.ndarray] = []
        self._bits: list[np.ndarray] = []
        starts, variates, lengths, validities = [], [], [], []
        num_rows = 0
        for file in files:
            dtype = _dtype(file, name, origin)
            self._flat.append(file.flat(dtype))
            self._bits.append(file.flat(np.dtype(np.uint8)))
            for batch in file.batches:
                shape_name = name + columns.SHAPE_SUFFIX
                shapes = batch.column(shape_name) if shape_name in batch.schema.names else None
                extent = columns.locate(batch.column(name), shapes)
                if extent.ragged_row is not None:
                    raise ValueError(
                        f"{row(num_rows + extent.ragged_row)}: the variates of {name!r} differ in length. "
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

    def __init__(self, name: str, files: Sequence[MappedFile], origin: Path, first_rows: Sequence[int]):
        self.name = name
        self._origin = origin
        for file in files:
            type_ = file.schema.field(name).type
            leaf, depth = columns.leaf_type(type_)
            if depth != 1 or not columns.is_text(leaf):
                raise ValueError(f"{origin}: column {name!r} holds {type_}; a list of labels a row is wanted.")
        self._chunks = [batch.column(name) for file in files for batch in file.batches]
        self._first_rows = first_rows
        extents = [columns.locate(chunk) for chunk in self._chunks]
        self.variates_N = _join([extent.variates_N for extent in extents], np.int32)
        self.length_N = _join([extent.length_N for extent in extents], np.int64)

    def cut(self, item: int, begin: int, end: int) -> np.ndarray:
        """Object array (end - begin,), None is missing."""
        chunk = bisect_right(self._first_rows, item) - 1
        labels = self._chunks[chunk][item - self._first_rows[chunk]].values[begin:end]
        return np.array(as_python(labels, f"{self._origin}: column {self.name!r}"), dtype=object)


def as_python(values: pa.Array, where: str) -> list:
    """Values as Python has them. Text lies where offsets say, which are looked at first; `where` begins the sentence of
    a `Damaged`."""
    try:
        if columns.is_text(values.type):
            values.validate(full=True)
        return values.to_pylist()
    except pa.ArrowException as error:
        raise Damaged(f"{where} is damaged ({error}). Copy or write the file again.") from None


def _dtype(file: MappedFile, name: str, origin: Path) -> np.dtype:
    type_ = file.schema.field(name).type
    leaf, depth = columns.leaf_type(type_)
    if columns.is_text(leaf):
        value = next((batch.column(name)[0].as_py() for batch in file.batches if len(batch)), "")
        while isinstance(value, list) and value:
            value = value[0]
        raise ValueError(
            f"{origin}: row 0: column {name!r} holds text ({value!r}), numbers are wanted. Convert or drop the column."
        )
    if depth not in (1, 2):
        raise ValueError(
            f"{origin}: column {name!r} holds {type_}; a list of numbers a row is wanted, or a list of such lists. "
            "A table with one observation a row is read from .parquet or .csv, with a time column (timestamp or ds)."
        )
    if not columns.is_number(leaf):
        raise NotMappable(f"column {name!r} holds {leaf}")
    return np.dtype(leaf.to_pandas_dtype())


def _join(parts: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts).astype(dtype, copy=False) if parts else np.empty(0, dtype)
