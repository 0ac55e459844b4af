"""Rows to compare: each target of each series of some sources, read a few at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from foreloom.data.source import Prepares, Source

_POINTS_AT_ONCE = 2**17
"""Fit into a core's cache with all that is made of them."""


@dataclass(frozen=True)
class Rows:
    """Axes: R rows, in the order of sources, series and targets."""

    sources: Sequence[Source]
    source_R: np.ndarray
    """int32."""
    item_R: np.ndarray
    """int64, series of the source."""
    target_R: np.ndarray
    """int32, of the series."""
    length_R: np.ndarray
    """int64, steps that count, from the first on."""

    @staticmethod
    def of(sources: Sequence[Source], items: Sequence[np.ndarray], lengths: Sequence[np.ndarray]) -> Rows:
        """All targets of `items` of each source; `lengths` are of all its series."""
        parts = []
        for number, (source, item_I, length_I) in enumerate(zip(sources, items, lengths, strict=True)):
            num_I = source.num_targets[item_I]
            item_R = np.repeat(item_I, num_I)
            target_R = np.arange(len(item_R)) - np.repeat(np.cumsum(num_I) - num_I, num_I)
            parts.append((np.full(len(item_R), number, np.int32), item_R, target_R.astype(np.int32), length_I[item_R]))
        return Rows(sources, *map(np.concatenate, zip(*parts, strict=True)))

    def __len__(self) -> int:
        return len(self.item_R)

    @property
    def num_points(self) -> int:
        return int(self.length_R.sum())

    def batches(self) -> Iterator[list[np.ndarray]]:
        """All rows in their order, float64 (T,) each, some at a time; not finite is missing."""
        changes = (np.diff(self.item_R) != 0) | (np.diff(self.source_R) != 0)
        begin_R = np.flatnonzero(np.concatenate([[True], changes])) if len(self) else np.empty(0, int)
        points_R = np.append(np.cumsum(self.length_R) - self.length_R, self.num_points)
        first = 0
        while first < len(begin_R):
            full = points_R[begin_R[first]] + _POINTS_AT_ONCE
            last = max(int(np.searchsorted(points_R[begin_R], full, side="right")), first + 1)
            some_R = begin_R[first:last]
            self._prepare(some_R)
            yield [row for r in some_R for row in self._targets(int(r))]
            first = last

    def read(self, row: int) -> np.ndarray:
        """float64 (T,)."""
        return self._targets(row)[self.target_R[row]]

    def name(self, row: int) -> str:
        """Of the series, with the number of the target where it has several."""
        source, item = self.sources[self.source_R[row]], int(self.item_R[row])
        name = source.read(item).item_id
        return f"{name}[{self.target_R[row]}]" if source.num_targets[item] > 1 else name

    def _prepare(self, some_R: np.ndarray) -> None:
        for number in np.unique(self.source_R[some_R]):
            source = self.sources[number]
            if isinstance(source, Prepares):
                source.prepare(self.item_R[some_R[self.source_R[some_R] == number]])

    def _targets(self, row: int) -> list[np.ndarray]:
        source, item, length = self.sources[self.source_R[row]], int(self.item_R[row]), int(self.length_R[row])
        rows_RT = np.full((int(source.num_rows[item]), length), np.nan)
        source.fill_window(item, length, rows_RT, rows_RT[:, :0])
        targets_VT = rows_RT[: int(source.num_targets[item])]
        targets_VT[np.isinf(targets_VT)] = np.nan
        return list(targets_VT)
