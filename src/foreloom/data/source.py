"""A series as readers and evaluators see it, and the protocol of a source of series.

Axes: V target variates, T time steps, R rows (targets, past covariates, known-future covariates), C context, H horizon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from foreloom.data.encoding import encode

_PREPARED_AT_ONCE = 256
VARIATES = "variates"
"""The static value that holds the names of a wide table's columns."""


@dataclass(frozen=True)
class Series:
    """One item with everything known about it. NaN is missing."""

    item_id: str
    target_VT: np.ndarray
    """float32 or float64, (variates, T)."""
    start: np.datetime64 | None = None
    freq: str | None = None
    past: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Covariates observed only, each (T,): floats, or strings (categorical; object dtype, None is missing)."""
    future: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Covariates known ahead, each (T,)."""
    static: Mapping[str, Any] = field(default_factory=dict)
    timestamps: np.ndarray | None = None
    """datetime64 (T,), where the source states them one by one."""

    @property
    def length(self) -> int:
        return self.target_VT.shape[-1]

    @property
    def counts(self) -> RowCounts:
        return RowCounts(len(self.target_VT), len(self.past), len(self.future))


class RowCounts(NamedTuple):
    """How many rows of each role a series has, in row order."""

    num_targets: int
    num_past: int
    num_future: int


class Source(Protocol):
    """Random access to a collection of series on disk. Opening one is O(files); nothing is read before it is asked."""

    name: str
    lengths: np.ndarray
    """int64 (num_series,), time steps of each series."""
    num_rows: np.ndarray
    """int32 (num_series,), variates + covariates of each series."""
    num_targets: np.ndarray
    """int32 (num_series,), target variates of each series."""
    fingerprint: str
    """Changes when the data change: files, sizes, layout. Equal for a copy in another place."""
    files: Mapping[str, str]
    """A digest of each file by its name; empty where there are none."""
    num_bytes: int
    """Bytes mapped from disk."""

    def __len__(self) -> int: ...

    def read(self, item: int) -> Series:
        """Series `item`, whole."""
        ...

    def fill_window(self, item: int, cut: int, context_RC: np.ndarray, future_RH: np.ndarray) -> RowCounts:
        """Write the window of series `item` at `cut` into two float32 or float64 arrays that hold NaN.

        `context_RC` gets the last C steps before the cut, right-aligned; `future_RH` the H steps from the cut on, as
        far as the series goes. Rows: targets, past covariates, known-future covariates, each role sorted by name. The
        cost does not depend on the length of the series.
        """
        ...


def has_covariates(source: Source) -> bool:
    """Has any of its series?"""
    return bool((source.num_rows > source.num_targets).any())


@runtime_checkable
class Prepares(Protocol):
    """A source that is faster when it knows beforehand which series will be read."""

    def prepare(self, items: np.ndarray) -> None:
        """Make ready for `read` and `fill_window` of these series, int64, in this thread, and forget earlier ones."""
        ...


def read_in_turn(source: Source, items: np.ndarray) -> Iterator[Series]:
    """The series of `items`, whole, one after the other, a few of them prepared at a time."""
    for first in range(0, len(items), _PREPARED_AT_ONCE):
        some = items[first : first + _PREPARED_AT_ONCE]
        if isinstance(source, Prepares):
            source.prepare(some)
        for item in some:
            yield source.read(int(item))


Watch = Callable[[Iterable[Series], int], Iterable[Series]]
"""watch(series, their number): the same series, while someone tells how far it is."""


class MemorySource:
    """`Source` over a sequence of `Series`."""

    def __init__(self, series: Sequence[Series], name: str = "memory"):
        self.name = name
        self.files: Mapping[str, str] = {}
        self.num_bytes = 0
        self.lengths = np.array([one.length for one in series], dtype=np.int64)
        self.num_rows = np.array([sum(one.counts) for one in series], dtype=np.int32)
        self.num_targets = np.array([one.counts.num_targets for one in series], dtype=np.int32)
        digest = blake2b(digest_size=16)
        for one in series:
            digest.update(one.target_VT.tobytes())
        self.fingerprint = digest.hexdigest()
        self._series = series

    def __len__(self) -> int:
        return len(self._series)

    def read(self, item: int) -> Series:
        return self._series[item]

    def fill_window(self, item: int, cut: int, context_RC: np.ndarray, future_RH: np.ndarray) -> RowCounts:
        return fill_from_series(self._series[item], cut, context_RC, future_RH)


class Shortened:
    """A source whose series end earlier, after `lengths` steps."""

    def __init__(self, source: Source, lengths: np.ndarray) -> None:
        self.name, self.files, self.num_bytes = source.name, source.files, source.num_bytes
        self.num_rows, self.num_targets, self.lengths = source.num_rows, source.num_targets, lengths
        self.fingerprint = blake2b(source.fingerprint.encode() + lengths.tobytes(), digest_size=16).hexdigest()
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def prepare(self, items: np.ndarray) -> None:
        if isinstance(self._source, Prepares):
            self._source.prepare(items)

    def read(self, item: int) -> Series:
        one, end = self._source.read(item), slice(int(self.lengths[item]))
        cut = lambda values: {name: of_T[end] for name, of_T in values.items()}
        stamps = None if one.timestamps is None else one.timestamps[end]
        return replace(
            one, target_VT=one.target_VT[:, end], past=cut(one.past), future=cut(one.future), timestamps=stamps
        )

    def fill_window(self, item: int, cut: int, context_RC: np.ndarray, future_RH: np.ndarray) -> RowCounts:
        known = max(int(self.lengths[item]) - cut, 0)
        return self._source.fill_window(item, cut, context_RC, future_RH[:, :known])


def fill_from_series(series: Series, cut: int, context_RC: np.ndarray, future_RH: np.ndarray) -> RowCounts:
    """`Source.fill_window` for a source that holds whole series."""
    num_steps = min(cut, context_RC.shape[1])
    num_ahead = min(series.length - cut, future_RH.shape[1])
    past, ahead = slice(cut - num_steps, cut), slice(cut, cut + num_ahead)
    context = context_RC[:, context_RC.shape[1] - num_steps :]
    future = future_RH[:, :num_ahead]

    num_targets = len(series.target_VT)
    context[:num_targets] = series.target_VT[:, past]
    future[:num_targets] = series.target_VT[:, ahead]
    row = num_targets
    for role in (series.past, series.future):
        for name in sorted(role):
            values = role[name]
            if values.dtype.kind in "fiub":
                context[row], future[row] = values[past], values[ahead]
            else:
                context[row], future[row] = encode(values[past], context[:num_targets], values[ahead])
            row += 1
    return series.counts
