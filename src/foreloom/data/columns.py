"""The columns of a collection with one series a row: what a name means, and where a column's numbers lie in a file.

Axes: N rows (series).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import pyarrow as pa

TARGET_NAMES = ("target", "sequence")
ID_NAMES = ("item_id", "unique_id", "id", "series_id", "ts_id")
TIME_NAMES = ("timestamp", "ds", "date", "datetime", "time")
"""Of a table with a row a step."""
SHAPE_SUFFIX = "._np_shape"
"""GluonTS writes an array of variates x time as a flat list and its shape beside it, under this name."""


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
