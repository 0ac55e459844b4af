"""The columns of a collection with one series a row: what a name means, and where a column's numbers lie in a file.

Axes: N rows (series).
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

TARGET_NAMES = ("target", "sequence")
ID_NAMES = ("item_id", "unique_id", "id", "series_id", "ts_id")
TIME_NAMES = ("timestamp", "ds", "date", "datetime", "time")
"""Of a table with a row a step."""
SHAPE_SUFFIX = "._np_shape"
"""GluonTS writes an array of variates x time as a flat list and its shape beside it, under this name."""

_YEAR_OR_MONTH = re.compile(r"\d{4}(-\d{2})?")


class Kind(Enum):
    """What a list column is."""

    TARGET = "target"
    PAST = "past"
    FUTURE = "future"


_PREFIXES = (
    ("past_cat__", Kind.PAST),
    ("future_cat__", Kind.FUTURE),
    ("past__", Kind.PAST),
    ("future__", Kind.FUTURE),
)


def kind_of(name: str) -> tuple[Kind, str] | None:
    """Kind and short name of a column of time series; None for any other column."""
    if name in TARGET_NAMES:
        return Kind.TARGET, name
    for prefix, kind in _PREFIXES:
        if name.startswith(prefix) and len(name) > len(prefix):
            return kind, name.removeprefix(prefix)
    if name in ("past_feat_dynamic_real", "past_feat_dynamic_cat"):
        return Kind.PAST, name
    if name in ("feat_dynamic_real", "feat_dynamic_cat"):
        return Kind.FUTURE, name
    return None


def is_list(type_: pa.DataType) -> bool:
    return pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)


def leaf_type(type_: pa.DataType) -> tuple[pa.DataType, int]:
    """Type of the values under the lists, and how many lists there are."""
    depth = 0
    while is_list(type_) or isinstance(type_, pa.BaseExtensionType):
        if isinstance(type_, pa.BaseExtensionType):
            type_ = type_.storage_type
        else:
            type_, depth = type_.value_type, depth + 1
    return type_, depth


def is_text(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    return pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)


def is_number(type_: pa.DataType) -> bool:
    return pa.types.is_floating(type_) or pa.types.is_integer(type_)


def instant(value: Any, where: str, name: str) -> np.datetime64 | None:
    """The time that a cell of `start`, or an element of `timestamp`, states: datetime64[us], in UTC where it has an
    offset, None where it is null. ValueError, which begins with `where`, for anything else, numbers too."""
    if value is None:
        return None
    try:
        if isinstance(value, str):
            value = np.datetime64(value) if _YEAR_OR_MONTH.fullmatch(value) else datetime.fromisoformat(value)
        if isinstance(value, datetime) and value.tzinfo is not None:
            value = value.astimezone(UTC).replace(tzinfo=None)
        if isinstance(value, date):  # and any datetime
            value = np.datetime64(value, "us")
        if isinstance(value, np.datetime64) and not np.isnat(value):
            return value.astype("datetime64[us]")
    except ValueError:
        pass
    raise ValueError(f"{where}: {name} {reprlib.repr(value)} is not a time. Write it as 2024-01-31 12:00:00.")


def instants(values: Sequence[Any] | np.ndarray, where: str, length: int) -> np.ndarray:
    """`instant` of a cell of `timestamp`, datetime64[us] (T,): one for each of `length` steps."""
    if len(values) != length:
        raise ValueError(f"{where}: timestamp has {len(values)} steps, the target {length}. They must be as many.")
    times = values if isinstance(values, np.ndarray) and values.dtype.kind == "M" else None
    if times is None:
        times = np.array([instant(value, where, "timestamp") for value in values], dtype="datetime64[us]")
    if np.isnat(times).any():
        raise ValueError(f"{where}: timestamp is null at step {int(np.isnat(times).argmax())}. Every step has a time.")
    return times


def check_same_names(schemas: Sequence[pa.Schema], paths: Sequence[Path]) -> None:
    """Do the files of a data set have the same columns, in any order, and no name twice? ValueError, with the file."""
    for path, schema in zip(paths, schemas, strict=True):
        names, known = schema.names, schemas[0].names
        if len({*names}) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{path} has two columns {twice!r}. Rename or drop one.")
        if {*names} != {*known}:
            raise ValueError(
                f"{path}: the columns {', '.join(names)} differ from those of {paths[0].name}, {', '.join(known)}. "
                "Files of one data set have the same columns; put others into a folder of their own."
            )


@dataclass(frozen=True)
class Extent:
    """Where the values of N rows lie in a flat child array: variates x length numbers from `start` on, in C order."""

    start_N: np.ndarray
    """int64."""
    variates_N: np.ndarray
    """int32; 0 where the row is null."""
    length_N: np.ndarray
    """int64."""
    values: pa.Array
    """The flat child."""
    ragged_row: int | None = None
    """First row whose variates differ in length."""


def locate(array: pa.Array, shapes: pa.Array | None = None) -> Extent:
    """Extent of a column of lists, or of lists of lists. `shapes` are GluonTS's shapes of flattened arrays."""
    start_N, count_N, child = _lists(array)
    present_N = np.ones(len(array), dtype=bool)
    if array.null_count:
        present_N = array.is_valid().to_numpy(zero_copy_only=False)
        count_N = np.where(present_N, count_N, 0)
    if shapes is not None:
        shape_start_N, shape_count_N, shape_values = _lists(shapes)
        sizes = shape_values.to_numpy(zero_copy_only=False)
        variates_N = np.where(shape_count_N == 2, sizes[shape_start_N], 1)
        return Extent(start_N, variates_N.astype(np.int32), count_N // np.maximum(variates_N, 1), child)
    if not leaf_type(child.type)[1]:
        return Extent(start_N, present_N.astype(np.int32), count_N, child)

    inner_start, inner_count, values = _lists(child)
    if child.null_count:
        inner_count = np.where(child.is_valid().to_numpy(zero_copy_only=False), inner_count, 0)
    some_N = count_N > 0
    length_N = np.zeros(len(array), dtype=np.int64)
    first_N = np.zeros(len(array), dtype=np.int64)
    length_N[some_N] = inner_count[start_N[some_N]]
    first_N[some_N] = inner_start[start_N[some_N]]
    row_of_list = np.repeat(np.arange(len(array)), count_N)
    rank_of_list = np.arange(len(row_of_list)) - np.repeat(np.cumsum(count_N) - count_N, count_N)
    wrong = np.flatnonzero(inner_count[start_N[row_of_list] + rank_of_list] != length_N[row_of_list])
    ragged_row = int(row_of_list[wrong[0]]) if len(wrong) else None
    return Extent(first_N, count_N.astype(np.int32), length_N, values, ragged_row)


def _lists(array: pa.Array) -> tuple[np.ndarray, np.ndarray, pa.Array]:
    """Starts and counts, int64 (N,), of one level of lists, and the child they count in."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_fixed_size_list(array.type):
        size = array.type.list_size
        start_N = (np.arange(len(array), dtype=np.int64) + array.offset) * size
        return start_N, np.full(len(array), size, dtype=np.int64), array.values
    offsets = array.offsets.to_numpy().astype(np.int64)
    return offsets[:-1], np.diff(offsets), array.values
